"""What the commands share: options, the rules of a facility, what the safety controller shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from console.settings import Settings

if TYPE_CHECKING:
    from facility.config.models import Facility
    from interlocks.model import Rule
    from interlocks.rules import RuleSet
    from rig.interlock_desk import LiveInterlocks
    from rig.supervisor import ProcessStatus


@dataclass(frozen=True)
class Desk:
    """A facility's rules, and its safety controller where it runs."""

    facility: Facility
    room: str
    species: str
    rules: RuleSet
    live: LiveInterlocks | None
    speed: float | None = None
    """Of the facility that is up, where it is looked at: limits in time are those of its processes then."""
    absent: str = "the facility is not up"
    """Why nothing is live, where nothing is."""

    @property
    def title(self) -> str:
        """Facility, room and species, for headings."""
        return f"{self.facility.id}, room {self.room}, {self.species}"


def open_desk(
    settings: Settings, facility_name: str, room: str | None = None, species: str | None = None, *, live: bool = True
) -> Desk:
    """The rules of the room and species that run, unless others are asked for.

    Live where that very facility is up, and then with the limits in time of its processes at their speed.
    """
    from interlocks.rules import load_rules
    from rig.supervisor import Supervisor

    facility = settings.facility(facility_name)
    supervisor = Supervisor(settings.home(), facility.id)
    run, lines = supervisor.status()
    here = run is not None and room in (None, run.room) and species in (None, run.species)
    room = room or (run.room if run else next(iter(facility.rooms)))
    species = species or (run.species if run else next(iter(facility.species)))
    rules = load_rules(facility, room, species, settings.config_dir)
    shown = speed = None
    if live and here and run is not None and all(line.alive for line in lines):
        from rig.interlock_desk import look
        from rig.paced_rules import paced_rules

        rules, speed = paced_rules(rules, run.speed), run.speed
        shown = look(facility, settings.home(), rules.rules)
    return Desk(facility, room, species, rules, shown, speed, absent=_absent(run is not None, lines))


def _absent(known: bool, lines: Sequence[ProcessStatus]) -> str:
    dead = [line.name for line in lines if not line.alive]
    if not known or len(dead) == len(lines):
        return Desk.absent
    if not dead:
        return "the facility that is up is of another room or species"
    permit = ": there is no beam permit" if "safety" in dead else ""
    return f"the facility is up without {' and '.join(dead)}{permit}; ionctl down, then ionctl up"


def bound_words(rule: Rule, rules: RuleSet, facility: Facility) -> str:
    """The bound with its parts, in ms."""
    from interlocks.explain import bound, external_inputs

    promised = bound(rule, rules, facility)
    parts = (f"{promised.observation_us / 1000.0:.2f} observation + {promised.decision_us / 1000.0:.2f} decision + "
             f"{promised.actuator_us / 1000.0:.2f} beam-off device")  # fmt: skip
    devices = external_inputs(rule, facility)
    slow = f"; not fast, it reads {', '.join(devices)}" if devices else ""
    return f"{promised.total_us / 1000.0:.2f} ms = {parts}{slow}"


def ms(us: float) -> str:
    """A time of the matrix in ms; 'none' where there is no second device."""
    import math

    return f"{us / 1000.0:.2f}" if math.isfinite(us) else "none"


def at_s(t_ns: int) -> str:
    """A facility time in words."""
    return f"{t_ns * 1e-9:.6f} s of facility time"
