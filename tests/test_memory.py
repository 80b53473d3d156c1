"""What the collector is told, and that it is told the contrary afterwards."""

from __future__ import annotations

import gc

import pytest

from homeward.memory import settled, uncollected


def test_nothing_is_collected_while_a_process_starts_and_all_is_again_afterwards() -> None:
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()  # as it was found
    assert gc.isenabled()


def test_a_start_that_fails_leaves_the_collector_on() -> None:
    with pytest.raises(LookupError), uncollected():
        raise LookupError
    assert gc.isenabled()


def test_what_a_settled_process_has_is_passed_over_until_it_ends() -> None:
    before = gc.get_freeze_count()
    with settled():
        assert gc.get_freeze_count() > before
    assert gc.get_freeze_count() == 0
