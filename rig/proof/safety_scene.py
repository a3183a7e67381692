"""Scene `permit`: latches and permit of the safety controller against causes, a link and persons that may do anything.

The steps are `interlocks.latch.step` and `interlocks.permit.step`; which comes after which is that of
`SafetyController.scan` and `.reset`, and `tests/rig/test_proof_conformance.py` runs both side by side.  Time goes in
steps of TICK_NS, half of the longest wait for the fast tier, so that its end lies on a step and between two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, product
from typing import NamedTuple

from facility.states import Action
from interlocks import latch, permit
from interlocks.latch import LatchSpec, LatchState
from interlocks.own_inputs import LINK_INPUT
from interlocks.permit import PermitState
from interlocks.rules import RuleSet
from interlocks.verbs import VERBS
from rig.proof.classes import members, own_only, spec_of
from rig.proof.explore import Always, Occurs, Property, Recurs, Step

TICK_NS = permit.RESET_WAIT_NS // 2
ROLES = ("operator", "physicist", "control", "")
FAST_MASKS = {0: Action.NONE, 1: Action.PAUSE, 2: Action.ABORT, 3: Action.ABORT}
"""What may be latched in the fast tier: a PAUSE, an ABORT, both."""
MAY_RESET = {
    "none": frozenset(ROLES),
    "operator": frozenset({"operator", "physicist"}),
    "physicist": frozenset({"physicist"}),
}
"""Who may reset what, written down apart from the code that is proven."""
FAST_RESET = {0: "none", 1: "operator", 2: "physicist", 3: "physicist"}


_LOST = frozenset({permit.Effect.DROPPED, permit.Effect.RESET_INCOMPLETE, permit.Effect.HANDED_BACK})


class Watched(NamedTuple):
    """A class of rules as the scene has it."""

    name: str
    spec: LatchSpec
    own: bool
    """It needs no image: judged without a link too."""
    link: bool
    """Its cause is the link itself."""


class State(NamedTuple):
    """The safety controller."""

    latches: tuple[LatchState, ...]
    permit: PermitState
    fast: int
    """Fast latches it knows of."""
    granted: bool
    """A person's reset was accepted after the permit was last lost: a witness, nothing acts on it."""
    seen: bool
    """There was an image."""


class PermitScene:
    """Some classes of rules and the link; see the module.

    The controller refuses a reset to which one rule objects before any latch is asked.  The proof does without that
    first refusal, so that each step function has to be safe by itself; `objects` brings it back.
    """

    words = "latches and permit; causes, link, fast tier and persons do anything"

    def __init__(self, watched: Sequence[Watched], *, objects: bool = False) -> None:
        self.watched = tuple(watched)
        self._objects = objects
        self.name = "permit: " + " + ".join(one.name for one in watched)
        self._fields = (False, True) if any(one.spec.standing for one in watched) else (False,)
        """Whether a field is under way without a permit: only asked of rules that stand."""
        self._latch_known: dict[tuple[int, LatchState, bool, bool], LatchState] = {}
        self._permit_known: dict[tuple[PermitState, permit.Event], tuple[PermitState, tuple[permit.Effect, ...]]] = {}

    def initial(self) -> Iterable[tuple[str, State]]:
        """A controller that has just started."""
        yield "start", State(tuple(LatchState(value=0.0, limit=0.0, trip_value=0.0, trip_limit=0.0)
                                   for _ in self.watched), PermitState(), 0, False, False)  # fmt: skip

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """A scan with any causes, image and fast latches, in a field or not; a reset by anybody; a field closed."""
        free = [i for i, one in enumerate(self.watched) if not one.link]
        for fresh, bad in product((True, False), product((False, True), repeat=len(free))):
            causes = dict(zip(free, bad, strict=True))
            words = ",".join(self.watched[i].name for i in free if causes[i]) or "none"
            for fast, field in product(FAST_MASKS if fresh else (state.fast,), self._fields):
                label = f"scan causes={words} link={fresh:d} fast={fast}" + (" field=1" if field else "")
                yield label, self._scan(state, causes, fresh, fast, field)
        yield "close field", self._permit(state, permit.HandedBack(), 0)
        for role in ROLES:
            yield f"reset {role or 'nobody'}", self._reset(state, role)

    # --- the controller's own order ---------------------------------------------------------------------------
    def _scan(self, state: State, causes: dict[int, bool], fresh: bool, fast: int, field: bool) -> State:
        permitted = state.permit.released or field
        latches = []
        for i, (one, memory) in enumerate(zip(self.watched, state.latches, strict=True)):
            bad = (not fresh) if one.link else causes[i] or not (one.own or fresh)
            judged = one.own or fresh or not state.seen
            latches.append(self._latch(i, memory, bad, permitted) if judged else memory)
        after = state._replace(latches=tuple(latches), fast=fast, seen=state.seen or fresh)
        return self._observe(after, TICK_NS)

    def _latch(self, i: int, memory: LatchState, bad: bool, permitted: bool) -> LatchState:
        key = (i, memory, bad, permitted)
        if key not in self._latch_known:
            spec = self.watched[i].spec
            found, _ = latch.step(spec, memory, latch.Observed(not bad, 0.0, 0.0, permitted), 0)
            self._latch_known[key] = aged(spec, found)
        return self._latch_known[key]

    def _observe(self, state: State, dt_ns: int) -> State:
        forces = [latch.in_force(one.spec, memory) for one, memory in zip(self.watched, state.latches, strict=True)]
        event = permit.Observed(max(forces), Action.INHIBIT in forces, state.fast, FAST_MASKS[state.fast])
        return self._permit(state, event, dt_ns)

    def _permit(self, state: State, event: permit.Event, dt_ns: int) -> State:
        """One step of the permit at time 0; afterwards `dt_ns` pass."""
        key = (state.permit, event)
        if key not in self._permit_known:
            self._permit_known[key] = permit.step(state.permit, event, 0)
        found, effects = self._permit_known[key]
        granted = state.granted
        if isinstance(event, permit.Granted):
            granted = permit.Effect.NOT_GRANTED not in effects
        elif not _LOST.isdisjoint(effects):
            granted = False
        waits = found.waits_until_ns
        return state._replace(
            permit=found._replace(reset_seq=0, waits_until_ns=None if waits is None else waits - dt_ns), granted=granted
        )

    def _reset(self, state: State, role: str) -> State:
        if role not in VERBS["reset"]:
            return state
        both = list(zip(self.watched, state.latches, strict=True))
        state = self._observe(state, 0)
        if role not in MAY_RESET[FAST_RESET[state.fast]] or (self._objects and _objection(both, role)):
            return state
        cleared = tuple(latch.step(one.spec, m, latch.Reset(role), 0)[0] for one, m in both)
        state = self._observe(state._replace(latches=cleared), 0)
        return self._permit(state, permit.Granted(state.fast), 0)

    # --- what must hold ---------------------------------------------------------------------------------------
    @property
    def properties(self) -> Sequence[Property]:
        """What must hold."""
        return (
            Always("the permit implies that nothing objects", self._nothing_objects),
            Always("the permit implies a person's reset since it was last lost", _granted),
            Step("a latch goes by a reset of sufficient role only, and not while present", self._latch_stays),
            Step("no command of control raises the permit", _control_changes_nothing),
            Step("a lost link takes the permit away", _link_matters),
            Step("an ABORT shows as ABORT on the lines", self._abort_shows),
            Step("what may stand without a permit trips under one, or in a field, alone", self._stands),
            Step("a field that is closed leaves no permit", _closed),
            Recurs("every trip leads to reset", lambda state: permit.lines(state.permit).permit),
            *(Occurs(f"{one.name} trips", _trips(i)) for i, one in enumerate(self.watched) if one.spec.latching),
        )

    def _nothing_objects(self, state: State) -> bool:
        if not (state.permit.released or permit.lines(state.permit).permit):
            return True
        both = zip(self.watched, state.latches, strict=True)
        return state.fast == 0 and not any(
            one.spec.action >= Action.PAUSE and (m.present or m.latched) for one, m in both
        )

    def _latch_stays(self, before: State, label: str, after: State) -> bool:
        for one, was, now in zip(self.watched, before.latches, after.latches, strict=True):
            wrong = label.removeprefix("reset ") not in MAY_RESET[one.spec.reset] or was.present
            if was.latched and not now.latched and wrong:
                return False
        return True

    def _abort_shows(self, before: State, label: str, after: State) -> bool:
        both = zip(self.watched, after.latches, strict=True)
        worst = max([FAST_MASKS[after.fast], *(one.spec.action for one, m in both if m.present or m.latched)])
        lines = permit.lines(after.permit)
        if worst != Action.ABORT or not label.startswith("scan"):
            return True
        return not lines.permit and (not lines.hold or after.permit.waits_until_ns is not None)

    def _stands(self, before: State, label: str, after: State) -> bool:
        if before.permit.released or "field=1" in label:
            return True
        both = zip(self.watched, before.latches, after.latches, strict=True)
        return not any(one.spec.standing and now.latched and not was.latched for one, was, now in both)

    def describe(self, state: State) -> str:
        """One line."""
        words = " ".join(
            f"{one.name}={'present' if m.present else 'good'}{'+latched' if m.latched else ''}"
            for one, m in zip(self.watched, state.latches, strict=True)
        )
        lines = permit.lines(state.permit)
        return (
            f"{words} fast={state.fast} permit={lines.permit:d} hold={lines.hold:d} released={state.permit.released:d}"
        )


def _objection(both: Sequence[tuple[Watched, LatchState]], role: str) -> bool:
    standing = any(m.present and (one.spec.latching or one.spec.action == Action.INHIBIT) for one, m in both)
    return standing or any(m.latched and role not in MAY_RESET[one.spec.reset] for one, m in both)


def aged(spec: LatchSpec, state: LatchState) -> LatchState:
    """A latch after one step of time, in which its times count back from now; what only explains is forgotten."""
    since = state.bad_since_ns
    if since is not None:
        since = max(since - TICK_NS, -spec.debounce_ns)
    return state._replace(
        bad_since_ns=since, trip_value=0.0, trip_limit=0.0, value=0.0, limit=0.0, t_condition_ns=0, t_decision_ns=0
    )


def _granted(state: State) -> bool:
    return state.granted or not permit.lines(state.permit).permit


def _closed(before: State, label: str, after: State) -> bool:
    lines = permit.lines(after.permit)
    return label != "close field" or (not lines.permit and after.latches == before.latches)


def _control_changes_nothing(before: State, label: str, after: State) -> bool:
    return label not in ("reset control", "reset nobody") or before == after


def _link_matters(_before: State, label: str, after: State) -> bool:
    return "link=0" not in label or not permit.lines(after.permit).permit


def _trips(place: int) -> Callable[[State, str, State], bool]:
    return lambda before, _label, after: after.latches[place].latched and not before.latches[place].latched


def scenes(rules: RuleSet) -> Iterator[PermitScene]:
    """The link with each pair of classes of tier P: actions are a maximum, and a reset lets all go or none."""
    link: Watched | None = None
    found: list[Watched] = []
    for kind, group in members(rules.p).items():
        for own in (False, True):
            chosen = [rule for rule in group if own_only(rule) == own]
            on_link = [rule for rule in chosen if LINK_INPUT in rule.inputs]
            if on_link:
                link = Watched(on_link[0].id, spec_of(kind, TICK_NS), True, True)
            rest = [rule for rule in chosen if LINK_INPUT not in rule.inputs]
            if rest:
                found.append(Watched(rest[0].id, spec_of(kind, TICK_NS), own, False))
    if link is None:
        raise ValueError("no rule of tier P watches the link")
    for pair in combinations(found, 2):
        yield PermitScene((link, *pair))
