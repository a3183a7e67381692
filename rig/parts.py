"""A session in parts: what the earlier ones left, and what they come to together with the one that goes on.

Each START of a session that is opened anew or again begins a part, counted from 1. Before the next one begins, the
files of the part before are kept in the session's folder as `parts/N`; those of the folder itself are of the whole
session, as far as the parts have left what is needed for that. Trips come from the journal, which has those of parts
whose console died, too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from control.plan.program import MachineProgram
from facility.errors import ConfigError
from facility.timebase import NS_PER_S
from journal import read
from journal.store import Journal
from rig.deliver import EVENTS_FILE, RECORD_FILE, SAMPLES_FILE, SPOTS_FILE, SUMMARY_FILE
from rig.home import PARTS
from rig.result import layer_s
from rig.truth_file import SpotTruth
from rig.truth_log import TRUTH_LOG_FILE, read_truth_log

KEPT = (SPOTS_FILE, SAMPLES_FILE, EVENTS_FILE, RECORD_FILE, TRUTH_LOG_FILE, SUMMARY_FILE)
_SAME_NS = NS_PER_S
"""Farthest apart that control's own and the journal's time of one trip may be, facility time."""


@dataclass(frozen=True)
class Earlier:
    """What the earlier parts of a session left."""

    folder: Path
    """Of the session."""
    parts: int
    """How many were started."""
    interlocks: tuple[Mapping[str, Any], ...] = ()
    """As in a summary, each with the number of its part."""
    verified: frozenset[int] = frozenset()
    """Layers that the journal has as verified."""
    begun: frozenset[int] = frozenset()
    """Layers that were armed and are not verified."""

    def folder_of(self, part: int) -> Path:
        """Where the files of a part are kept."""
        return self.folder / PARTS / str(part)

    @property
    def said(self) -> Mapping[str, Any] | None:
        """The summary of the part before; None if its console left none."""
        found = _summary(self.folder_of(self.parts) / SUMMARY_FILE)
        return found if found is not None and found.get("part", 1) == self.parts else None

    def keep(self) -> None:
        """Keep the files of the part before under its number; what is kept already stays as it is."""
        there = self.folder_of(self.parts)
        for name in KEPT if self.parts else ():
            if (self.folder / name).exists() and not (there / name).exists():
                there.mkdir(parents=True, exist_ok=True, mode=0o700)
                shutil.copy2(self.folder / name, there / name)

    def truth(self, program: MachineProgram, session: str) -> SpotTruth:
        """What all earlier parts gave by truth; ConfigError where that is not known."""
        if not self.parts:
            return {}
        said = self.said
        if said is None or said.get("truth") is None:
            raise ConfigError("parts.truth", f"part {self.parts} left no truth of all until its end", session)
        log = read_truth_log(self.folder_of(self.parts) / TRUTH_LOG_FILE)
        if (log.metadata["session"], log.metadata["plan_hash"]) != (session, program.plan_hash):
            raise ConfigError("parts.truth", f"the truth of part {self.parts} is of another plan", session)
        found = {}
        for index, layer in enumerate(program.layers):
            mine = log.columns["layer"] == index
            ions, x, y = (log.columns[name][mine] for name in ("ions", "x_true_mm", "y_true_mm"))
            zeros = np.zeros_like(ions)
            found[layer.token] = np.column_stack([ions, *(np.nan_to_num(ions * at) for at in (x, y)), zeros, zeros])
        return found

    def session_s(self, facility_s: float) -> float | None:
        """Facility time of all parts, s, of which the last took `facility_s`; None if one has left no summary."""
        if not self.parts:
            return facility_s
        before = None if self.said is None else self.said.get("session_facility_s", self.said["facility_s"])
        return None if before is None else float(before) + facility_s

    def joined(self, summary: Mapping[str, Any], part: int) -> dict[str, Any]:
        """Control's record of the last part with the trips of the earlier ones, and the time of each layer."""
        trips = [*self.interlocks, *({**one, "part": part} for one in summary["interlocks"])]
        layers = [{**layer, **self._time(layer, summary)} for layer in summary["layers"]]
        return {**summary, "interlocks": trips, "layers": layers}

    def _time(self, layer: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
        """Dates of an earlier part's layer, and its time in all parts; None where it is not known, with the reason."""
        index = layer["index"]
        if index in self.verified:
            for record in self._records():
                for one in record["layers"]:
                    if one["index"] == index and one["verified"]:
                        dates = {name: one[name] for name in ("t_armed_ns", "t_first_beam_ns", "t_done_ns")}
                        return {**dates, "time_s": layer_s(one), **_why(one)}
            return _unknown("it was delivered by a part that left no summary")
        now_s = (layer["t_done_ns"] - layer["t_armed_ns"]) / NS_PER_S
        if now_s < 0.0 or (now_s > 0.0 and layer["t_armed_ns"] < summary["t_opened_ns"]):
            return _unknown("it was begun and ended in different runs of the facility")
        if index not in self.begun:
            return {"time_s": now_s}
        said = self.said
        before = [] if said is None else [one for one in said["record"]["layers"] if one["index"] == index]
        if not before or layer_s(before[0]) is None:
            return _unknown(f"part {self.parts}, which began it, left no summary of it")
        return {"time_s": now_s + float(layer_s(before[0]) or 0.0)}

    def _records(self) -> Iterator[Mapping[str, Any]]:
        """Control's records in the summaries of earlier parts, the last one first."""
        for part in range(self.parts, 0, -1):
            found = _summary(self.folder_of(part) / SUMMARY_FILE)
            if found is not None:
                yield found["record"]


def read_earlier(journal: Journal, session: str, folder: Path) -> Earlier:
    """What the journal and the folder of a session have of its parts so far."""
    begins = [
        (row["seq"], row["what"]) for row in read.rows_of(journal, "operators", session) if row["what"] in read.BEGINS
    ]
    starts = [seq for seq, what in begins if what == read.BEGINS[0]]
    layers = read.layers(journal, session)
    verified = frozenset(one.layer for one in layers if one.status == read.VERIFIED)
    begun = frozenset(one.layer for one in layers) - verified
    told = _summary(folder / SUMMARY_FILE) or {}
    trips = _trips(read.rows_of(journal, "trips", session), starts, [seq for seq, _ in begins])
    return Earlier(
        folder, len(starts), tuple(_dated(one, told.get("interlocks", ())) for one in trips), verified, begun
    )


def _trips(rows: Sequence[Mapping[str, Any]], starts: Sequence[int], begins: Sequence[int]) -> list[dict[str, Any]]:
    """Trips of the journal as a summary has them. What comes twice between two words to deliver is one trip, seen first
    as the front end's pause."""
    found: list[dict[str, Any]] = []
    last = (-1, "")
    for row in rows:
        spell = (_before(begins, row), row["rule"])
        if spell == last:
            found.pop()
        last = spell
        found.append({"t_ns": row["t_ns"], "rule": row["rule"], "action": row["action"], "layer": row["layer"],
                      "detail": json.loads(row["detail"]), "part": _before(starts, row)})  # fmt: skip
    return found


def _before(places: Sequence[int], row: Mapping[str, Any]) -> int:
    return sum(place < row["seq"] for place in places)


def _dated(trip: dict[str, Any], told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """With the times that an earlier summary gives in facility time, where it has this trip."""
    for one in told:
        same = all(one[name] == trip[name] for name in ("rule", "action", "layer"))
        if same and abs(one["t_ns"] - trip["t_ns"]) <= _SAME_NS:
            return {**one, "part": trip["part"]}
    return trip


def _summary(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "record" in found else None


def _unknown(why: str) -> dict[str, Any]:
    return {"time_s": None, "time_why": why}


def _why(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {"time_why": layer["time_why"]} if "time_why" in layer else {}
