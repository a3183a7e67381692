"""One trial near a limit: what is compared is brought to a share of it, and either nothing trips or this rule does."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from facility.states import Action, FrontEndState
from ioc_sim.faults import Fault
from rig.trials.causes import Act
from rig.trials.judge import acts_within_us
from rig.trials.near_acts import act_near
from rig.trials.result import TrialResult, near_result
from rig.trials.run import MS_NS, SETTLE_S, TrialRun
from rig.trials.truth import BEFORE_NS, beam_off_ns, rate_before, ticks

MAX_NS = 6000 * MS_NS
"""Longest time a layer lasts, with a silence in it."""
POLL_S = 0.01
LATER_NS = 500 * MS_NS
BYPASS_S = 60.0


class NearTimes(NamedTuple):
    """When it happened, ns of facility time."""

    cause: int
    """From when on the device was set, or somebody silent."""
    decision: int | None
    """None: this rule did not trip."""
    off: int | None
    """None: no beam after the decision, or no decision."""
    until: int
    """Until when it was looked at."""


class NearRun(TrialRun):
    """Runs in a branch, in the beam of the first layer."""

    async def run_near(self, faults: tuple[Fault, ...], share: float, side: str, at_ns: int) -> TrialResult:
        """A quantity at a share of its limit: below, nothing trips for the rest of the layer; above, this rule does.

        A limit that the layer comes near to at its end must be reached in this layer.
        """
        self._deed.prepare()
        self._note_lines()
        for fault in faults:
            self._world.plant.inject(fault)
        cause_ns = self._begin_act(share) or at_ns
        ended = await self._look(share, at_ns)
        latched, told = self._latched(), " ".join(filter(None, (f"{share:g} of the", side, "limit")))
        times = await self._times(cause_ns)
        failures = []
        others = latched - {self._rule.id, *self._trial.also}
        below = share < 1.0
        if others or (below and self._rule.id in latched):
            failures.append(f"{told} trips {', '.join(sorted(latched))}")
        if below and not ended and not latched:
            failures.append(f"the layer did not end within {MAX_NS / 1e9:g} s")
        if not below and self._rule.id not in latched:
            failures.append(f"{told} does not trip")
        failures += self._late(times)
        return near_result(self._rule, self._bench.seed, share, told, times, self._words(), tuple(failures))

    async def bypass(self) -> None:
        """As a physicist, what would come before this rule."""
        for rule_id in self._trial.near_bypassed:
            asked = {"rule": rule_id, "reason": "another rule is tried near its limit", "seconds": BYPASS_S}
            await self._operator.ask("SAFE", "bypass", asked, role="physicist")

    def _begin_act(self, share: float) -> int | None:
        """Somebody is silent, or late, from now on; when that is, None where the cause is a fault of a device."""
        if not self._trial.near_act or self._trial.act is None:
            return None
        act, loop = Act(self._trial.act), self._world.loop
        loop.create_task(act_near(self._world, self._parts, act, self._rule, share))
        return loop.now_ns()

    async def _look(self, share: float, at_ns: int) -> bool:
        """Wait for the rule's trip, below the limit for the end of the layer; whether the layer has ended."""
        loop, plant, below = self._world.loop, self._world.plant, share < 1.0
        token = plant.status.token

        def ended() -> bool:
            """The next layer comes, or none does: control stops where a spot has got more than its tolerance."""
            return plant.status.token != token or plant.status.state == FrontEndState.DONE

        until_ns = at_ns + MAX_NS
        while loop.now_ns() < until_ns and self._rule.id not in self._latched():
            if (below or self._trial.near_end is not None) and ended():
                break
            if below and self._latched():  # by right, or not: the layer will not end
                until_ns = min(until_ns, loop.now_ns() + LATER_NS)
            await asyncio.sleep(POLL_S)
        return ended()

    async def _times(self, cause_ns: int) -> NearTimes:
        """When it was decided and the beam was off, by raw ticks."""
        loop = self._world.loop
        if self._rule.id not in self._latched():
            return NearTimes(cause_ns, None, None, loop.now_ns())
        decision_ns = self._decided_ns()
        await asyncio.sleep(SETTLE_S)
        until_ns = loop.now_ns()
        if decision_ns is None or self._rule.strength < Action.HOLD:
            return NearTimes(cause_ns, decision_ns, None, until_ns)
        truth = ticks(self._world.plant, decision_ns - BEFORE_NS)
        off_ns = beam_off_ns(truth, decision_ns, until_ns, rate_before(truth, decision_ns))
        return NearTimes(cause_ns, decision_ns, off_ns, until_ns)

    def _decided_ns(self) -> int | None:
        if self._rule.tier != "H":
            return self._fell_ns()
        plant = self._world.plant
        return int(plant.rule_rows[plant.rule_ids.index(self._rule.id)]["t_decision_ns"])

    def _late(self, times: NearTimes) -> list[str]:
        """What is wrong with how fast the beam was off; what the reading lags behind the device is no part of it."""
        if times.decision is None or times.off is None:
            return []
        acted_us, within_us = (times.off - times.decision) / 1000.0, acts_within_us(self._rule, self._promised)
        return [f"beam off {acted_us:.1f} us after the decision, at most {within_us:g}"] if acted_us > within_us else []
