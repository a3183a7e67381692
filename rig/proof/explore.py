"""Breadth-first search over all reachable states of a scene, with properties and shortest counterexamples.

A scene is a set of initial states and a function that gives the labelled steps out of a state.  Labels are unique
among the steps of one state, so that a list of labels is a run that can be played again.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from facility.errors import IonctlError

MAX_STATES = 3_000_000
"""A scene with more states is refused: it would not end."""
_MAX_PATH = 10_000
State = Any
"""A hashable value."""


@dataclass(frozen=True)
class Always:
    """Holds in every reachable state."""

    name: str
    holds: Callable[[State], bool]


@dataclass(frozen=True)
class Step:
    """Holds for every reachable step: (state, label, next state)."""

    name: str
    holds: Callable[[State, str, State], bool]


@dataclass(frozen=True)
class Recurs:
    """From every reachable state a state can be reached in which this holds: no dead end."""

    name: str
    holds: Callable[[State], bool]


@dataclass(frozen=True)
class Occurs:
    """Some reachable step does it: what is proven is about something that happens."""

    name: str
    holds: Callable[[State, str, State], bool]


Property = Always | Step | Recurs | Occurs


class Scene(Protocol):
    """What is explored."""

    @property
    def name(self) -> str: ...

    @property
    def words(self) -> str:
        """What the scene is about, one sentence."""
        ...

    @property
    def properties(self) -> Sequence[Property]: ...

    def initial(self) -> Iterable[tuple[str, State]]:
        """Initial states with labels."""
        ...

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Labelled steps."""
        ...

    def describe(self, state: State) -> str:
        """A state in words, one line."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What became of a property."""

    name: str
    holds: bool
    run: tuple[str, ...] = ()
    """Labels of a shortest run that breaks it, or, for `Occurs`, of one that shows it."""


@dataclass(frozen=True)
class Found:
    """A scene explored."""

    scene: str
    words: str
    states: int
    transitions: int
    verdicts: tuple[Verdict, ...]

    @property
    def holds(self) -> bool:
        """Every property holds."""
        return all(verdict.holds for verdict in self.verdicts)


@dataclass
class _Graph:
    """Reachable states in the order found, how each was reached, and the steps for walking backwards."""

    states: list[State] = field(default_factory=list)
    parents: array[int] = field(default_factory=lambda: array("l"))
    labels: list[str] = field(default_factory=list)
    sources: array[int] = field(default_factory=lambda: array("l"))
    targets: array[int] = field(default_factory=lambda: array("l"))

    def run_to(self, place: int, last: str = "") -> tuple[str, ...]:
        """Labels of the run to a state, and one more."""
        run = [last] if last else []
        while place >= 0:
            run.append(self.labels[place])
            place = self.parents[place]
        return tuple(reversed(run))


def explore(scene: Scene, only: str = "") -> Found:
    """Explore a scene to the end and judge its properties; with `only`, that one, no further than its break."""
    wanted = [one for one in scene.properties if only in ("", one.name)]
    always = [one for one in wanted if isinstance(one, Always)]
    on_step = [one for one in wanted if isinstance(one, Step)]
    occurring = [one for one in wanted if isinstance(one, Occurs)]
    recurring = [one for one in wanted if isinstance(one, Recurs)]
    broken: dict[str, tuple[str, ...]] = {}
    shown: dict[str, tuple[str, ...]] = {}
    graph = _Graph()
    index: dict[State, int] = {}
    keep_edges = bool(recurring)

    def reach(state: State, parent: int, label: str) -> int:
        place = index.get(state)
        if place is None:
            place = index[state] = len(graph.states)
            graph.states.append(state)
            graph.parents.append(parent)
            graph.labels.append(label)
            for one in always:
                if one.name not in broken and not one.holds(state):
                    broken[one.name] = graph.run_to(place)
        return int(place)

    for label, state in scene.initial():
        reach(state, -1, label)
    transitions = place = 0
    while place < len(graph.states) and not (only and broken):
        if place > MAX_STATES:
            raise IonctlError("proof.too-many", f"more than {MAX_STATES} states", scene.name, "make the scene smaller")
        state = graph.states[place]
        for label, after in scene.steps(state):
            transitions += 1
            for one in on_step:
                if one.name not in broken and not one.holds(state, label, after):
                    broken[one.name] = graph.run_to(place, label)
            for sight in occurring:
                if sight.name not in shown and sight.holds(state, label, after):
                    shown[sight.name] = graph.run_to(place, label)
            target = reach(after, place, label)
            if keep_edges:
                graph.sources.append(place)
                graph.targets.append(target)
        place += 1
    for goal in recurring:
        lost = _first_lost(graph, goal)
        if lost >= 0:
            broken[goal.name] = graph.run_to(lost)
    return Found(
        scene.name, scene.words, len(graph.states), transitions, tuple(_verdict(one, broken, shown) for one in wanted)
    )


def _verdict(one: Property, broken: dict[str, tuple[str, ...]], shown: dict[str, tuple[str, ...]]) -> Verdict:
    if isinstance(one, Occurs):
        return Verdict(one.name, one.name in shown, shown.get(one.name, ()))
    return Verdict(one.name, one.name not in broken, broken.get(one.name, ()))


def _first_lost(graph: _Graph, goal: Recurs) -> int:
    """The first state from which the goal cannot be reached; -1 if there is none."""
    before: list[list[int]] = [[] for _ in graph.states]
    for source, target in zip(graph.sources, graph.targets, strict=True):
        before[target].append(source)
    good = bytearray(len(graph.states))
    queue = [place for place, state in enumerate(graph.states) if goal.holds(state)]
    for place in queue:
        good[place] = 1
    while queue:
        for source in before[queue.pop()]:
            if not good[source]:
                good[source] = 1
                queue.append(source)
    return good.find(0)


def replay(scene: Scene, run: Sequence[str]) -> Iterator[tuple[str, State]]:
    """Play a run again; IonctlError names the step that is not possible (any more)."""
    state: State = None
    if len(run) > _MAX_PATH:
        raise IonctlError("proof.replay", f"{len(run)} steps", scene.name, f"at most {_MAX_PATH}")
    for number, label in enumerate(run):
        choices = dict(scene.initial() if number == 0 else scene.steps(state))
        if label not in choices:
            known = ", ".join(sorted(choices))[:300]
            raise IonctlError(
                "proof.replay", f"step {number}, {label!r}, is not possible", scene.name, f"possible: {known}"
            )
        state = choices[label]
        yield label, state
