"""Tier P's rules with their memory: takes images, judges them, steps the latches.  No permit, no commands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from facility.states import Action
from interlocks import evaluator, latch
from interlocks.evaluator import INPUT_PLACE, NS_PER_MS, BeatState, Box, Judgement, Probe
from interlocks.latch import Effect, LatchSpec, LatchState
from interlocks.model import Rule
from interlocks.own_inputs import OWN_INPUTS
from interlocks.process_image import N_IMAGE
from interlocks.snapshot import RuleView

_MEMORY = 4
"""So many fields of a latch's state, its first, count for more than its own rule: not what was compared with what."""


class _Watched:
    """One rule: what it looks at, what it remembers."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.probe: Probe = evaluator.probe(rule)
        self.spec: LatchSpec = latch.spec_of(rule)
        self.acts_as = self.spec
        """The same, or the masked one while the rule is bypassed."""
        self.state = LatchState()
        self.beat: BeatState | None = None
        self.good = False
        """The last comparison, whether or not the rule applied."""
        self.own_only = all(name in OWN_INPUTS for name in rule.inputs)
        """It needs no image."""
        self.beats = rule.kind == "beat"
        """It looks at a heartbeat, which ages."""
        looks_at = (*self.probe.places, *((self.probe.when,) if self.probe.when >= 0 else ()))
        self.look = itemgetter(looks_at[0], *looks_at)
        """What it looks at, from the inputs: a tuple, also of one."""
        self.looked_at: tuple[float, ...] = ()
        self.settled = False
        """Judged again on the same inputs nothing would change, however late it is."""
        self.boxes: tuple[Box, ...] | None = None
        """What `Scanner.boxes` says of it as it was judged last; None: to be found."""
        self.viewed = self.state
        self.view = _view(rule, self.state)
        """The rule as it stood in the state `viewed`."""


class Scanner:
    """The rules of tier P over the last image."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._watched = tuple(_Watched(rule) for rule in rules)
        self._by_id = {watched.rule.id: watched for watched in self._watched}
        self._beats = tuple(watched for watched in self._watched if watched.beats)
        self._standing = tuple(watched for watched in self._watched if watched.spec.standing)
        self._debouncing: tuple[_Watched, ...] = ()
        """Rules that are bad and not yet present."""
        self._present: tuple[_Watched, ...] = ()
        self._by_input: dict[str, list[_Watched]] = {}
        for watched in self._watched:
            for name in watched.rule.inputs:
                self._by_input.setdefault(name, []).append(watched)
        self._inputs: list[float] = [math.nan] * (N_IMAGE + len(OWN_INPUTS))
        self._image_t_ns = 0
        self._lag_ns = 0
        """How old the image was when it was judged: so old will the next one be."""
        self._permitted: bool | None = None
        """As it was told last."""
        self._seen = False
        self.action = Action.NONE
        """Strongest action in force."""
        self.inhibited = False
        """A rule with INHIBIT is present."""
        self.personnel_ok = False
        """No rule of the personnel chain is present or latched."""

    def take(self, values: NDArray[np.float64], t_ns: int) -> None:
        """A fresh image: decoded values, and when they were taken (ns)."""
        self._inputs[:N_IMAGE] = values.tolist()
        self._image_t_ns = t_ns
        self._seen = True
        for watched in self._beats:
            watched.beat = evaluator.beat(watched.beat, self._inputs[watched.probe.places[0]], t_ns)

    def judge(self, own: Sequence[int], fresh: bool, now_ns: int, permitted: bool = True) -> list[tuple[str, Effect]]:
        """Compare all rules and step their latches.

        `own` are the controller's own inputs in the order of OWN_INPUTS, integers (`evaluator.own_values`).  Without a
        fresh image the rules that need one keep what they saw last; before the first image they judge unknown values.
        `permitted`: there is a permit, or a field is under way.
        """
        inputs = self._inputs
        inputs[N_IMAGE:] = evaluator.own_values(own)
        if fresh:
            self._lag_ns = now_ns - self._image_t_ns
        effects: list[tuple[str, Effect]] = []
        moved = permitted is not self._permitted
        if moved:
            self._permitted = permitted
            for watched in self._standing:  # all that a permit makes a difference to
                watched.settled = False
        any_image = fresh or not self._seen
        for watched in self._watched:
            if not (any_image or watched.own_only):
                continue
            looked_at = watched.look(inputs)
            if watched.settled and looked_at == watched.looked_at:
                continue  # by far the commonest: nothing it looks at has changed, and time alone changes nothing
            before = watched.state
            observed = self._observe(watched, looked_at, permitted)
            watched.state, found = latch.step(watched.acts_as, before, observed, now_ns)
            watched.settled = not watched.beats and latch.deadline_ns(watched.acts_as, watched.state) is None
            moved = moved or watched.state[:_MEMORY] != before[:_MEMORY]
            if found:
                effects += [(watched.rule.id, effect) for effect in found]
        if moved:
            self._sum_up()
        return effects

    def _observe(self, watched: _Watched, looked_at: tuple[float, ...], permitted: bool) -> latch.Observed:
        found = evaluator.judge(watched.probe, self._inputs, self._age_ms(watched) if watched.beats else math.nan)
        if not (found.good and watched.good and watched.rule.kind == "limit"):  # its box is that of its limits
            watched.boxes = None
        watched.looked_at, watched.good = looked_at, found.good
        good = found.good or not evaluator.applies(watched.probe, self._inputs)
        return latch.Observed(good, found.value, found.limit, permitted)

    def _age_ms(self, watched: _Watched) -> float:
        """How long the heartbeat that a rule looks at has shown no life."""
        return evaluator.beat_age_ms(watched.beat, self._inputs[watched.probe.places[0]], self._image_t_ns)

    def _sum_up(self) -> None:
        """After every change of a latch, or of what acts."""
        self._present = tuple([watched for watched in self._watched if watched.state.present])
        bad = [watched for watched in self._watched if watched.state.bad_since_ns is not None]
        self._debouncing = tuple([watched for watched in bad if _debounced_ns(watched) is not None])
        stand = [watched for watched in self._watched if watched.state.present or watched.state.latched]
        forces = [latch.in_force(watched.acts_as, watched.state) for watched in stand]
        self.action = max(forces, default=Action.NONE)
        self.inhibited = Action.INHIBIT in forces
        self.personnel_ok = "personnel" not in [watched.rule.chain for watched in stand]

    def bypass(self, rules: frozenset[str]) -> None:
        """From now on these rules are shown as they are and act no more, all others act."""
        for watched in self._watched:
            watched.acts_as = latch.masked(watched.spec) if watched.rule.id in rules else watched.spec
            watched.settled = False
        self._sum_up()

    def reset(self, role: str, now_ns: int) -> list[tuple[str, Effect]]:
        """Let go of all latches that this role may reset and whose cause is gone.

        What was settled stays so: a rule that lets go is good, and judged good again it would stay as it is.
        """
        effects: list[tuple[str, Effect]] = []
        for watched in self._watched:
            watched.state, found = latch.step(watched.spec, watched.state, latch.Reset(role), now_ns)
            effects += [(watched.rule.id, effect) for effect in found]
        self._sum_up()
        return effects

    def deadlines(self, *, beats: bool = True) -> Iterator[int]:
        """Instants at which time alone changes a rule: ends of debounces, and with `beats` overdue heartbeats."""
        yield from (t_ns for watched in self._debouncing if (t_ns := _debounced_ns(watched)) is not None)
        for watched in self._beats if beats else ():
            if watched.beat is not None and watched.good and watched.rule.high is not None:
                yield watched.beat.alive_ns + round(watched.rule.high * NS_PER_MS) + 1 + self._lag_ns

    def decisions(self) -> list[tuple[bool, bool, bool]]:
        """Good (the comparison alone), present and latched of each rule, in their order."""
        return [(watched.good, watched.state.present, watched.state.latched) for watched in self._watched]

    def value(self, name: str) -> float:
        """An input as it was seen last; NaN before the first image."""
        return self._inputs[INPUT_PLACE[name]]

    def compare(self, probe: Probe) -> Judgement:
        """A comparison on what was seen last, that nothing remembers."""
        return evaluator.judge(probe, self._inputs)

    def present_ids(self) -> list[str]:
        """Rules that are present."""
        return [watched.rule.id for watched in self._present]

    def boxes(self) -> Iterator[Box]:
        """Codes of the image within which no rule changes its mind."""
        for watched in self._watched:
            if watched.boxes is None:
                quiet = evaluator.quiet_box(watched.probe, self._inputs, watched.good)
                watched.boxes = tuple(evaluator.code_box(box) for box in quiet if box[0] < N_IMAGE)
            yield from watched.boxes

    def is_present_on(self, name: str) -> bool:
        """Whether a rule that looks at this input is present."""
        return any(watched.state.present for watched in self._by_input.get(name, ()))

    def view(self, rule_id: str) -> RuleView:
        """A rule as it stands."""
        return _seen(self._by_id[rule_id])

    def views(self) -> list[RuleView]:
        """All rules as they stand, in their order."""
        return [watched.view if watched.viewed is watched.state else _seen(watched) for watched in self._watched]


def _seen(watched: _Watched) -> RuleView:
    """The rule as it stands; the very view of the last time if it has not changed."""
    if watched.viewed is not watched.state:
        watched.viewed, watched.view = watched.state, _view(watched.rule, watched.state)
    return watched.view


def _view(rule: Rule, state: LatchState) -> RuleView:
    return RuleView(
        rule, state.present, state.latched, state.value, state.limit, state.trip_value, state.trip_limit,
        state.t_condition_ns,
    )  # fmt: skip


def _debounced_ns(watched: _Watched) -> int | None:
    return latch.deadline_ns(watched.spec, watched.state)
