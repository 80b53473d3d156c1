"""The comparison of two models: what moved, and the page that says so."""

from __future__ import annotations

import stat
from pathlib import Path

from cluster.upgrade.compare import Answer, Compared, Comparison, Listed
from cluster.upgrade.compare_page import write_comparison


def answer(*references: str) -> Answer:
    return Answer(tuple(Listed(f"id-{one}", one, 0.9 - at / 10) for at, one in enumerate(references)))


def made(*probes: Compared) -> Comparison:
    return Comparison("model-old", "model-new", probes)


def test_moves_are_of_the_first_ranks_of_either_list() -> None:
    one = Compared("p", answer("a", "b", "c"), answer("b", "a", "d"))
    assert [(move.reference, move.old, move.new) for move in one.moves(2)] == [("a", 1, 2), ("b", 2, 1)]
    assert [(move.reference, move.old, move.new) for move in one.moves(3)][2:] == [
        ("c", 3, None),
        ("d", None, 3),
    ]
    assert (one.overlap, one.same_first) == (2 / 3, False)


def test_the_sums_count_mates_and_what_had_no_answer() -> None:
    found = made(
        Compared("up", answer("x", "a"), answer("a", "x"), mate="a"),
        Compared("lost", answer("b"), answer("x"), mate="b"),
        Compared("same", answer("c"), answer("c"), mate="c"),
        Compared("faceless", Answer(error="NO_FACE"), answer("d"), mate="d"),
    )
    said = found.as_json()
    assert (said["rank1_old"], said["rank1_new"]) == (2, 3)
    assert (said["listed_old"], said["listed_new"]) == (3, 3)
    assert (said["mates_higher"], said["mates_lower"]) == (2, 1)
    assert (said["errors_old"], said["errors_new"]) == (1, 0)
    assert found.by_change()[0].probe == "lost"


def test_the_page_escapes_names_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    page = tmp_path / "compared.html"
    write_comparison(made(Compared("<b>p</b>", answer("<i>"), answer(), mate="<i>")), page)
    text = page.read_text(encoding="utf-8")
    assert "&lt;i&gt;" in text
    assert "<i>" not in text
    assert "<script" not in text
    assert stat.S_IMODE(page.stat().st_mode) == 0o600


def test_without_known_children_nothing_is_said_of_them(tmp_path: Path) -> None:
    page = tmp_path / "compared.html"
    write_comparison(made(Compared("p", answer("a"), answer("a"))), page)
    assert "right child" not in page.read_text(encoding="utf-8")
