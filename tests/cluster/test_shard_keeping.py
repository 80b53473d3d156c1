"""The keeper of the shard map, alone and against simulated shards that come, go, read and report."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.shard_keeping import GRACE_S, ShardKeeper
from homeward.errors import InvalidInput, NotFound
from index.columns import Bool
from index.placement import SLOTS, ShardInfo, place, slots_by_shard
from index.shard_map import ShardMap, may_serve

ALL = np.ones(SLOTS, np.bool_)
NONE = np.zeros(SLOTS, np.bool_)


class Cluster:
    """A keeper and shards that do at once what is wanted of them."""

    def __init__(self, *names: str, replicas: int = 2) -> None:
        self.now = 100.0
        self.keeper = ShardKeeper(ShardMap.empty("model", replicas), now=self.now)
        for name in names:
            self.join(name)
        self.settle()

    @property
    def map(self) -> ShardMap:
        return self.keeper.map

    def join(self, name: str, incarnation: str = "1", weight: float = 1.0) -> None:
        self.keeper.joined(ShardInfo(name, f"node of {name}", weight), f"{name}:1", f"{name}/{incarnation}")

    def lose(self, name: str) -> None:
        self.keeper.lost(name, now=self.now)

    def decide(self, after: float = 0.0) -> ShardMap | None:
        self.now += after
        return self.keeper.decide(now=self.now)

    def report(self, name: str, held: Bool, *, epoch: int | None = None, incarnation: str = "1") -> None:
        epoch = self.map.epoch if epoch is None else epoch
        self.keeper.reported(name, f"{name}/{incarnation}", epoch, held)

    def settle(self) -> ShardMap:
        """Until nothing changes: all that is wanted gets loaded and reported."""
        self.decide()
        for _ in range(5):
            for shard in self.map.shards:
                held = self.map.wanted_of(shard.name) | self.map.ready_of(shard.name)
                self.keeper.reported(shard.name, shard.incarnation, self.map.epoch, held)
            if self.decide() is None:
                return self.map
        raise AssertionError("the map does not settle")

    def placed(self, *names: str) -> tuple[tuple[str, ...], ...]:
        return place([ShardInfo(name, f"node of {name}") for name in names], self.map.replicas)


def test_a_keeper_of_nothing_decides_nothing() -> None:
    assert ShardKeeper(ShardMap.empty("model", 2), now=0.0).decide(now=0.0) is None


def test_a_joined_shard_is_wanted_at_once_and_ready_when_it_reports() -> None:
    cluster = Cluster()
    cluster.join("a")
    first = cluster.decide()
    assert first is not None
    assert first.epoch == 1
    assert first.wanted == (("a",),) * SLOTS
    assert first.ready == ((),) * SLOTS
    assert may_serve(first, "a", "a/1")
    half = ALL.copy()
    half[SLOTS // 2 :] = False
    cluster.report("a", half)
    second = cluster.decide()
    assert second is not None
    assert second.epoch == 2
    assert second.ready_of("a").tolist() == half.tolist()


def test_nothing_new_gives_no_document() -> None:
    cluster = Cluster("a", "b")
    assert cluster.decide() is None
    for shard in cluster.map.shards:
        cluster.join(shard.name)
        cluster.report(shard.name, cluster.map.wanted_of(shard.name))
    assert cluster.decide(after=1000) is None


def test_a_joining_shard_takes_slots_over_once_it_holds_them() -> None:
    cluster = Cluster("a", "b", "c")
    before = cluster.map
    cluster.join("d")
    growing = cluster.decide()
    assert growing is not None
    assert growing.wanted == cluster.placed("a", "b", "c", "d")
    assert [set(ready) for ready in growing.ready] == [set(ready) for ready in before.ready]
    cluster.report("d", growing.wanted_of("d"))
    grown = cluster.decide()
    assert grown is not None
    assert grown.ready == grown.wanted


def test_a_replica_that_is_not_wanted_any_more_stays_until_all_wanted_are_ready() -> None:
    cluster = Cluster("a", "b")
    cluster.join("c")
    cluster.join("d")
    growing = cluster.decide()
    assert growing is not None
    to_both = growing.wanted_of("c") & growing.wanted_of("d")
    assert to_both.any()
    cluster.report("c", growing.wanted_of("c"))
    half = cluster.decide()
    assert half is not None
    slot = int(np.flatnonzero(to_both)[0])
    assert half.ready[slot] == ("c", "a", "b")
    cluster.report("d", growing.wanted_of("d"))
    grown = cluster.decide()
    assert grown is not None
    assert grown.ready == grown.wanted


def test_a_lost_shard_is_ready_for_nothing_at_once_and_keeps_its_place_for_the_grace() -> None:
    cluster = Cluster("a", "b", "c")
    before = cluster.map
    cluster.lose("a")
    without = cluster.decide()
    assert without is not None
    assert not without.ready_of("a").any()
    assert without.wanted == before.wanted
    assert not may_serve(without, "a", "a/1")
    shard = without.shard("a")
    assert shard is not None
    assert (shard.incarnation, shard.address) == ("", "")
    assert cluster.decide(after=GRACE_S - 0.01) is None


def test_a_shard_that_restarts_within_the_grace_moves_nothing() -> None:
    cluster = Cluster("a", "b", "c")
    before = cluster.map
    cluster.lose("a")
    cluster.decide()
    cluster.now += GRACE_S - 1
    cluster.join("a", "2")
    back = cluster.decide()
    assert back is not None
    assert back.wanted == before.wanted
    cluster.report("a", ALL, incarnation="2")
    settled = cluster.decide(after=GRACE_S * 10)
    assert settled is not None
    assert settled.ready == before.ready


def test_after_the_grace_the_slots_of_a_lost_shard_go_elsewhere_and_come_back_with_it() -> None:
    cluster = Cluster("a", "b", "c")
    whole = cluster.map
    cluster.lose("a")
    cluster.decide()
    moved = cluster.decide(after=GRACE_S)
    assert moved is not None
    assert moved.wanted == cluster.placed("b", "c")
    assert moved.shard("a") is not None
    assert cluster.settle().ready == moved.wanted
    cluster.join("a", "2")
    back = cluster.decide()
    assert back is not None
    assert back.wanted == whole.wanted
    assert all(len(ready) == 2 for ready in back.ready)
    assert cluster.settle().ready == whole.wanted


def test_losing_a_lost_shard_again_does_not_prolong_its_grace() -> None:
    cluster = Cluster("a", "b", "c")
    cluster.lose("a")
    cluster.decide(after=GRACE_S - 1)
    cluster.lose("a")
    moved = cluster.decide(after=1)
    assert moved is not None
    assert moved.wanted == cluster.placed("b", "c")


def test_a_restart_that_nobody_saw_dying_loses_what_the_old_process_held() -> None:
    cluster = Cluster("a", "b", "c")
    cluster.join("a", "2")
    restarted = cluster.decide()
    assert restarted is not None
    assert not restarted.ready_of("a").any()
    assert may_serve(restarted, "a", "a/2")
    assert not may_serve(restarted, "a", "a/1")


def test_reports_and_losses_of_an_old_incarnation_are_ignored() -> None:
    cluster = Cluster("a", "b")
    cluster.join("a", "2")
    cluster.decide()
    cluster.report("a", ALL, incarnation="1")
    cluster.keeper.lost("a", now=cluster.now, incarnation="a/1")
    cluster.join("a", "1")
    assert cluster.decide() is None
    cluster.report("a", ALL, incarnation="2")
    assert cluster.settle().ready_of("a").all()


def test_a_process_that_was_lost_and_replaced_does_not_come_back() -> None:
    cluster = Cluster("a", "b")
    cluster.lose("a")
    cluster.join("a", "2")
    settled = cluster.settle()
    cluster.join("a", "1")
    assert cluster.decide() is None
    cluster.lose("a")
    cluster.join("a", "1")
    without = cluster.decide()
    assert without is not None
    assert not may_serve(without, "a", "a/1")
    cluster.join("a", "2")
    assert cluster.settle().ready == settled.ready


def test_reports_of_a_lost_shard_or_a_stranger_are_ignored() -> None:
    cluster = Cluster("a", "b")
    cluster.lose("a")
    cluster.decide()
    cluster.report("a", ALL)
    cluster.keeper.reported("a", "", cluster.map.epoch, ALL)
    cluster.report("stranger", ALL)
    cluster.lose("stranger")
    cluster.keeper.removed("stranger")
    assert cluster.decide() is None


def test_a_report_from_before_the_slot_was_wanted_again_does_not_count() -> None:
    cluster = Cluster("a", replicas=1)
    old = cluster.map.epoch
    cluster.join("b")
    assert cluster.settle().ready_of("b").any()
    given_up = cluster.map.wanted_of("b")
    assert not (cluster.map.ready_of("a") & given_up).any()
    cluster.keeper.removed("b")
    cluster.decide()
    cluster.report("a", ALL, epoch=old)
    cluster.report("a", ALL, epoch=cluster.map.epoch - 1)
    assert cluster.decide() is None
    cluster.report("a", ALL)
    regained = cluster.decide()
    assert regained is not None
    assert regained.ready_of("a").all()


def test_a_cut_off_shard_that_comes_back_must_report_anew() -> None:
    cluster = Cluster("a", "b")
    cluster.lose("a")
    cut = cluster.decide()
    assert cut is not None
    assert not may_serve(cut, "a", "a/1")
    cluster.join("a")
    back = cluster.decide()
    assert back is not None
    assert may_serve(back, "a", "a/1")
    assert not back.ready_of("a").any()
    cluster.report("a", ALL, epoch=cut.epoch)
    assert cluster.decide() is None
    cluster.report("a", ALL)
    assert cluster.settle().ready_of("a").all()


def test_a_shard_cut_off_and_back_between_two_decisions_must_report_anew() -> None:
    cluster = Cluster()
    cluster.join("a")
    cluster.decide()
    cluster.lose("a")
    cluster.join("a")
    back = cluster.decide()
    assert back is not None
    cluster.report("a", ALL, epoch=back.epoch - 1)
    assert cluster.decide() is None
    cluster.report("a", ALL)
    assert cluster.settle().ready_of("a").all()


def test_a_report_that_a_newer_one_has_overtaken_is_ignored() -> None:
    cluster = Cluster("a", "b")
    cluster.report("a", NONE, epoch=cluster.map.epoch - 1)
    assert cluster.decide() is None


def test_a_shard_that_says_it_does_not_hold_a_slot_is_not_ready_for_it() -> None:
    cluster = Cluster("a", "b")
    held = ALL.copy()
    held[17] = False
    cluster.report("a", held)
    fallen = cluster.decide()
    assert fallen is not None
    assert np.flatnonzero(~fallen.ready_of("a")).tolist() == [17]


def test_a_report_is_a_mask_over_all_slots() -> None:
    cluster = Cluster("a")
    with pytest.raises(InvalidInput):
        cluster.report("a", ALL[1:])
    with pytest.raises(InvalidInput):
        cluster.report("a", np.ones(SLOTS, np.int8))


def test_what_joins_says_where_it_listens_and_which_process_it_is() -> None:
    keeper = ShardKeeper(ShardMap.empty("model", 1), now=0.0)
    with pytest.raises(InvalidInput):
        keeper.joined(ShardInfo("a", "n"), "", "1")
    with pytest.raises(InvalidInput):
        keeper.joined(ShardInfo("a", "n"), "a:1", "")


def test_a_draining_shard_is_ready_until_others_are_and_then_drained() -> None:
    cluster = Cluster("a", "b", "c")
    assert not cluster.keeper.is_drained("a")
    cluster.keeper.draining("a")
    leaving = cluster.decide()
    assert leaving is not None
    assert leaving.wanted == cluster.placed("b", "c")
    assert leaving.ready_of("a").any()
    assert not cluster.keeper.is_drained("a")
    for name in ("b", "c"):
        cluster.report(name, ALL)
    assert not cluster.keeper.is_drained("a")
    left = cluster.decide()
    assert left is not None
    assert cluster.keeper.is_drained("a")
    assert left.ready == left.wanted
    cluster.keeper.removed("a")
    gone = cluster.decide()
    assert gone is not None
    assert gone.shard("a") is None
    assert gone.ready == left.ready


def test_a_shard_is_drained_when_the_document_says_so_and_no_report_waits_for_the_next() -> None:
    cluster = Cluster("a", "b", "c")
    cluster.keeper.draining("a")
    cluster.lose("a")
    assert not cluster.keeper.is_drained("a")
    cluster.decide()
    assert cluster.keeper.is_drained("a")
    cluster.join("d")
    cluster.decide()
    cluster.report("d", ALL)
    cluster.keeper.draining("d")
    assert not cluster.keeper.is_drained("d")


def test_the_last_shard_never_drains() -> None:
    cluster = Cluster("a")
    cluster.keeper.draining("a")
    alone = cluster.decide()
    assert alone is not None
    assert alone.wanted == ((),) * SLOTS
    assert alone.ready_of("a").all()
    assert not cluster.keeper.is_drained("a")


def test_a_draining_shard_that_is_to_stay_has_its_slots_again() -> None:
    cluster = Cluster("a", "b", "c")
    before = cluster.map
    cluster.keeper.draining("a")
    cluster.decide()
    cluster.keeper.staying("a")
    stayed = cluster.decide()
    assert stayed is not None
    assert (stayed.wanted, stayed.ready) == (before.wanted, before.ready)
    assert not cluster.keeper.is_drained("a")


def test_only_members_can_drain() -> None:
    cluster = Cluster("a")
    with pytest.raises(NotFound):
        cluster.keeper.draining("b")
    with pytest.raises(NotFound):
        cluster.keeper.staying("b")
    assert not cluster.keeper.is_drained("b")


def test_a_removed_shard_is_in_no_list_and_may_not_serve() -> None:
    cluster = Cluster("a", "b", "c")
    cluster.keeper.removed("a")
    left = cluster.decide()
    assert left is not None
    assert not left.wanted_of("a").any()
    assert not left.ready_of("a").any()
    assert not may_serve(left, "a", "a/1")


def test_a_new_address_or_weight_of_a_living_shard_costs_it_no_ready_slot() -> None:
    cluster = Cluster("a", "b", replicas=1)
    cluster.keeper.joined(ShardInfo("a", "node of a", 3.0), "elsewhere:2", "a/1")
    changed = cluster.decide()
    assert changed is not None
    shard = changed.shard("a")
    assert shard is not None
    assert (shard.address, shard.weight) == ("elsewhere:2", 3.0)
    assert all(changed.ready)
    assert changed.wanted_of("a").sum() > 0.7 * SLOTS


def test_a_keeper_goes_on_from_the_last_document() -> None:
    cluster = Cluster("a", "b", "c", "d")
    cluster.lose("a")
    cluster.decide()
    cluster.decide(after=GRACE_S)
    cluster.settle()
    cluster.keeper.draining("b")
    cluster.lose("c")
    last = cluster.decide()
    assert last is not None
    cluster.keeper = ShardKeeper(ShardMap.from_json(last.to_json()), now=cluster.now)
    assert cluster.decide() is None
    # The grace of what was lost lately starts again; what was given up stays so, and b still leaves.
    assert cluster.map.wanted == cluster.placed("c", "d")
    assert cluster.decide(after=GRACE_S - 1) is None
    moved = cluster.decide(after=1)
    assert moved is not None
    assert moved.epoch == last.epoch + 1
    assert moved.wanted == cluster.placed("d")
    assert cluster.settle().ready == moved.wanted
    assert cluster.keeper.is_drained("b")


def test_other_replicas_than_the_documents_are_placed_and_said() -> None:
    cluster = Cluster("a", "b", "c")
    cluster.keeper = ShardKeeper(cluster.map, now=cluster.now, replicas=3)
    more = cluster.decide()
    assert more is not None
    assert more.replicas == 3
    assert cluster.settle().ready == cluster.placed("a", "b", "c")


def test_a_keeper_that_started_from_an_old_document_overtakes_the_newest_and_believes_no_old_ready() -> None:
    cluster = Cluster("a", "b")
    old = cluster.map
    cluster.keeper = ShardKeeper(old, now=cluster.now)
    cluster.report("b", ALL, epoch=old.epoch + 7)
    overtaking = cluster.decide()
    assert overtaking is not None
    assert overtaking.epoch == old.epoch + 8
    assert not overtaking.ready_of("a").any()
    assert overtaking.ready_of("b").all()
    cluster.report("a", ALL, epoch=old.epoch + 7)
    assert cluster.decide() is None
    assert cluster.settle().ready_of("a").all()


@dataclass
class Process:
    """A shard process as it is, whatever the keeper thinks of it."""

    info: ShardInfo
    incarnation: str
    reachable: bool = True
    seen: ShardMap | None = None
    held: Bool = field(default_factory=NONE.copy)

    def read(self, document: ShardMap) -> None:
        """Keep what the document lists, drop the rest; an unlisted process follows nothing."""
        if self.seen is not None and document.epoch <= self.seen.epoch:
            return
        self.seen = document
        if may_serve(document, self.info.name, self.incarnation):
            self.held &= document.wanted_of(self.info.name) | document.ready_of(self.info.name)
        else:
            self.held = NONE.copy()

    def load(self, chosen: Bool) -> None:
        """Load some of what is wanted."""
        if self.seen is not None and may_serve(self.seen, self.info.name, self.incarnation):
            self.held |= chosen & self.seen.wanted_of(self.info.name)


NAMES = ("a", "b", "c", "d", "e")
SETTLED = Cluster("a", "b", "c").map


class World:
    """A keeper among processes that start, die, are cut off, read a document late and load any part of
    what is wanted; reports arrive late, in any order and again; the operator drains and removes; the
    controller itself restarts. Every document must be true, and none may give up a last replica.

    Each event takes a shard's name and a number to choose with.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.started = 0
        self.keeper = ShardKeeper(SETTLED, now=0.0)
        self.processes = {
            shard.name: Process(
                shard.info, shard.incarnation, seen=SETTLED, held=SETTLED.ready_of(shard.name)
            )
            for shard in SETTLED.shards
        }
        self.reports: list[tuple[str, str, int, Bool]] = []
        self.documents = [SETTLED]
        self.excused: dict[str, Bool] = {}  # what others than the keeper took, since the last document
        self.last_lost: dict[str, float] = {}

    def start(self, name: str, number: int) -> None:
        if name not in self.processes:
            self.started += 1
            info = ShardInfo(name, f"node-{number % 4}", (1.0, 3.0)[number % 2])
            self.processes[name] = Process(info, f"process {self.started}")
            self.excused[name] = ALL
        self.join(name)

    def join(self, name: str) -> None:
        process = self.processes[name]
        process.reachable = True
        self.keeper.joined(process.info, f"{name}:1", process.incarnation)

    def die(self, name: str, number: int) -> None:
        self.processes.pop(name, None)
        self.lose(name)

    def cut_off(self, name: str, number: int) -> None:
        if name in self.processes:
            self.processes[name].reachable = False
            self.lose(name)
            if number % 2:
                self.join(name)

    def lose(self, name: str) -> None:
        self.last_lost[name] = self.now
        self.excused[name] = ALL
        self.keeper.lost(name, now=self.now)

    def read(self, name: str, number: int) -> None:
        if name in self.processes:
            self.processes[name].read(self.documents[-3:][number % len(self.documents[-3:])])

    def load(self, name: str, number: int) -> None:
        if name in self.processes:
            chosen = ALL if number % 2 else np.random.default_rng(number).random(SLOTS) < 0.5
            self.processes[name].load(chosen)

    def report(self, name: str, number: int) -> None:
        process = self.processes.get(name)
        if process is not None and process.seen is not None:
            self.reports.append((name, process.incarnation, process.seen.epoch, process.held.copy()))

    def deliver(self, name: str, number: int) -> None:
        sent = [report for report in self.reports if report[0] == name]
        if sent:
            report = sent[number % len(sent)]
            self.excused[name] = self.excused.get(name, NONE) | ~report[3]
            self.keeper.reported(*report)

    def work(self, name: str, number: int) -> None:
        """All that there is to do, so that slots do get ready; the report may arrive again."""
        process = self.processes.get(name)
        if process is not None:
            process.read(self.keeper.map)
            process.load(ALL)
            self.report(name, number)
            self.keeper.reported(*self.reports[-1])

    def drain(self, name: str, number: int) -> None:
        if self.keeper.map.shard(name) is not None:
            with suppress(NotFound):  # removed since the last document
                (self.keeper.draining if number % 2 else self.keeper.staying)(name)

    def waver(self, name: str, number: int) -> None:
        """The operator drains a shard while all are at work, and takes it back."""
        self.drain(name, 1)
        self.decide()
        for other in NAMES:
            self.work(other, number)
        self.decide()
        self.read(name, len(self.documents[-3:]) - 1)
        self.drain(name, 0)
        self.decide()

    def remove_drained(self, name: str, number: int) -> None:
        """Excused of nothing: a drained shard may always go."""
        for drained in NAMES:
            if self.keeper.is_drained(drained):
                self.keeper.removed(drained)
                self.processes.pop(drained, None)

    def remove(self, name: str, number: int) -> None:
        self.keeper.removed(name)
        self.processes.pop(name, None)
        self.excused[name] = ALL

    def wait(self, name: str, number: int) -> None:
        self.now += (GRACE_S / 4, GRACE_S)[number % 2]

    def restart_controller(self, name: str, number: int) -> None:
        """What happened since the last document is forgotten; whoever runs the keeper looks again."""
        last = self.keeper.map
        self.keeper = ShardKeeper(ShardMap.from_json(last.to_json()), now=self.now)
        for member in {shard.name for shard in last.shards} | set(self.processes):
            process = self.processes.get(member)
            if process is not None and process.reachable:
                self.join(member)
            else:
                self.lose(member)

    def decide(self) -> None:
        before = self.keeper.map
        after = self.keeper.decide(now=self.now)
        if after is None:
            assert self.keeper.map is before
        else:
            assert after.epoch > before.epoch
            self.documents.append(after)
            self.check_members(after)
            self.check_ready(before, after)
        self.excused = {}

    def check_members(self, after: ShardMap) -> None:
        wanted = {name for names in after.wanted for name in names}
        eligible = []
        for shard in after.shards:
            if shard.draining:
                assert shard.name not in wanted
            elif shard.incarnation or shard.name in wanted:
                eligible.append(shard.info)
            if not shard.incarnation and shard.name in wanted:
                assert self.now - self.last_lost[shard.name] < GRACE_S
        assert after.wanted == place(eligible, 2)

    def check_ready(self, before: ShardMap, after: ShardMap) -> None:
        kept = NONE.copy()
        for name, mask in slots_by_shard(before.ready).items():
            kept |= mask & ~self.excused.get(name, NONE)
        ready = NONE.copy()
        for name, mask in slots_by_shard(after.ready).items():
            ready |= mask
            process = self.processes[name]
            shard = after.shard(name)
            assert shard is not None
            assert process.incarnation == shard.incarnation
            assert not (mask & ~process.held).any(), "listed as ready for what it does not hold"
        assert not (kept & ~ready).any(), "a decision took the last ready replica"

    def end(self) -> None:
        """Left in peace, what is wanted becomes ready and all else is given up."""
        self.now += 10 * GRACE_S
        for _ in range(4):
            self.decide()
            for name, process in self.processes.items():
                if process.reachable:
                    self.work(name, 0)
        last = self.keeper.map
        assert self.keeper.decide(now=self.now + 1000) is None
        for wanted, ready in zip(last.wanted, last.ready, strict=True):
            assert ready == wanted or not wanted
        assert ShardMap.from_json(last.to_json()) == last


EVENTS = (
    *("start", "work", "work", "deliver", "drain") * 3,
    *("read", "load", "report", "remove_drained", "waver") * 2,
    *("die", "cut_off", "remove", "wait", "restart_controller"),
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(EVENTS), st.sampled_from(NAMES), st.integers(0, 63), st.booleans()),
        min_size=15,
        max_size=40,
    )
)
def test_no_sequence_of_events_makes_a_document_false_or_loses_a_slot_to_a_decision(
    events: list[tuple[str, str, int, bool]],
) -> None:
    world = World()
    for event, name, number, decides in events:
        getattr(world, event)(name, number)
        if decides:
            world.decide()
    world.end()
