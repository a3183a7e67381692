"""One trial: inject the cause, watch, ask for a reset in every way, mend, reset, and judge all of it by raw ticks."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from channels.command import Signer
from facility.errors import CommandRefused, IonctlError
from facility.states import Action
from facility.timebase import Rank
from interlocks.controller import SafetyController
from interlocks.explain import Bound, bound
from interlocks.model import Rule
from interlocks.own_inputs import CONSOLE_INPUT, LINK_INPUT, OWN_INPUTS, RESOLVED_INPUT
from interlocks.process_image import N_IMAGE
from interlocks.snapshot import RuleView
from rig.keys import CONTROL
from rig.trials.bench import Bench
from rig.trials.causes import DeviceFault, Trial, TrialState
from rig.trials.deed import Deed
from rig.trials.judge import degraded_bound_us, judge
from rig.trials.result import TrialResult
from rig.trials.truth import BEFORE_NS, Ticks, ticks
from rig.trials.watch import ConditionWatch
from rig.virtual_world import World, WorldParts

MS_NS = 1_000_000
LEAD_NS = 1 * MS_NS
POLL_S = 0.001
SETTLE_S = 0.006
"""After the decision: every beam-off device but the ring dump is done, the slowest tail is gone."""
SPOKE_NS = 1_200 * MS_NS
"""The console may have spoken last so long before it falls silent: the keep-alive after a reset only makes it known."""
LATEST_MS = 40.0
"""How much later than promised a decision is still waited for, so that it is reported as late and not as missing."""
MEND_S = 20.0
"""Longest time a mended device takes to read well again."""
WELL_S = 0.004
WELL_LOOKS = 3
QUIET_S = 0.03
"""After the reset: nothing may come by itself."""


@dataclass(frozen=True)
class Variant:
    """What else fails at the instant of the cause."""

    name: str
    faults: tuple[DeviceFault, ...]


@dataclass
class Found:
    """What was seen in a trial, before it is judged."""

    trial: Trial
    rule: Rule
    promised: Bound
    state: TrialState
    variant: Variant | None
    cause_ns: int
    condition_ns: int | None = None
    early: bool = False
    applies_ns: int = 0
    """When the rule applied first, from the cause on: bounds count from there."""
    decision_ns: int | None = None
    first_fault: str = ""
    latched: set[str] = field(default_factory=set)
    view: RuleView | None = None
    words: str = ""
    truth: Ticks | None = None
    until_ns: int = 0
    """Until when the truth is judged: the cause was mended then."""
    spot: int = -1
    """Spot in which the cause began."""
    answers: list[tuple[str, str]] = field(default_factory=list)
    """What each who asked for a reset was told: when and who, code or 'done'."""
    refusal: str = ""
    permit_after: bool = False
    latched_after: set[str] = field(default_factory=set)
    ions_after: float = 0.0
    """Between the mending and the end."""
    let_go_early: bool = False
    """The rule no longer saw its cause when a reset came, and was let go."""
    late: str = ""
    """What did not come in time."""

    @property
    def overtaken(self) -> bool:
        """Another rule has taken the beam before this one could, by right."""
        return self.rule.id not in self.latched and bool(self.latched & set(self.trial.behind))


class TrialRun:
    """Runs in a branch: what it does to the facility stays there."""

    def __init__(self, bench: Bench, world: World, parts: WorldParts, rule: Rule, trial: Trial) -> None:
        self._bench = bench
        self._world = world
        self._parts = parts
        self._operator = parts.operator
        self._room = parts.room
        self._rule = rule
        self._trial = trial
        self._deed = Deed(world, parts, trial, bench.program.layers[0].intensity_ions_per_s)
        self._lines: list[tuple[int, bool]] = []
        self._present_ns: int | None = None
        self._promised = bound(rule, bench.rules, bench.facility)

    async def run(self, state: TrialState, at_ns: int, spot: int, variant: Variant | None = None) -> TrialResult:
        """The whole of it, with the cause beginning at `at_ns`."""
        found = Found(self._trial, self._rule, self._promised, state, variant, at_ns, spot=spot)
        watch = self._watch(at_ns)
        self._deed.prepare()
        self._deed.begin(at_ns)
        if variant is not None:
            for fault in variant.faults:
                self._world.plant.inject(fault.at(at_ns))
        self._note_lines()
        self._world.loop.call_at_rank(self._watch_from_ns(at_ns), Rank.PLANT, watch.start)
        await self._until_decided(found, watch)
        await asyncio.sleep(SETTLE_S)
        self._note(found, watch)
        if variant is None:
            await self._let_go(found)
        elif found.decision_ns is None:
            await self._look_on(found, watch)
        found.truth = ticks(self._world.plant, at_ns - BEFORE_NS)
        return judge(self._bench, found)

    # --- watching ------------------------------------------------------------------------------------------
    def _watch(self, at_ns: int) -> ConditionWatch:
        safety, controller = self._world.safety, self._world.controller
        known = {name: _told(controller, name) for name in OWN_INPUTS}
        own = known | {
            LINK_INPUT: lambda t_ns: float(not safety.always or safety.rack_heard(t_ns)),
            CONSOLE_INPUT: lambda t_ns: _age_ms(controller._console.age_ns(t_ns)),
        }
        return ConditionWatch(self._world, self._rule, at_ns, own)

    def _watch_from_ns(self, at_ns: int) -> int:
        rule = self._rule
        begin_ns = at_ns - round(rule.window_us * 1000.0) - LEAD_NS
        if rule.inputs[0] == CONSOLE_INPUT:  # nothing but time passes before
            begin_ns += round((rule.high or 0.0) * MS_NS) - SPOKE_NS
        return max(begin_ns, self._world.loop.now_ns())

    def _note_lines(self) -> None:
        """Write down when the rack's lines let the beam, and when not."""
        plant, loop, tell = self._world.plant, self._world.loop, self._world.plant.set_safety_lines

        def noted(permit: bool, hold: bool, link_ok: bool, *others: Any) -> None:
            self._lines.append((loop.now_ns(), permit and link_ok and not hold))
            tell(permit, hold, link_ok, *others)

        plant.set_safety_lines = noted  # type: ignore[method-assign,assignment]

    async def _until_decided(self, found: Found, watch: ConditionWatch) -> None:
        latest_ns = found.cause_ns + round(
            (self._promised.total_us / 1000.0 + self._trial.builds_up_ms + LATEST_MS) * MS_NS
        )
        loop = self._world.loop
        await asyncio.sleep(max(0.0, (found.cause_ns - loop.now_ns()) / 1e9))
        while loop.now_ns() < latest_ns:
            found.decision_ns = self._decision(watch)
            if watch.condition_ns is not None and found.decision_ns is not None:
                return
            await asyncio.sleep(POLL_S)

    async def _look_on(self, found: Found, watch: ConditionWatch) -> None:
        """The rule is blind, as what else has failed has made it: look until whoever notices that must have acted."""
        until_ns = found.cause_ns + round((degraded_bound_us(self._bench, found) / 1000.0 + LATEST_MS) * MS_NS)
        await asyncio.sleep(max(0.0, (until_ns - self._world.loop.now_ns()) / 1e9))
        self._note(found, watch)

    def _decision(self, watch: ConditionWatch) -> int | None:
        return watch.present_ns if self._rule.tier == "H" else self._fell_ns()

    def _fell_ns(self) -> int | None:
        """When the rack's line fell for a trip by the safety controller; None before it."""
        tripped_ns = self._tripped_ns()
        if tripped_ns is None or self._rule.strength == Action.INHIBIT:  # which takes no permit away
            return tripped_ns
        fell = [t_ns for t_ns, beam in self._lines if t_ns >= tripped_ns and not beam]
        already = not self._world.plant._state[0].p_permit
        return fell[0] if fell else (tripped_ns if already else None)

    def _tripped_ns(self) -> int | None:
        """When the safety controller said that this rule of tier P is tripped, or present where it does not latch."""
        if not self._rule.latches:
            if self._present_ns is None and self._view().present:
                self._present_ns = self._world.loop.now_ns()
            return self._present_ns
        return next((e.t_ns for e in self._trips() if e.data["id"] == self._rule.id), None)

    def _trips(self) -> list[Any]:
        return [event for event in self._world.events.events if event.kind == "interlock.trip"]

    def _words(self) -> str:
        """What the operator reads of this rule's trip; empty without one."""
        return next((str(e.data["words"]) for e in self._trips() if e.data["id"] == self._rule.id), "")

    def _view(self) -> RuleView:
        return next(view for view in self._world.controller.snapshot().rules if view.rule.id == self._rule.id)

    def _latched(self) -> set[str]:
        return self._world.rules_that_are("latched")

    def _note(self, found: Found, watch: ConditionWatch) -> None:
        """What stands there after the decision."""
        found.condition_ns, found.early = watch.condition_ns, watch.early
        found.applies_ns = max(found.cause_ns, watch.applies_ns or 0)
        found.decision_ns = self._decision(watch)
        if found.condition_ns is not None and found.decision_ns is not None and self._rule.inputs[0] in OWN_INPUTS:
            # what only the safety controller knows shows outside after the scan that has judged it
            found.condition_ns = min(found.condition_ns, found.decision_ns)
        found.first_fault = self._world.controller.snapshot().first_fault
        found.latched = self._latched()
        found.view = self._view()
        found.words = self._words()
        found.until_ns = self._world.loop.now_ns()

    # --- letting go ----------------------------------------------------------------------------------------
    async def _let_go(self, found: Found) -> None:
        """Ask while it stands, mend, ask as everybody who may not, then as who may; and wait."""
        found.late = await self._deed.stands()
        standing = self._standing()
        if standing and CONSOLE_INPUT not in self._rule.inputs:  # a signed reset is a sign of life of the console
            await self._ask(found, "standing", "physicist", role="physicist")
            found.let_go_early = found.answers[-1][1] == "done" and not standing & self._standing()
        found.latched |= self._latched()
        found.until_ns = self._world.loop.now_ns()
        self._deed.end()
        found.late = await self._deed.over() or found.late
        if self._trial.removed == "search":
            await self._room.search()
        if self._trial.removed == "unload":
            with contextlib.suppress(CommandRefused):  # an ABORT has ended the layer already
                await self._operator.ask("TCS", "stop")
        await self._well_again(found)
        found.latched |= self._latched()
        before = self._world.plant.truth_total_ions
        if self._latched():
            await self._ask(found, "mended", "control", signer=self._world._signer(CONTROL.name, "control"))
            await self._ask(found, "mended", "operator", role="operator")
            if self._needs_physicist(found):
                await self._ask(found, "mended", "physicist", role="physicist")
        if self._unresolved() and not self._latched():
            await self._account(found)
        await asyncio.sleep(QUIET_S)
        found.permit_after = self._world.controller.snapshot().permit
        found.latched_after = self._latched()
        found.ions_after = self._world.plant.truth_total_ions - before

    def _standing(self) -> set[str]:
        """Rules for which a reset has to be refused: latching ones that are present, or this one where it inhibits."""
        views = self._world.controller.snapshot().rules
        inhibits = self._rule.strength == Action.INHIBIT and not any(view.latched for view in views)
        present = (view.rule for view in views if view.present)
        return {rule.id for rule in present if rule.latches or (inhibits and rule.id == self._rule.id)}

    def _needs_physicist(self, found: Found) -> bool:
        return any(self._bench.rules.rule(rule_id).reset == "physicist" for rule_id in found.latched)

    async def _well_again(self, found: Found) -> None:
        """Until no latching rule is present, for three looks in a row: slow devices creep past their limits."""
        loop = self._world.loop
        begin_ns = loop.now_ns()
        wait_s, good = WELL_S, 0
        while loop.now_ns() < begin_ns + round(MEND_S * 1e9):
            await asyncio.sleep(wait_s)
            views = self._world.controller.snapshot().rules
            fast = any(row["present"] and row["latched"] for row in self._world.plant.rule_rows)
            good = 0 if fast or any(view.present and view.rule.latches for view in views) else good + 1
            if good == WELL_LOOKS:
                return
            wait_s = wait_s if good else min(2.0 * wait_s, 1.0)
        found.late = f"still present {MEND_S:g} s after the cause was mended"

    def _unresolved(self) -> bool:
        """An ABORT has ended a field that had begun, and nobody has said what became of it."""
        return any(
            view.present and RESOLVED_INPUT in view.rule.inputs for view in self._world.controller.snapshot().rules
        )

    async def _account(self, found: Found) -> None:
        """No permit until a physicist has accounted for the termination; then another reset gives it."""
        if self._world.controller.snapshot().permit:
            found.answers.append(("unresolved, nobody", "permit"))
        await self._ask(found, "unresolved", "physicist")
        what = {"session": self._world.controller._field.state.session, "words": "tried an interlock", "resume": True}
        await self._operator.ask("SAFE", "resolve", what, role="physicist")
        await self._operator.reset()

    async def _ask(
        self, found: Found, when: str, who: str, *, role: str = "physicist", signer: Signer | None = None
    ) -> None:
        """Ask for a reset, and write down what was answered."""
        try:
            data = await self._operator.ask("SAFE", "reset", role=role, signer=signer)
            answer = "done" if not data.get("latched") else "still latched"
        except CommandRefused as refused:
            answer = refused.code
            if when == "standing" or (when == "unresolved" and RESOLVED_INPUT in self._rule.inputs):
                found.refusal = refused.what
        except IonctlError as problem:
            answer = problem.code
        found.answers.append((f"{when}, {who}", answer))


def _age_ms(age_ns: int) -> float:
    return math.inf if age_ns < 0 else age_ns * 1e-6


def _told(controller: SafetyController, name: str) -> Callable[[int], float]:
    """What the safety controller knows by itself, as it stands."""
    place = N_IMAGE + list(OWN_INPUTS).index(name)
    return lambda _t_ns: controller._scanner._inputs[place]
