"""Post-mortem: what every signal did around a trip, frozen for whoever asks why.

The plant keeps a run log (`ioc_sim.rerun`).  A trip opens a window; when the window has passed, the past is cut out and
run again in a twin with everything written down.  Cutting is quick and happens with the plant standing still; running
again and writing take their time and happen elsewhere where time is real.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facility.config import Facility
from facility.constants import TICK_NS
from facility.events import Event
from facility.states import Action
from interlocks import fast
from interlocks.rules import RuleSet
from interlocks.snapshot import Mode
from ioc_sim.faults import F_HELD, FAULT_POINTS, FaultKind
from ioc_sim.plant import Plant
from ioc_sim.rerun import SNAPSHOT_NS, TWIN_TRACE, Cut, Rerun, RunLog, Snapshot
from rig.every_tick import every_tick
from rig.post_mortem_file import SCHEMA, Writer, all_blocks, sha256_of
from rig.run_dir import POST_MORTEM

BEFORE_NS = 950_000_000
AFTER_NS = 50_000_000
"""One second in all; every beam-off device has long finished by its end, escalation included."""
REACH_NS = 2 * SNAPSHOT_NS
"""How far the run log reaches back at least: a cut may come late, where the wall clock sets the pace."""
MAX_FILES = 200
"""Post-mortems of one run; later trips are told to have none."""
TRIPS = frozenset({"trip", "interlock.trip", "permit-lost"})
"""Kinds of events that open a window: of the rack, of the safety controller, of the rack's permit line."""


def about_run(facility: Facility, room: str, species: str, seed: int, mode: Mode | None) -> dict[str, Any]:
    """What every post-mortem says of its run; the plant's process does not know the mode."""
    return {
        "facility": facility.id,
        "facility_hash": facility.hash,
        "room": room,
        "species": species,
        "seed": seed,
        "mode": None if mode is None else mode.value,
    }


@dataclass(frozen=True)
class Frozen:
    """A stretch of the past that is still to be run again."""

    number: int
    events: tuple[Event, ...]
    from_ns: int
    to_ns: int
    cut: Cut


@dataclass(frozen=True)
class PostMortem:
    """A file, and what the event log says of it."""

    name: str
    data: bytes
    event: Mapping[str, Any]
    cause: Event


class Freezer:
    """Opens a window at a trip and cuts out the past when it has passed.

    Args:
        plant: gets a run log; before time runs.
    """

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        plant.log = RunLog(REACH_NS)
        self._events: list[Event] = []
        self._first_ns = 0
        self._number = 0

    def trip(self, event: Event) -> None:
        """Something has taken the beam permit; `event` is in the log already."""
        if not self._events:
            self._first_ns = min(event.t_ns, self._plant.t_ns)
        self._events.append(event)

    @property
    def due_ns(self) -> int | None:
        """When the window has passed, facility time; None if none is open."""
        return self._first_ns + AFTER_NS if self._events else None

    def cut(self) -> Frozen | None:
        """The past with the window in it; the plant must stand still.  None if MAX_FILES have been made."""
        events, self._events = tuple(self._events), []
        log = self._plant.log
        if not events or log is None or self._number >= MAX_FILES:
            return None
        from_ns = self._first_ns - BEFORE_NS
        self._number += 1
        return Frozen(self._number, events, from_ns, self._first_ns + AFTER_NS, log.cut(self._plant, from_ns))


class Writers:
    """Runs what was frozen again and makes the files.

    Args:
        make_twin: a plant like the one that tripped, with a truth ring of `trace_records`; called once.
        about: what every file says of the run, see `about_run`.
        rules: whose definitions go into the file where they tripped.
    """

    def __init__(self, make_twin: Callable[[int], Plant], about: Mapping[str, Any], rules: RuleSet) -> None:
        self._make_twin = make_twin
        self._rules = rules
        self._about = dict(about)
        self._twin: Plant | None = None

    def _ready(self) -> Plant:
        if self._twin is None:
            self._twin = self._make_twin(TWIN_TRACE)
        return self._twin

    def warm_up(self) -> None:
        """Make the twin and run it once: what has to be compiled is compiled now."""
        twin = self._ready()
        log = RunLog(REACH_NS)
        log.take(twin)
        all_blocks(Writer(), every_tick(Rerun(twin, log.cut(twin, 0), 0, 0), 0, 0))

    def write(self, frozen: Frozen) -> PostMortem:
        """Run again, and the file."""
        twin = self._ready()
        writer = Writer()
        rerun = Rerun(twin, frozen.cut, frozen.from_ns, frozen.to_ns)
        all_blocks(writer, every_tick(rerun, frozen.from_ns, min(frozen.to_ns, frozen.cut.end.now_ns)))
        cause = frozen.events[0]
        end = frozen.cut.end
        rules = tripped_rules(twin.rule_ids, end, frozen.from_ns, frozen.to_ns)
        t_decision_ns = min(
            [cause.t_ns, *(rule["t_decision_ns"] for rule in rules if rule["latched"] and rule["inside"])]
        )
        about = {
            **self._about,
            "schema": SCHEMA,
            "event": event_data(cause),
            "trips": [{"seq": event.seq, "t_ns": event.t_ns, "source": event.source, "kind": event.kind,
                       **_plain(event.data)} for event in frozen.events],
            "from_ns": frozen.from_ns,
            "to_ns": frozen.to_ns,
            "samples": writer.samples,
            "step_ns": TICK_NS,
            "rule_ids": list(twin.rule_ids),
            "rules": rules,
            "definitions": definitions(self._rules, [*(rule["id"] for rule in rules),
                                                     *(str(event.data.get("id", "")) for event in frozen.events)]),
            "faults": faults_in(end, frozen.to_ns),
            "t_decision_ns": t_decision_ns,
            "t_off_ns": writer.off.after(t_decision_ns),
            "identical": not rerun.differences,
            "differences": list(rerun.differences),
        }  # fmt: skip
        name = f"trip-{frozen.number:03d}-{cause.t_ns}.parquet"
        data = writer.close(about)
        said = {
            "file": name,
            "sha256": sha256_of(data),
            "samples": writer.samples,
            "from_ns": frozen.from_ns,
            "to_ns": frozen.to_ns,
            "t_decision_ns": t_decision_ns,
            "t_off_ns": about["t_off_ns"],
            "identical": about["identical"],
            "trips": [event.seq for event in frozen.events],
            "rules": [rule["id"] for rule in rules if rule["latched"]],
        }
        return PostMortem(name, data, said, cause)


def definitions(rules: RuleSet, ids: Iterable[str]) -> dict[str, Any]:
    """The rules as they stood, so that the file can be read when the configuration has moved on."""
    known = rules.by_id
    return {name: known[name].model_dump(mode="json") for name in ids if name in known}


def event_data(cause: Event) -> dict[str, Any]:
    """The event that a file is tied to."""
    return {"run": cause.run, "seq": cause.seq, "t_ns": cause.t_ns, "source": cause.source, "kind": cause.kind,
            "data": _plain(cause.data)}  # fmt: skip


def tripped_rules(ids: tuple[str, ...], end: Snapshot, from_ns: int, to_ns: int) -> list[dict[str, Any]]:
    """Fast rules that are latched or present at the end of the cut, in the order in which they were decided."""
    rows = end.arrays["rule_rows"]
    found = []
    for name, row in zip(ids, rows, strict=True):
        if not (row["latched"] or row["present"]):
            continue
        latched = bool(row["latched"])
        found.append({
            "id": name,
            "action": Action(int(row["action"])).name,
            "latched": latched,
            "present": bool(row["present"]),
            "value": _finite(row["bad_value" if latched else "value"]),
            "limit": _finite(row["bad_limit" if latched else "limit"]),
            "t_condition_ns": int(row["t_condition_ns"]),
            "t_decision_ns": int(row["t_decision_ns"]),
            "inside": from_ns <= int(row["t_decision_ns"]) <= to_ns,
        })  # fmt: skip
    return sorted(found, key=lambda rule: (not rule["latched"], rule["t_decision_ns"]))


def faults_in(end: Snapshot, to_ns: int) -> list[dict[str, Any]]:
    """Faults that were injected and have begun by the end of the window: what is known of the true cause."""
    found = []
    for point, row in zip(FAULT_POINTS, end.arrays["_faults"], strict=True):
        kind, value, at_ns, until_ns = row[:F_HELD]
        if int(kind) != FaultKind.NONE and at_ns <= to_ns:
            found.append({"device": point, "kind": FaultKind(int(kind)).name, "value": _finite(value),
                          "at_ns": int(at_ns), "until_ns": int(until_ns)})  # fmt: skip
    return found


def _finite(value: float) -> float | None:
    """For JSON; an open side of a limit shows as none."""
    return float(value) if math.isfinite(value) and abs(value) < fast.NO_LIMIT else None


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in data.items()}


def write_post_mortems(folder: Path, made: Iterable[PostMortem]) -> list[Path]:
    """Write the files of a run into `post-mortem` below the folder, in place of those of an earlier one."""
    below = folder / POST_MORTEM
    for old in (*below.glob("trip-*.parquet"), *below.glob("safety-*.parquet")):
        old.unlink()
    paths = []
    for post_mortem in made:
        below.mkdir(mode=0o700, exist_ok=True)
        path = below / post_mortem.name
        path.write_bytes(post_mortem.data)
        paths.append(path)
    return paths
