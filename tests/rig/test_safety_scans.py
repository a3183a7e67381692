"""What the safety controller keeps of its scans: all of them, in memory that does not grow, frozen at a trip."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from facility.errors import ConfigError, InternalError
from facility.events import EventLog
from interlocks.own_inputs import CONSOLE_INPUT, CONTROL_INPUT
from ioc_sim.rerun import BLOCK_ROWS, Block
from ioc_sim.rerun_tick import ROW_DTYPE
from rig.every_tick import every_tick
from rig.paced_safety_scans import PacedScans
from rig.post_mortem import AFTER_NS, BEFORE_NS, PostMortem
from rig.safety_scans import BAD, LATCHED, OUTPUTS, PRESENT, ScanFreezer, ScanRing
from rig.safety_scans_file import SCHEMA, held, read_scans, story
from rig.safety_scans_file import every_tick as instants
from tests.interlocks.support import MS, Safety

ABOUT = {"facility": "wuwei"}


class Observed(Safety):
    """A safety controller whose scans and signs of life are noted, and its event log."""

    def __init__(self, scans: int = 2000) -> None:
        super().__init__()
        self.ring = ScanRing(self.controller, scans)
        self.freezer = ScanFreezer(self.ring, self.controller)
        self.events = EventLog("run", self)
        self.seen: list[dict[str, Any]] = []

    def advance(self) -> None:
        super().advance()
        self.ring.heard()

    def scan(self):
        command = super().scan()
        self.ring.note(self.t_ns, self.t_ns, command)
        views = {view.rule.id: view for view in self.controller.snapshot().rules if view.rule.tier != "H"}
        self.seen.append({"t_ns": self.t_ns, "command": command, "views": views,
                          "console": self.controller._console.age_ns(self.t_ns) / MS})  # fmt: skip
        for event in self.controller.take_events():
            self.freezer.trip(self.events.emit("safety", event.kind, event.data, t_ns=event.t_ns))
        return command


def test_each_scan_is_kept_as_it_was_and_no_more_of_them_than_there_is_room() -> None:
    it = Observed(scans=16)
    it.release()
    it.run(20)
    it.run(3, ic1__hv_rel=0.9)
    assert it.ring.count == len(it.seen)
    kept = it.ring.between(0, it.t_ns)
    assert kept.t_ns.tolist() == [seen["t_ns"] for seen in it.seen[-16:]]
    for k, seen in enumerate(it.seen[-16:]):
        assert kept.outputs[k][: len(seen["command"])].tolist() == [int(value) for value in seen["command"]]
        for rule, rule_id in enumerate(it.ring.rule_ids):
            view = seen["views"][rule_id]
            assert np.array_equal(kept.values[k, rule], [view.value, view.limit], equal_nan=True), rule_id
            shown = kept.states[k, rule] & (PRESENT | LATCHED)
            assert shown == PRESENT * view.present + LATCHED * view.latched, rule_id
    voltage = it.ring.rule_ids.index("chamber-voltage-ic1")
    assert kept.states[-4:, voltage].tolist() == [0, *[BAD | PRESENT | LATCHED] * 3]
    inside = it.ring.between(it.t_ns - 5 * MS - 1, it.t_ns - 2 * MS)
    assert inside.t_ns.tolist() == [it.t_ns - k * MS for k in (6, 5, 4, 3, 2)], "the one before the window, too"


def written(it: Observed, folder: Path) -> PostMortem:
    """What the safety controller's process does with a window that has passed."""
    made: list[PostMortem] = []
    done = threading.Event()
    writer = PacedScans(folder, ABOUT, it.rules, lambda file: (made.append(file), done.set()))
    writer.start()
    writer.write(it.freezer.cut(it.t_ns))
    writer.stop()
    assert done.is_set()
    return made[0]


def test_a_trip_freezes_a_second_and_its_file_is_tied_to_the_event(tmp_path: Path) -> None:
    it = Observed()
    it.release()
    it.run(1200)
    it.vouches = None
    it.run(300)
    it.run(1, door__a_closed=0.0)
    (trip,) = [event for event in it.events.events if event.kind == "interlock.trip"]
    assert it.freezer.cut(it.t_ns) is None, "not yet"
    it.run(AFTER_NS // MS + 7)
    made = written(it, tmp_path)
    found = read_scans(tmp_path / "post-mortem" / made.name, made.event["sha256"])
    about = found.about
    assert (about["schema"], about["clock"], about["samples"]) == (SCHEMA, "nominal", 100_000)
    assert (made.cause, about["event"]["seq"]) == (trip, trip.seq)
    assert about["definitions"]["door"]["id"] == "door"
    assert (about["from_ns"], about["to_ns"]) == (trip.t_ns - BEFORE_NS, trip.t_ns + AFTER_NS)
    t_ns = found.column("t_ns")
    assert t_ns.tolist() == list(range(about["from_ns"], about["to_ns"] + 1, MS)), "each scan in the window"
    assert about["longest_gap_ns"] == MS
    console = {seen["t_ns"]: seen["console"] for seen in it.seen}
    assert found.column(CONSOLE_INPUT).tolist() == [console[t] for t in t_ns.tolist()]
    ticks = instants(found)
    assert (len(ticks), ticks[0], ticks[-1]) == (100_000, about["from_ns"] + 10_000, about["to_ns"])
    permit, silence = held(found, "permit", ticks), held(found, CONSOLE_INPUT, ticks)
    assert np.array_equal(permit, (ticks < trip.t_ns).astype(float)), "held from scan to scan"
    assert np.array_equal(silence[99::100], found.column(CONSOLE_INPUT)[1:]), "an age grows in between"
    assert silence.max() == pytest.approx(500.0, abs=0.02)
    assert held(found, CONTROL_INPUT, ticks[-1:])[0] > 300.0, "control has fallen silent"
    assert np.isnan(held(found, "permit", np.array([about["from_ns"] - 2 * MS]))).all()
    told = story(found)
    assert told["permit"]["changes"] == [[trip.t_ns, 0.0]]
    assert (told["permit"]["at_trip"], told["permit"]["most"]) == (0.0, 1.0)
    assert set(told) >= {*OUTPUTS, CONSOLE_INPUT, "t.plan_ok", "mode.code"}
    assert all(found.table.schema.field(name).metadata[b"unit"] for name in found.table.schema.names)
    other = tmp_path / "other.parquet"
    pq.write_table(found.table.replace_schema_metadata({"schema": "ionctl.post-mortem/1"}), other)
    with pytest.raises(ConfigError, match=r"give a ionctl\.safety-scans/1 file"):
        read_scans(other)


def test_what_is_open_at_the_end_is_kept_and_what_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    it = Observed()
    it.release()
    it.run(5, door__a_closed=0.0)
    made: list[PostMortem] = []
    blocked = PacedScans(tmp_path / "away" / "away", ABOUT, it.rules, made.append)
    frozen = it.freezer.cut()
    assert frozen is not None
    assert it.freezer.cut() is None
    for writer in (blocked, PacedScans(tmp_path, ABOUT, it.rules, made.append)):
        writer.start()
        writer.write(frozen)
        writer.write(None)
        writer.stop()
    (file,) = made
    assert file.event["rules"] == ["door"]


# --- the plant's steps, 10 us apart ---------------------------------------------------------------------------------
def block(*steps: tuple[int, int, float]) -> Block:
    """Steps as (end in us, ions, a signal)."""
    rows = np.zeros(len(steps), ROW_DTYPE)
    rows["t_ns"] = [1000 * end_us for end_us, _, _ in steps]
    rows["truth_ions"] = [ions for _, ions, _ in steps]
    return Block(rows, np.array([[value] for _, _, value in steps]))


def run(before: Block, *blocks: Block) -> Any:
    return SimpleNamespace(before=before, blocks=lambda: iter(blocks))


def test_a_step_is_held_until_the_next_one_and_its_ions_count_once() -> None:
    it = run(block((-500, 9, 1.0)), block((500, 3, 2.0), (510, 4, 3.0)), block((1510, 5, 4.0)))
    made = list(every_tick(it, 0, 2_000_000))
    t_us = np.concatenate([one.rows["t_ns"] for one in made]) // 1000
    ions = np.concatenate([one.rows["truth_ions"] for one in made])
    signal = np.concatenate([one.signals[:, 0] for one in made])
    assert t_us.tolist() == list(range(10, 2001, 10))
    assert [(int(t), int(n)) for t, n in zip(t_us, ions, strict=True) if n] == [(500, 3), (510, 4), (1510, 5)]
    for t, value in zip(t_us.tolist(), signal.tolist(), strict=True):
        assert value == (1.0 if t < 500 else 2.0 if t < 510 else 3.0 if t < 1510 else 4.0)


def test_samples_begin_with_the_past_and_come_in_pieces() -> None:
    long = 10 * (BLOCK_ROWS + 7)
    made = list(every_tick(run(block((100, 0, 1.0)), block((100 + long, 0, 2.0))), 0, 1000 * (100 + long)))
    assert [len(one.rows) for one in made] == [BLOCK_ROWS, 7]
    assert made[0].rows["t_ns"][0] == 110_000
    assert not list(every_tick(run(block((100, 0, 1.0))), 200_000, 150_000))
    (tail,) = every_tick(run(block((100, 0, 1.0))), 0, 150_000)
    assert tail.rows["t_ns"].tolist() == [110_000, 120_000, 130_000, 140_000, 150_000]
    with pytest.raises(InternalError, match="steps of"):
        list(every_tick(run(block((100, 0, 1.0)), block((115, 0, 1.0))), 0, 115_000))


def test_a_trip_after_the_window_of_another_has_one_of_its_own() -> None:
    it = Observed()
    it.release()
    at_ns = it.t_ns
    freezer = ScanFreezer(it.ring, it.controller)
    for seq, after_ms in enumerate((0, 50, 81, 120)):
        event = it.events.emit("safety", "interlock.trip", {"id": f"r-{seq}"}, t_ns=at_ns + after_ms * MS)
        assert freezer.trip(event) is (seq == 0)
    assert freezer.cuts(at_ns + 50 * MS - 1) == []
    first, second = freezer.cuts(at_ns + 131 * MS)
    assert [event.data["id"] for event in first.events] == ["r-0", "r-1"]
    assert [event.data["id"] for event in second.events] == ["r-2", "r-3"]
    assert second.to_ns == at_ns + 131 * MS
    assert freezer.due_ns is None
