"""A scenario, typed: facility, plan, moment, what happens there, what people do then, and what is expected of it all.

The models are frozen and strict, as every configuration is: a scenario made by a program (a campaign) and one read from
a file are the same thing. `rig.scenario.loader` reads files; `rig.scenario.faults` is the catalogue of faults.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from facility.config.base import Name, NonNegative, Positive, Section, Text
from interlocks.model import RuleId

ScenarioId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{2,63}$")]


class Target(StrEnum):
    """Where a scenario can be run."""

    VIRTUAL = "virtual"
    """All in one process, in virtual time."""
    CA = "ca"
    """Real processes that talk Channel Access on loopback."""
    HIL = "hil"
    """As `ca`, with devices that an external IOC serves."""


TargetName = Literal["virtual", "ca", "hil"]


class PlanSource(Section):
    """Which plan: one that is made for the facility, or a file."""

    make: Literal["trial", "small", "f", "grid", "even"] | None = None
    """Of `control.plan.maker`; `grid` takes the two numbers below, `even` the second, at least."""
    layers: Annotated[int, Field(ge=1, le=50)] = 3
    spots: Annotated[int, Field(ge=1, le=2000)] = 60
    """In each layer of a `grid`."""
    file: Text | None = None
    """Path, relative to the scenario's file."""


class Moment(Section):
    """When the first act begins, as the same delivery without a fault shows it: exactly one of spot, phase, state and
    beam_ms; nothing at all is `after_ms` after the operator has gone as far as `begin` says."""

    layer: Annotated[int, Field(ge=0)] = 0
    """Index of the layer, 0-based: for spot, phase and state."""
    spot: Annotated[int, Field(ge=0)] | None = None
    """Index of the spot in the layer, 0-based, in the order of delivery."""
    fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Of the spot's ions by truth; 0 is its first ion, 1 its last."""
    move: bool = False
    """In the middle of the move after that spot instead of in it."""
    phase: str | None = None
    """The ring enters this phase (`facility.states.RingPhase`) for the layer."""
    state: str | None = None
    """Control enters this state (`control.layer_machine.State`) in the layer."""
    beam_ms: NonNegative | None = None
    """So long after the first beam of the layer."""
    after_ms: float = 0.0
    """Added to what the others say."""


Deed = Literal[
    # the operator at the console, to treatment control
    "load", "prepare", "start", "pause", "resume", "stop", "close",
    # the operator or the physicist, to the safety controller
    "reset", "resolve", "abandon", "close-field", "bypass", "unbypass", "prove",
    # whoever is in the room
    "search", "open-door", "close-door", "press-estop", "release-estop", "turn-key",
    # the rig
    "mend", "well", "wait", "await", "go-on", "recover", "ended",
]  # fmt: skip


class Act(Section):
    """Something that happens: a fault of the catalogue (`fault`), or what somebody does (`do`)."""

    fault: str | None = None
    """Name in the catalogue (`ionctl fault list`): `ic2.gain/dead`, `link/to-rack/drop`, `process/safety/hang` ..."""
    value: float | None = None
    """Of the fault, in its unit, or of the deed (ms of `wait`, s of `bypass`, position of `turn-key`); None: the
    catalogue's."""
    for_ms: Positive | None = None
    """A fault is gone after so long; None: until it is mended."""
    times: Annotated[int, Field(ge=1, le=5000)] = 1
    """So often, one after the other."""
    every_ms: NonNegative = 0.0
    """Pause between two."""
    do: Deed | None = None
    role: Literal["operator", "physicist", "control"] = "operator"
    """Who asks, for `reset`, `bypass` and their like."""
    rule: RuleId | None = None
    """Of `bypass` and `unbypass`."""
    test: str | None = None
    """`prove`: this proof test; None: those that are due."""
    state: str | None = None
    """`await`: until control is in this state."""
    within_ms: Positive = 30_000.0
    """Longest time that `await`, `well` and `ended` wait, facility time."""
    refused: str | None = None
    """The deed has to be refused, with this code; `*` takes any."""
    after_ms: NonNegative = 0.0
    """Pause before it: after the moment for acts, after the step before for steps."""


class Expect(Section):
    """What has to come of it. What is not given follows from the rule in `first`."""

    first: RuleId | Literal[""]
    """The rule that trips first; empty: none may trip."""
    also: tuple[RuleId, ...] = ()
    """Others that the same cause may trip."""
    besides: tuple[RuleId, ...] = ()
    """Others that the same cause has to trip, too."""
    trips: tuple[RuleId, ...] = ()
    """Rules that have to trip at some time until the end: what the steps bring about."""
    any_order: bool = False
    """Any of `first`, `also` and `besides` may be the first: frames and scans decide."""
    builds_up_ms: NonNegative = 0.0
    """Longest time from the cause until it shows at all; comes on top of the rule's bound."""
    off_within_ms: Positive | None = None
    """From the first act to beam off by truth; None: the rule's published bound and `builds_up_ms`."""
    surplus_within_ions: NonNegative | None = None
    """Ions after the first act until beam off; None: what the layer's level can bring in that time, with overshoot and
    noise."""
    rate_factor: Positive = 1.0
    """How many times the planned rate the fault itself makes."""
    state: str | None = None
    """Control's state once it has settled; None: INTERRUPTED after a PAUSE, TERMINATED after an ABORT, HELD after a
    HOLD, by the strongest of `first` and `besides`."""
    latched: bool | None = None
    """None: whether the rule latches."""
    reset: Literal["operator", "physicist", "none"] | None = None
    """Whose reset lets go, if the steps recover; None: as the rule says."""
    end: str | None = None
    """Control's state at the very end; None: COMPLETED where a step is `recover` or `ended`, else not asked."""
    spots_beyond: Annotated[int, Field(ge=0)] = 0
    """At most so many spots out of tolerance by truth at the end, if it ends COMPLETED."""
    overdosed: Annotated[int, Field(ge=0)] | None = None
    """At most so many spots above their tolerance by truth, however it ends; None: not asked."""
    worst_pct: NonNegative | None = None
    """Largest error of a spot at the end, % of the layer's heaviest; None: not asked beyond the tolerance."""
    beam_needed: bool = True
    """There has to be beam before the first act, or the scenario shows nothing."""


Begin = Literal["up", "reset", "loaded", "ready", "started"]


class Scenario(Section):
    """One scenario. `hazard` is given where no rule says it."""

    id: ScenarioId
    title: Text
    rules: tuple[RuleId, ...] = ()
    """Rules that it exercises: markers, and the hazards in the table of traceability."""
    recovery: Name | None = None
    """The recovery path that it exercises, if that is what it is about."""
    hazard: str = ""
    facility: Text = "wuwei"
    """Name or path of a facility file."""
    room: str | None = None
    species: str | None = None
    mode: Literal["clinical", "qa", "service"] = "qa"
    seed: Annotated[int, Field(ge=0)] = 1
    plan: PlanSource = PlanSource(make="trial")
    gating: bool = False
    """The motion gate is in use, and open."""
    begin: Begin = "started"
    """How far the operator goes before the first act."""
    at: Moment = Moment()
    before: tuple[Act, ...] = ()
    """What is done at the moment, to come to where the first act begins: a pause, a gate that closes."""
    acts: Annotated[tuple[Act, ...], Field(min_length=1)]
    """What happens, in order. The first one is the cause that times and ions are counted from."""
    then: tuple[Act, ...] = ()
    """What follows, once the beam is off and control has settled."""
    expect: Expect
    targets: Annotated[tuple[TargetName, ...], Field(min_length=1)] = ("virtual",)
    not_on: Annotated[dict[TargetName, Text], Field(default_factory=dict)]
    """For every other target, why not."""
    tier: Literal["smoke", "full"] = "full"
    """`smoke`: among the few that every commit runs."""

    def why_not(self, target: Target) -> str:
        """Why it does not run on a target; empty if it does."""
        return "" if target.value in self.targets else self.not_on.get(target.value, "")
