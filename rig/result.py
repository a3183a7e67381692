"""What a delivery came to: control's record, truth beside it, and where the files are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facility.errors import ExitCode
from facility.timebase import NS_PER_S
from rig.truth_check import LayerTruth, TruthReport

RESULT_SCHEMA = "ionctl.result/1"
OF_THIS_PART = ("facility_s", "wall_s", "reason", "pacing", "seed", "speed")
"""Keys that tell of the part that was delivered last; all others are of the whole session."""


@dataclass(frozen=True)
class DeliveryResult:
    """The end of one delivery. `summary` is control's record in plain data (`control.session.SessionSummary`)."""

    target: str
    facility: str
    room: str
    seed: int
    speed: float | None
    summary: Mapping[str, Any]
    truth: TruthReport | None
    wall_s: float
    files: Mapping[str, str] = field(default_factory=dict)
    pacing: Mapping[str, Any] | None = None
    """How the plant has kept its pace since it was started; None in virtual time."""
    part: int = 1
    """Which part of the session this was; see `rig.parts`."""
    session_facility_s: float | None = None
    """Facility time of all parts together; None where an earlier one has left no summary."""
    truth_words: str = ""
    """Why there is no truth of the whole session."""
    not_fast: Sequence[Mapping[str, Any]] = ()
    """Rules that read a device in the loop, with their bounds."""
    notes: Sequence[str] = ()
    """What the check of the plan tells the operator."""

    @property
    def completed(self) -> bool:
        """Every layer delivered and verified."""
        return bool(self.summary["status"] == "completed")

    @property
    def exit_code(self) -> ExitCode:
        """What `ionctl deliver` returns."""
        if not self.completed:
            return ExitCode.INTERRUPTED
        if self.truth is not None and not self.truth.within_tolerance:
            return ExitCode.VERIFICATION_FAILED
        return ExitCode.OK

    def to_data(self) -> dict[str, Any]:
        """The object that `ionctl deliver --json` prints."""
        summary, truth = self.summary, self.truth
        return {
            "schema": RESULT_SCHEMA,
            "session": summary["session"],
            "status": summary["status"],
            "reason": summary["reason"],
            "spots": summary["spots_done"],
            "layers": sum(1 for layer in summary["layers"] if layer["verified"]),
            "prescribed": summary["prescribed_ions"],
            "delivered": summary["ic1_ions"] if truth is None else truth.truth_ions,
            "delivered_ic1": summary["ic1_ions"],
            "delivered_ic2": summary["ic2_ions"],
            "worst_spot_error_pct": self.worst_spot_error_pct,
            "p99_position_error_mm": None if truth is None else truth.p99_position_error_mm,
            "beam_on_s": summary["beam_on_s"],
            "facility_s": summary["facility_s"],
            "wall_s": self.wall_s,
            "part": self.part,
            "session_facility_s": self.session_facility_s,
            "of_this_part": list(OF_THIS_PART),
            "interlocks": list(summary["interlocks"]),
            "target": self.target,
            "facility": self.facility,
            "room": self.room,
            "qa": summary["qa"],
            "seed": self.seed,
            "speed": self.speed,
            "plan_hash": summary["plan_hash"],
            "truth_words": self.truth_words,
            "truth": None if truth is None else {k: v for k, v in truth.to_data().items() if k != "layers"},
            "pacing": None if self.pacing is None else dict(self.pacing),
            "not_fast": [dict(one) for one in self.not_fast],
            "notes": list(self.notes),
            "files": dict(self.files),
        }

    @property
    def worst_spot_error_pct(self) -> float:
        """Of the layer's heaviest spot; by truth where there is one, else by the first chamber."""
        if self.truth is not None:
            return self.truth.worst_spot_error_pct
        return max((abs(100.0 * x["worst_spot_error_ions"] / x["heaviest_spot_ions"]) for x in self.summary["layers"]),
                   default=0.0)  # fmt: skip

    def rows(self) -> list[tuple[Mapping[str, Any], LayerTruth | None]]:
        """Control's record of each layer with the truth beside it."""
        by_token = {} if self.truth is None else {layer.token: layer for layer in self.truth.layers}
        return [(layer, by_token.get(layer["token"])) for layer in self.summary["layers"]]

    def write(self, path: Path) -> None:
        """The whole of it as JSON, layers by control and by truth included."""
        data = self.to_data()
        data["record"] = dict(self.summary)
        data["truth_layers"] = None if self.truth is None else self.truth.to_data()["layers"]
        path.write_text(_lines(data), encoding="utf-8")


def layer_s(layer: Mapping[str, Any]) -> float | None:
    """Facility time of a layer of a summary, from arming to its end in each part, s; None where it is not known."""
    if "time_s" in layer:
        return None if layer["time_s"] is None else float(layer["time_s"])
    return float(layer["t_done_ns"] - layer["t_armed_ns"]) / NS_PER_S


def _lines(data: Mapping[str, Any]) -> str:
    """JSON with a key, or a row of a table, on each line: as easy to read as indented, a tenth of the cost."""
    rows = [f" {json.dumps(key)}: {_value(data[key])}" for key in sorted(data)]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def _value(value: object) -> str:
    if isinstance(value, list | tuple) and value:
        return "[\n  " + ",\n  ".join(_text(row) for row in value) + "\n ]"
    return _text(value)


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in a summary")
