"""Scenes `beam-off` and `rack`: what is beside the beam, against surroundings that may do anything in every tick.

`beam-off`: lines and devices.  The lines, the action in force and the demand take every value in every tick.
`rack`: fast tier, lines and front end.  The safety controller's lines, the causes of trips and the ring take every
value in every tick, and control gives every command at every moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, product
from typing import NamedTuple

from facility.states import Action, FrontEndState
from interlocks.rules import RuleSet
from rig.proof.classes import fast_stand_ins
from rig.proof.explore import Always, Occurs, Property, Recurs, Step
from rig.proof.rack_parts import (
    COMMANDS,
    FAILURES,
    BeamOff,
    Devices,
    FastState,
    FastTier,
    FrontEnd,
    SafetyLines,
    bound_ticks,
    permitted,
)

F = FrontEndState
LINES = {
    "beam": SafetyLines(True, False, True),
    "hold": SafetyLines(True, True, True),
    "pause": SafetyLines(False, True, True),
    "abort": SafetyLines(False, False, True),
    "dead": SafetyLines(False, False, False),
    "lost": SafetyLines(True, False, False),
}
OF_OLD = "of another permit"
ACTIVE = (F.ARMED, F.IRRADIATING, F.HELD, F.PAUSED)


class BeamOffScene:
    """See the module; the state is `Devices`."""

    name = "beam-off"
    words = "permit line and beam-off devices, at most one failed; lines, action and demand do anything"

    def __init__(self) -> None:
        self._beam_off = BeamOff()

    def initial(self) -> Iterable[tuple[str, Devices]]:
        """No beam, with one device failed or none."""
        for failed in FAILURES:
            yield f"start failed={failed}", Devices(failed)

    def steps(self, state: Devices) -> Iterator[tuple[str, Devices]]:
        """A tick with any lines, action and demand."""
        for (name, lines), action, demand in product(LINES.items(), Action, (False, True)):
            yield (
                f"tick lines={name} action={action.name} demand={demand:d}",
                self._beam_off.tick(state, lines, action, demand),
            )

    @property
    def properties(self) -> Sequence[Property]:
        """What must hold."""
        return (
            Always("demand implies permit", lambda s: not s.commanded or (s.permit and not s.hold)),
            Always("beam at isocentre implies permit within the last bound", _within_bound),
            Step("PAUSE, ABORT and a dead link take the permit in the next tick", _obeys),
            Step("every change of the permit begins another epoch", _counted),
            *(Occurs(f"beam reaches the isocentre with {failed} failed", _beam_with(failed)) for failed in FAILURES),
        )

    def describe(self, state: Devices) -> str:
        """One line."""
        return (
            f"permit={state.permit:d} hold={state.hold:d} commanded={state.commanded:d} beam={state.beam:d} "
            f"away={state.away} failed={state.failed}"
        )


def _within_bound(state: Devices) -> bool:
    return not state.beam or state.away <= bound_ticks(state.failed)


def _obeys(_before: Devices, label: str, after: Devices) -> bool:
    against = any(
        word in label
        for word in ("lines=pause", "lines=abort", "lines=dead", "lines=lost", "action=PAUSE", "action=ABORT")
    )
    return label.startswith("start") or not (against and after.permit)


def _counted(before: Devices, _label: str, after: Devices) -> bool:
    return after.turned == (before.permit != after.permit)


def _beam_with(failed: str) -> Callable[[Devices, str, Devices], bool]:
    return lambda _before, _label, after: after.failed == failed and after.beam


class Rack(NamedTuple):
    """State of the scene `rack`."""

    fast: FastState
    front: FrontEnd
    permit: bool
    """The permit line of the last tick."""


class RackScene:
    """See the module."""

    name = "rack"
    words = "fast tier, lines and front end; the safety controller's lines, causes, ring and control do anything"

    def __init__(self, rules: RuleSet) -> None:
        self.fast = FastTier(fast_stand_ins(rules.h))
        places = self.fast.causes
        self._causes = [
            (",".join(self.fast.rules[i].id for i in chosen) or "none", sum(1 << i for i in chosen))
            for size in range(len(places) + 1)
            for chosen in combinations(places, size)
        ]

    def initial(self) -> Iterable[tuple[str, Rack]]:
        """Switched on."""
        yield "start", Rack(self.fast.start, FrontEnd(), False)

    def steps(self, state: Rack) -> Iterator[tuple[str, Rack]]:
        """A tick with any lines, causes and ring; a command of control; a reset that comes through the link."""
        for (name, lines), (words, bad) in product(LINES.items(), self._causes):
            permit, hold = permitted(lines, state.fast.action)
            fast = self.fast.step(state.fast, lines, bad)
            label = f"tick lines={name} causes={words}"
            for ring, done in ((True, False), (False, False), (True, True)):
                if done and not state.front.demand:
                    continue
                front = state.front.permit_changed() if permit != state.permit else state.front
                front = front.tick(permit, hold, state.fast.action, ring, done)
                yield f"{label}{'' if ring else ' no-ring'}{' done' if done else ''}", Rack(fast, front, permit)
        for verb in COMMANDS:
            yield f"control {verb}", state._replace(front=state.front.command(verb, state.permit))
        for verb in ("arm", "resume"):
            front = state.front.command(verb, state.permit, current=False)
            yield f"control {verb} {OF_OLD}", state._replace(front=front)
        yield "fast reset", state._replace(fast=self.fast.reset(state.fast, (1 << len(self.fast.rules)) - 1))

    @property
    def properties(self) -> Sequence[Property]:
        """What must hold."""
        return (
            Always("what is present or latched in the fast tier is in force", self._in_force),
            Step("a fast trip takes the permit away in the next tick", _acts),
            Step("a fast latch goes by a reset only, and not while present", _latch_stays),
            Step("a latched ABORT ends the layer, a latched PAUSE pauses it", _ends),
            Step("after ABORT only load and arm, after PAUSE only a resume under a permit leads to beam", _no_way_back),
            Step("an arm or a resume that was meant for another permit does nothing", _old_does_nothing),
            Step("beam is demanded under the permit only that the layer was armed or resumed for", _same_permit),
            Recurs("every fast trip leads to reset, with the layer closed", _quiet),
            *(Occurs(f"{rule.id} trips", _trips(i)) for i, rule in enumerate(self.fast.rules)),
            Occurs("a HOLD resumes by itself", _resumes),
        )

    def _in_force(self, state: Rack) -> bool:
        fast = state.fast
        standing = (rule for i, rule in enumerate(self.fast.rules) if (fast.present | fast.latched) >> i & 1)
        return fast.action == max((rule.strength for rule in standing), default=Action.NONE)

    def describe(self, state: Rack) -> str:
        """One line."""
        fast = state.fast
        return (
            f"action={Action(fast.action).name} latched={fast.latched:b} present={fast.present:b} "
            f"permit={state.permit:d} front={state.front.state.name}"
        )


def _acts(before: Rack, label: str, after: Rack) -> bool:
    return not label.startswith("tick") or before.fast.action < Action.PAUSE or not after.permit


def _latch_stays(before: Rack, label: str, after: Rack) -> bool:
    gone = before.fast.latched & ~after.fast.latched
    return gone == 0 or (label == "fast reset" and gone & before.fast.present == 0)


def _ends(before: Rack, label: str, after: Rack) -> bool:
    if not label.startswith("tick") or before.front.state not in ACTIVE or before.fast.action < Action.PAUSE:
        return True
    if before.fast.action == Action.ABORT:
        return after.front.state is F.ABORTED
    return after.front.state in (F.PAUSED, F.DONE)


def _no_way_back(before: Rack, label: str, after: Rack) -> bool:
    if before.front.state is F.ABORTED:
        return after.front.state is F.ABORTED or label == "control load"
    if before.front.state is F.PAUSED and after.front.state not in (F.PAUSED, F.ABORTED):
        return label == "control resume" and before.permit
    return True


def _old_does_nothing(before: Rack, label: str, after: Rack) -> bool:
    return not label.endswith(OF_OLD) or before == after


def _same_permit(before: Rack, _label: str, after: Rack) -> bool:
    return not after.front.demand or before.front.demand or not after.front.old


def _quiet(state: Rack) -> bool:
    return state.fast.latched == 0 and state.front.state not in ACTIVE


def _trips(place: int) -> Callable[[Rack, str, Rack], bool]:
    return lambda before, _label, after: bool(after.fast.present & ~before.fast.present & (1 << place))


def _resumes(before: Rack, label: str, after: Rack) -> bool:
    return label.startswith("tick") and before.front.state is F.HELD and after.front.state is F.IRRADIATING
