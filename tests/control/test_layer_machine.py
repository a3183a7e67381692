"""The layer machine against a table written by hand from the requirements, not exported from the code."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest

from control.layer_machine import (
    BEAM_POSSIBLE,
    DELIVERING,
    REQUESTS,
    TABLE,
    Effect,
    Event,
    State,
    matters,
    refused,
    step,
)
from facility.pv_catalogue import TCS_STATES

COLUMNS = {
    "SB": State.STANDBY, "LD": State.LOADED, "PR": State.PREPARED, "RD": State.READY, "SE": State.SELECT_ENERGY,
    "LS": State.LOAD_SPOTS, "AR": State.ARMED, "IR": State.IRRADIATING, "HE": State.HELD, "VL": State.VERIFY_LAYER,
    "CO": State.COMPLETED, "IN": State.INTERRUPTED, "TE": State.TERMINATED,
}  # fmt: skip

# -- refuse, .. ignore, else the next state; effects follow below
MATRIX = """
                     SB LD PR RD SE LS AR IR HE VL CO IN TE
LOAD                 LD LD -- -- -- -- -- -- -- -- -- -- --
PREPARE              -- LD LD LD -- -- -- -- -- -- -- -- LD
START                -- -- -- SE -- -- -- -- -- -- -- -- --
RESUME               -- -- -- -- -- -- -- -- -- -- -- AR --
RESELECT             -- -- -- -- -- -- -- -- -- -- -- SE --
OPERATOR_PAUSE       -- -- -- -- IN IN IN IN IN IN -- -- --
OPERATOR_STOP        -- -- -- -- TE TE TE TE TE TE -- TE --
CLOSE                -- SB SB SB -- -- -- -- -- -- SB -- SB
CHECKS_PASSED        .. PR .. .. .. .. .. .. .. .. .. .. ..
NOTHING_LEFT         .. CO .. .. .. .. .. .. .. .. .. .. ..
PERMIT_GIVEN         .. .. RD .. .. .. .. .. .. .. .. .. ..
PERMIT_LOST          .. .. .. PR .. .. .. .. .. .. .. .. ..
ENERGY_SELECTED      .. .. .. .. LS .. .. .. .. .. .. .. ..
SPOTS_LOADED         .. .. .. .. .. AR .. .. .. .. .. .. ..
ARMED_OK             .. .. .. .. .. .. AR IR HE .. .. .. ..
BEAM_ON              SB TE TE TE TE TE IR .. IR TE CO IN TE
HOLD                 .. .. .. .. .. .. HE HE .. .. .. .. ..
LAYER_DONE           .. .. .. .. .. .. VL VL VL .. .. .. ..
VERIFIED_MORE        .. .. .. .. .. .. .. .. .. SE .. .. ..
VERIFIED_LAST        .. .. .. .. .. .. .. .. .. CO .. .. ..
VERIFY_FAILED        .. LD LD LD TE TE TE TE TE TE .. .. ..
PAUSED_BY_INTERLOCK  .. .. .. PR IN IN IN IN IN IN .. .. ..
ABORTED_BY_INTERLOCK .. .. .. LD TE TE TE TE TE TE .. TE ..
LINK_LOST            .. LD LD LD IN IN IN IN IN IN .. .. ..
TIMEOUT              .. LD LD LD IN IN IN IN IN IN .. .. ..
REFUSED              .. LD LD LD IN IN IN IN IN IN .. .. ..
"""

OFF = "STOP_BEAM ACCOUNT CLOSE_RECORD"
PAUSE = "PAUSE_BEAM PEEK CLOSE_RECORD"
EFFECTS = {
    ("SB", "LOAD"): "OPEN_SESSION",
    ("LD", "LOAD"): "CLOSE_SESSION OPEN_SESSION",
    ("LD", "PREPARE"): "CHECK_MACHINE",
    ("PR", "PREPARE"): "CHECK_MACHINE",
    ("RD", "PREPARE"): "CHECK_MACHINE",
    ("TE", "PREPARE"): "CHECK_MACHINE",
    ("RD", "START"): "SELECT_ENERGY",
    ("IN", "RESUME"): "RESUME_BEAM",
    ("IN", "RESELECT"): "SELECT_ENERGY",
    ("SE", "ENERGY_SELECTED"): "LOAD_SPOTS",
    ("LS", "SPOTS_LOADED"): "ARM",
    ("AR", "ARMED_OK"): "PREFETCH",
    ("IR", "ARMED_OK"): "PREFETCH",
    ("HE", "ARMED_OK"): "PREFETCH",
    ("VL", "VERIFIED_MORE"): "SELECT_ENERGY",
    ("VL", "VERIFIED_LAST"): "END_CYCLE CLOSE_RECORD",
    ("LD", "NOTHING_LEFT"): "CLOSE_RECORD",
    ("SB", "BEAM_ON"): "STOP_BEAM",
    ("CO", "BEAM_ON"): "STOP_BEAM",
    ("TE", "BEAM_ON"): "STOP_BEAM",
    ("IN", "BEAM_ON"): "PAUSE_BEAM",
    ("IN", "ABORTED_BY_INTERLOCK"): OFF,
    ("IN", "OPERATOR_STOP"): OFF,
    **{(s, e): "REPORT" for s in ("LD", "PR", "RD") for e in ("VERIFY_FAILED", "LINK_LOST", "TIMEOUT", "REFUSED")},
    **{(s, "CLOSE"): "CLOSE_SESSION" for s in ("LD", "PR", "RD", "CO", "TE")},
    **{(s, "BEAM_ON"): OFF for s in ("LD", "PR", "RD", "SE", "LS", "VL")},
    **{(s, "LAYER_DONE"): "READ_REGISTER" for s in ("AR", "IR", "HE")},
    **{
        (s, event): OFF
        for s in ("SE", "LS", "AR", "IR", "HE", "VL")
        for event in ("OPERATOR_STOP", "VERIFY_FAILED", "ABORTED_BY_INTERLOCK")
    },
    **{
        (s, event): PAUSE
        for s in ("SE", "LS", "AR", "IR", "HE", "VL")
        for event in ("OPERATOR_PAUSE", "PAUSED_BY_INTERLOCK", "TIMEOUT", "REFUSED")
    },
    **{(s, "LINK_LOST"): "PAUSE_BEAM CLOSE_RECORD" for s in ("SE", "LS", "AR", "IR", "HE", "VL")},
}


def cells() -> list[tuple[str, str, str]]:
    lines = MATRIX.strip("\n").splitlines()
    header = lines[0].split()
    rows = [line.split() for line in lines[1:]]
    return [(column, row[0], cell) for row in rows for column, cell in zip(header, row[1:], strict=True)]


def test_the_table_by_hand_has_every_cell() -> None:
    assert {(COLUMNS[column], Event(event)) for column, event, _ in cells()} == set(TABLE)
    assert len(cells()) == len(State) * len(Event)


@pytest.mark.parametrize(("column", "event", "cell"), cells())
def test_the_machine_answers_as_written(column: str, event: str, cell: str) -> None:
    state = COLUMNS[column]
    effects = tuple(Effect[name] for name in EFFECTS.get((column, event), "").split())
    if cell == "--":
        expected: tuple[State, tuple[Effect, ...]] = (state, (Effect.REFUSE,))
    elif cell == "..":
        expected = (state, ())
    else:
        expected = (COLUMNS[cell], effects)
    assert step(state, Event[event]) == expected
    assert refused(state, Event[event]) == (cell == "--")
    assert matters(state, Event[event]) == (expected != (state, ()))


def test_states_are_those_of_the_catalogue() -> None:
    assert [state.value for state in State] == list(TCS_STATES)
    assert [state.index for state in State] == list(range(len(TCS_STATES)))


def reachable(start: State, without: set[Event]) -> set[State]:
    """States that can be reached from `start`, `start` itself only if it is reached again, without some events."""
    seen: set[State] = set()
    todo = deque([start])
    while todo:
        state = todo.popleft()
        for event in set(Event) - without:
            after, _ = step(state, event)
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return seen


def test_after_termination_beam_needs_a_new_start() -> None:
    assert not BEAM_POSSIBLE & reachable(State.TERMINATED, {Event.START})
    assert not DELIVERING & reachable(State.TERMINATED, {Event.START})


def test_after_an_interruption_beam_needs_a_person() -> None:
    assert not DELIVERING & reachable(State.INTERRUPTED, {Event.START, Event.RESUME, Event.RESELECT})
    assert not DELIVERING & reachable(State.STANDBY, {Event.START})


def test_reports_alone_never_leave_a_resting_state_for_beam() -> None:
    for state in set(State) - DELIVERING:
        assert not BEAM_POSSIBLE & reachable(state, set(REQUESTS))


def test_beam_is_asked_for_only_on_the_way_into_armed() -> None:
    for (state, event), (after, effects) in TABLE.items():
        if {Effect.ARM, Effect.RESUME_BEAM} & set(effects):
            assert after is State.ARMED, (state, event)


def test_whatever_ends_delivery_takes_the_beam_away() -> None:
    for (state, event), (after, effects) in TABLE.items():
        if state in BEAM_POSSIBLE and after not in DELIVERING:
            assert effects[0] in (Effect.PAUSE_BEAM, Effect.STOP_BEAM), (state, event)


def test_the_documented_table_is_this_one() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "layer-machine.md"
    assert MATRIX.strip("\n") in page.read_text(encoding="utf-8")
