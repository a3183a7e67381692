"""The daily check of the monitors: one small field, three independent means, and which of them has drifted.

Both chambers and the backup counter see the same ions and share nothing else (tests/plant/test_monitors.py). At each
energy the two that agree best are the reference; the third is held against their mean. A chamber that has drifted by
1 % stands out by about as much, for the three agree within some 0.2 % where nothing is wrong. Beam and doses are those
of an ordinary delivery, in QA mode: no device is asked for anything that a treatment does not ask for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from control.plan.dicom_writer import write_dicom_plan
from control.plan.maker import make_monitor_plan
from facility.config import Facility
from facility.errors import ExitCode, InternalError
from facility.events import canonical_json
from rig.deliver import DeliveryRequest, deliver_plan, write_files
from rig.home import Home
from rig.result import DeliveryResult

SCHEMA = "ionctl.monitor-check/1"
CHECK_FILE = "monitor-check.json"
MONITORS = ("ic1", "ic2", "backup")
ACTION_REL = 0.005
"""A monitor that is farther off than this has drifted: half of what must be found, twice what good ones differ by."""


@dataclass(frozen=True)
class Reading:
    """Ions of one layer by each monitor, and how far each is from the mean of the two that agree best, relative."""

    energy_mev_u: float
    ions: tuple[float, float, float]
    odd: int
    """The one that is held against the other two."""
    odd_rel: float
    pair_rel: float
    """How far those two are apart."""


@dataclass(frozen=True)
class MonitorCheck:
    """What the three say. `drifted` is a name of `MONITORS`, or empty; `words` what follows from it."""

    readings: tuple[Reading, ...]
    mean_rel: tuple[float, float, float]
    """Mean over the energies of each monitor over the mean of the other two, less 1."""
    drifted: str
    drift_rel: float
    passed: bool
    words: str


@dataclass(frozen=True)
class CheckResult:
    """One daily check; `check` is None where the field did not complete."""

    delivery: DeliveryResult
    check: MonitorCheck | None

    @property
    def exit_code(self) -> ExitCode:
        """Of the command."""
        if self.check is None:
            return ExitCode.INTERRUPTED
        return ExitCode.OK if self.check.passed else ExitCode.VERIFICATION_FAILED

    def to_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "schema": SCHEMA, "session": self.delivery.summary["session"], "facility": self.delivery.facility,
            "room": self.delivery.room, "target": self.delivery.target, "status": self.delivery.summary["status"],
            "action_rel": ACTION_REL, "check": None if self.check is None else asdict(self.check),
        }  # fmt: skip


def read(energy_mev_u: float, ic1: float, ic2: float, backup: float) -> Reading:
    """One layer; ValueError for a monitor that counted nothing, or nothing that is a number."""
    ions = ic1, ic2, backup
    if not all(math.isfinite(one) and one > 0.0 for one in ions):
        raise ValueError(f"at {energy_mev_u:.1f} MeV/u the monitors say {ions}")
    apart = [abs(math.log(ions[(k + 1) % 3] / ions[(k + 2) % 3])) for k in range(3)]
    odd = apart.index(min(apart))
    return Reading(energy_mev_u, ions, odd, _over_others(ions, odd), math.expm1(apart[odd]))


def _over_others(ions: tuple[float, float, float], k: int) -> float:
    return 2.0 * ions[k] / (ions[(k + 1) % 3] + ions[(k + 2) % 3]) - 1.0


def judge(readings: Sequence[Reading]) -> MonitorCheck:
    """Which monitor has drifted, if any: at every energy, and by more than `ACTION_REL`."""
    if not readings:
        raise InternalError("monitors.nothing", "no layer was read", "daily check")
    count = len(readings)
    rel = [sum(_over_others(one.ions, k) for one in readings) / count for k in range(3)]
    mean = rel[0], rel[1], rel[2]
    bad = [one for one in readings if abs(one.odd_rel) > ACTION_REL]
    if not bad:
        return MonitorCheck(tuple(readings), mean, "", 0.0, True, "the three agree")
    if any(one.pair_rel > ACTION_REL for one in readings):
        words = "no two monitors agree: none of them can be believed"
        return MonitorCheck(tuple(readings), mean, "", 0.0, False, words)
    if len({one.odd for one in bad}) > 1 or len(bad) < count:
        where = ", ".join(f"{MONITORS[one.odd]} at {one.energy_mev_u:.0f} MeV/u by {one.odd_rel:+.2%}" for one in bad)
        return MonitorCheck(tuple(readings), mean, "", 0.0, False, f"calibration by energy does not hold: {where}")
    drift = sum(one.odd_rel for one in readings) / count
    name = MONITORS[readings[0].odd]
    return MonitorCheck(tuple(readings), mean, name, drift, False, f"{name} has drifted by {drift:+.2%}")


def run_check(
    facility: Facility, species: str, room: str, home: Home, target: str, seed: int | None, speed: float | None
) -> CheckResult:
    """Make the field, deliver it, judge it, and leave `monitor-check.json` in the session's folder."""
    plan = home.plans / f"monitors-{facility.id}-{species}.dcm"
    write_dicom_plan(make_monitor_plan(facility, species), plan)
    delivery = deliver_plan(DeliveryRequest(plan, facility, room, home, qa=True, seed=seed, speed=speed), target)
    found = CheckResult(delivery, _judged(delivery) if delivery.completed else None)
    folder = home.session_dir(str(delivery.summary["session"]))
    write_files(folder, {CHECK_FILE: canonical_json(found.to_data()) + b"\n"})
    return found


def _judged(delivery: DeliveryResult) -> MonitorCheck:
    readings = []
    for layer in delivery.summary["layers"]:
        backup = math.nan if layer["backup_ions"] is None else layer["backup_ions"]
        try:
            readings.append(read(layer["energy_mev_u"], layer["ic1_ions"], layer["ic2_ions"], backup))
        except ValueError as problem:
            return MonitorCheck((), (math.nan,) * 3, "", 0.0, False, str(problem))
    return judge(readings)
