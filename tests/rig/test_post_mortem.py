"""Every trip leaves a file: one second of everything, tied to its event, and the same as what happened."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from control.plan.maker import make_small_plan
from control.plan.program import compile_program
from facility.config import load_facility
from facility.errors import ConfigError
from facility.signals import SIGNALS
from interlocks.own_inputs import CONSOLE_INPUT, CONTROL_INPUT
from interlocks.snapshot import Mode
from ioc_sim.faults import Fault, FaultKind
from rig import post_mortem
from rig.deliver_virtual import deliver_in
from rig.post_mortem import AFTER_NS, BEFORE_NS, PostMortem, write_post_mortems
from rig.post_mortem_file import COLUMNS, beam_off_ns, read_recording, recording_of
from rig.safety_scans_file import every_tick, held, read_scans
from rig.virtual_world import World, WorldOptions
from tests.bring_up import up_ns

MS = 1_000_000
FACILITY = load_facility("wuwei")


@functools.cache
def program():
    return compile_program(make_small_plan(FACILITY, "carbon"), FACILITY, "1", qa=True)


@functools.cache
def tripped(device: str, kind: FaultKind, value: float, at_ns: int) -> World:
    options = WorldOptions(load_program=lambda *_: program(), allow_faults=True, mode=Mode.QA, post_mortem=True)
    world = World(FACILITY, "1", "carbon", 1, options)
    world.plant.inject(Fault(device, kind, value, at_ns=at_ns))
    deliver_in(world, program())
    return world


AT_NS = up_ns() + 2_297 * MS + 4_321
"""In the beam of the second layer."""


def beam_moved() -> World:
    return tripped("beam.x", FaultKind.OFFSET, 5.0, AT_NS)


def test_a_fast_trip_is_frozen(tmp_path: Path) -> None:
    world = beam_moved()
    (made,) = world.post_mortems
    (path,) = write_post_mortems(tmp_path, world.post_mortems)
    events = world.events.events
    (said,) = [event for event in events if event.kind == "post-mortem"]
    about = read_recording(path, str(said.data["sha256"])).about
    # the event names the file and its hash, the file names the event: each way
    cause = events[said.cause_seq]
    assert about["event"] == {"run": cause.run, "seq": cause.seq, "t_ns": cause.t_ns, "source": cause.source,
                              "kind": cause.kind, "data": dict(cause.data)}  # fmt: skip
    assert {events[seq].kind for seq in said.data["trips"]} == {"trip", "interlock.trip"}
    assert said.data["file"] == path.name == made.name
    assert about["identical"] is True
    assert about["differences"] == []
    (rule,) = [rule for rule in about["rules"] if rule["latched"] and rule["inside"]]
    assert rule["id"] == "position-x"
    assert AT_NS <= rule["t_condition_ns"] <= rule["t_decision_ns"] <= rule["t_condition_ns"] + 20_000
    assert about["faults"][0]["device"] == "beam.x"
    assert about["faults"][0]["at_ns"] == AT_NS
    assert rule["t_decision_ns"] < about["t_off_ns"] < rule["t_decision_ns"] + 300_000


def test_the_samples_are_those_of_the_run(tmp_path: Path) -> None:
    world = beam_moved()
    (path,) = write_post_mortems(tmp_path, world.post_mortems)
    found = read_recording(path)
    about, t_ns = found.about, found.column("t_ns")
    assert about["to_ns"] - about["from_ns"] == BEFORE_NS + AFTER_NS == 1_000_000_000
    assert about["from_ns"] < t_ns[0] <= about["from_ns"] + 10_000
    assert about["to_ns"] - 10_000 < t_ns[-1] <= about["to_ns"]
    assert set(np.diff(t_ns)) == {10_000}
    assert len(t_ns) == about["samples"] == 100_000
    ring = world.plant.trace
    ticks = ring[np.arange(max(0, world.plant.truth_count - len(ring)), world.plant.truth_count) & (len(ring) - 1)]
    ticks = ticks[(ticks["t_ns"] > about["from_ns"]) & (ticks["t_ns"] <= about["to_ns"])]
    places = np.searchsorted(t_ns, ticks["t_ns"])
    for column, field in (("t_ns", "t_ns"), ("truth_ions", "ions"), ("truth_x_um", "x_um"), ("truth_y_um", "y_um")):
        assert np.array_equal(found.column(column)[places], ticks[field])
    error_mm = found.column("strip.err_x_mm")[t_ns == about["rules"][0]["t_decision_ns"]]
    assert error_mm == pytest.approx(about["rules"][0]["value"])
    schema = pq.read_schema(path)
    assert schema.names == [*(name for name, *_ in COLUMNS), *(signal.name for signal in SIGNALS)]
    assert all(schema.field(name).metadata[b"unit"] for name in schema.names)


def test_a_trip_of_the_safety_controller_is_frozen_too() -> None:
    at_ns = AT_NS + 5 * MS
    world = tripped("door.a", FaultKind.SET, 0.0, at_ns)
    (made,) = world.post_mortems
    assert made.cause.data["id"] == "door"
    assert made.event["identical"] is True
    assert made.event["t_off_ns"] - at_ns < 5 * MS


def test_the_safety_controller_keeps_what_it_alone_knows(tmp_path: Path) -> None:
    world = beam_moved()
    _, path = write_post_mortems(tmp_path, (*world.post_mortems, *world.safety_scans))
    events = world.events.events
    (said,) = [event for event in events if event.kind == "post-mortem.safety"]
    found = read_scans(path, str(said.data["sha256"]))
    cause = events[said.cause_seq]
    assert (cause.kind, found.about["event"]["seq"]) == ("interlock.trip", cause.seq)
    ticks = every_tick(found)
    assert len(ticks) == found.about["samples"] == 100_000
    assert np.array_equal(held(found, "permit", ticks), ticks < cause.t_ns)
    assert np.array_equal(held(found, "fast_latched", ticks), np.where(ticks < cause.t_ns, 0, 1 << 9))
    for age in (CONSOLE_INPUT, CONTROL_INPUT):  # signs of life each 1.9 s and 1.5 s, and scans when there is news
        grown = np.diff(held(found, age, ticks))
        assert np.count_nonzero(grown < 0.0) <= 1
        assert grown[grown > 0.0] == pytest.approx(0.01)
    assert held(found, "t.plan_ok", ticks).all()


def test_where_no_beam_is_possible_there_are_as_many_samples() -> None:
    world = tripped("door.a", FaultKind.SET, 0.0, up_ns() + 500 * MS)
    (made,) = world.post_mortems
    found = recording_of(made.data)
    assert made.event["identical"] is True
    t_ns, door = found.column("t_ns"), found.column("door.a_closed")
    assert np.array_equal(t_ns, np.arange(made.event["from_ns"], made.event["to_ns"], 10_000) + 10_000)
    assert not found.column("truth_ions").any()
    opened_ns = t_ns[np.flatnonzero(door[1:] < door[:-1])[-1] + 1]
    assert 0 <= opened_ns - (up_ns() + 500 * MS) <= 2 * MS


def test_the_same_seed_gives_the_same_file() -> None:
    again = tripped.__wrapped__("beam.x", FaultKind.OFFSET, 5.0, AT_NS)
    assert again.safety_scans[0].data == beam_moved().safety_scans[0].data
    assert again.post_mortems[0].data == beam_moved().post_mortems[0].data
    assert again.events.to_bytes() == beam_moved().events.to_bytes()


def test_a_file_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    world = beam_moved()
    (path,) = write_post_mortems(tmp_path, world.post_mortems)
    sha256 = str(world.post_mortems[0].event["sha256"])
    raw = bytearray(path.read_bytes())
    raw[1000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match="SHA-256"):
        read_recording(path, sha256)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigError, match="not a parquet file"):
        read_recording(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_recording(tmp_path / "away.parquet")
    pq.write_table(pq.read_table(write_post_mortems(tmp_path, world.post_mortems)[0]).replace_schema_metadata({}), path)
    with pytest.raises(ConfigError, match="schema is ''"):
        read_recording(path)


def test_files_of_an_earlier_run_go_and_there_are_never_too_many(tmp_path: Path, monkeypatch) -> None:
    (made,) = beam_moved().post_mortems
    write_post_mortems(tmp_path, [replace(made, name="trip-009-1.parquet")])
    assert [path.name for path in write_post_mortems(tmp_path, [made])] == [made.name]
    assert len(list((tmp_path / "post-mortem").iterdir())) == 1
    assert isinstance(made, PostMortem)
    monkeypatch.setattr(post_mortem, "MAX_FILES", 0)
    world = tripped.__wrapped__("beam.x", FaultKind.OFFSET, 5.0, AT_NS)
    assert world.post_mortems == ()
    assert "post-mortem" not in {json.loads(line)["kind"] for line in world.events.to_bytes().splitlines()}


def test_beam_off_by_hand() -> None:
    t_ns = np.arange(1, 1001) * 10_000
    ions = np.where(t_ns <= 5_000_000, 100.0, 0.0)
    assert beam_off_ns(t_ns, ions, 5_000_000) == 5_040_000, "the last mean over 50 us with beam in it"
    assert beam_off_ns(t_ns, ions * 0.0, 5_000_000) is None
    assert beam_off_ns(t_ns, np.full(1000, 100.0), 5_000_000) is None
