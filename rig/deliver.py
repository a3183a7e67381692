"""Deliver one plan to one target and say what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from control.plan.load import load_plan
from control.plan.program import MachineProgram, compile_program
from facility.config import Facility
from facility.errors import InternalError, PlanError, UsageError, no_such
from rig.external.hazard import require_hazard_bounds
from rig.external.watch import require_target
from rig.home import Home
from rig.result import DeliveryResult
from rig.truth_log import TRUTH_LOG_FILE

if TYPE_CHECKING:
    from rig.operator_client import Progress
    from rig.parts import Earlier

OnProgress = Callable[["Progress"], None]
TARGETS = ("virtual", "ca", "hil")


@dataclass(frozen=True)
class GoingOn:
    """A session that was begun before."""

    session: str
    reason: str
    shown: Callable[[], None]
    """Called when journal and register have been brought together, before START; raises if nobody confirms."""
    earlier: Earlier
    """What was delivered of it before."""
    new_limits: bool = False
    """Although the interlock rules are others than it went by, as the physicist."""


@dataclass(frozen=True)
class DeliveryRequest:
    """What is to be delivered, where, and under which seed.

    `seed` and `speed` None: those of the facility that is up, else 1. `speed` is for target ca.
    """

    plan: Path
    facility: Facility
    room: str
    home: Home
    qa: bool = False
    seed: int | None = None
    speed: float | None = None
    going_on: GoingOn | None = None
    fraction: int = 0
    """Of the course, from 1; 0: the next one, where it is one."""
    continues: str = ""
    """A session that was closed as partial, whose rest is delivered."""
    new_limits: str = ""
    """Why, as the physicist, it is delivered under other interlock rules than that session's; empty: it is not."""

    @property
    def first_seed(self) -> int:
        """The seed where this delivery starts the facility."""
        return 1 if self.seed is None else self.seed

    @property
    def first_speed(self) -> float:
        """The speed where this delivery starts the facility."""
        return 1.0 if self.speed is None else self.speed


def deliver_plan(request: DeliveryRequest, target: str, on_progress: OnProgress | None = None) -> DeliveryResult:
    """Deliver; nothing moves before the plan has been read, checked and compiled.

    Raises PlanError, ConfigError or UsageError for what cannot be delivered, ChannelError for a target that is not
    there.
    """
    if target not in TARGETS:
        raise no_such("target.unknown", "target", target, TARGETS)
    if request.new_limits and not request.continues:
        raise UsageError("target.new-limits", "a session of its own goes by the interlock rules in force",
                         "--new-limits", "leave it out; it is for --continues SESSION")  # fmt: skip
    require_target(request.facility, target, request.speed)
    if target == "virtual" and request.speed is not None:
        raise UsageError("target.speed", "virtual time has no speed: it goes as fast as this machine can", "--speed",
                         "leave it out, or give --target ca")  # fmt: skip
    if target == "virtual" and (request.fraction or request.continues):
        raise UsageError("target.course", "each virtual delivery is a facility of its own, without a course",
                         "--fraction or --continues", "give --target ca")  # fmt: skip
    program = checked_program(request)
    if target == "virtual":
        from rig.deliver_virtual import deliver_virtual

        return deliver_virtual(request, program, on_progress)
    from rig.deliver_ca import deliver_ca

    return deliver_ca(request, program, on_progress, target)


def checked_program(request: DeliveryRequest) -> MachineProgram:
    """The plan as a machine program for this facility and room."""
    program = compile_program(load_plan(request.plan), request.facility, request.room, qa=request.qa)
    species_of(program)
    require_hazard_bounds(program, request.facility)
    return program if not request.continues else rest_of(program, request.facility, request.home, request.continues)


def rest_of(program: MachineProgram, facility: Facility, home: Home, continues: str) -> MachineProgram:
    """What a session that was closed as partial has left, by the journal of the facility."""
    from control.continuation import continued
    from rig.session_desk import journal_at

    with journal_at(home, facility.id) as journal:
        rest = continued(journal, program, continues)
    if not isinstance(rest, MachineProgram):
        raise InternalError("deliver.rest", "the rest of a program is no program", continues)
    return rest


def species_of(program: MachineProgram) -> str:
    """The one species of a program; a session accelerates one."""
    species = sorted({layer.species for layer in program.layers})
    if len(species) != 1:
        raise PlanError(
            "plan.species", f"the plan mixes {', '.join(species)}", program.plan_label, "make one plan for each species"
        )
    return species[0]


def write_files(folder: Path, files: Mapping[str, bytes]) -> dict[str, str]:
    """Write the files of a session; returns their paths by what they are."""
    written = {}
    for name, data in files.items():
        path = folder / name
        path.write_bytes(data)
        written[FILE_KINDS.get(name, name)] = str(path)
    return written


SPOTS_FILE, EVENTS_FILE, SUMMARY_FILE = "spots.parquet", "events.jsonl", "summary.json"
SAMPLES_FILE, RECORD_FILE = "samples.parquet", "record.dcm"
FILE_KINDS = {
    SPOTS_FILE: "spot log",
    SAMPLES_FILE: "sample log",
    EVENTS_FILE: "events",
    RECORD_FILE: "record",
    TRUTH_LOG_FILE: "truth",
    SUMMARY_FILE: "summary",
}
