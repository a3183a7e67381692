"""The past of a plant, run again: exact, with every signal of every tick, at no cost while the beam is on.

A plant is a function of its state and of what is done to it.  A plant with a `RunLog` copies its state once a second
and notes what is done to it in between; `rerun` lets a twin start from such a copy and do it all again, this time
writing down every step.  The twin has to end where the plant stood, bit for bit, or the recording says that it did not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from facility.errors import InternalError
from ioc_sim.layout import STATE_DTYPE
from ioc_sim.rerun_tick import ROW_DTYPE, STANDING, run_recorded

if TYPE_CHECKING:
    from ioc_sim.plant import Plant
    from ioc_sim.plant_core import PlantCore

SNAPSHOT_NS = 2_000_000_000
IDLE_SNAPSHOT_NS = 10_000_000_000
"""The same while no beam is possible: steps of 1 ms are run again in no time."""
BLOCK_ROWS = 20_000
"""Steps that are recorded in one piece."""
TWIN_TRACE = 1 << 18
MAX_DEEDS = 100_000
"""More than that between two snapshots is a defect: nothing may grow without bound."""


class Deed(NamedTuple):
    """Something done to the plant, after it had been run to ``run_to_ns``."""

    run_to_ns: int
    function: Any
    arguments: tuple[Any, ...]


class Snapshot(NamedTuple):
    """All that a plant is at a moment: copies of its arrays by name."""

    now_ns: int
    arrays: Mapping[str, np.ndarray]
    deeds: int
    """How many deeds had been noted: those are in the arrays already."""


class Cut(NamedTuple):
    """A stretch of the past: where it starts, what was done, where it ended."""

    start: Snapshot
    deeds: tuple[Deed, ...]
    end: Snapshot
    ring: np.ndarray
    """The truth ring itself, TRUTH_DTYPE; what the stretch wrote must still be there when it is run again."""


def own_arrays(plant: PlantCore) -> dict[str, np.ndarray]:
    """The arrays that make up a plant: not constants, not the truth ring, not second views of the same memory."""
    state = plant._state
    return {
        name: value
        for name, value in vars(plant).items()
        if isinstance(value, np.ndarray)
        and value.flags.writeable
        and name != "trace"
        and (value is state or not np.may_share_memory(value, state))
    }


class RunLog:
    """Snapshots of a plant and what was done to it, for as far back as a post-mortem looks.

    Args:
        reach_ns: how far back a cut must be able to begin.
    """

    def __init__(self, reach_ns: int) -> None:
        self._reach_ns = reach_ns
        self._snapshots: deque[Snapshot] = deque()
        self._deeds: deque[Deed] = deque()
        self._forgotten = 0
        self._lent: set[int] = set()
        self._spare: list[dict[str, np.ndarray]] = []
        self.due_ns = 0
        """When the next snapshot is due."""

    def take(self, plant: PlantCore) -> None:
        """Copy the plant's state; forget what no cut can need any more.  Puts it off while no beam is possible."""
        now_ns = plant._now_ns
        last_ns = self._snapshots[-1].now_ns if self._snapshots else -IDLE_SNAPSHOT_NS
        if not plant._plain["fine"][0] and now_ns - last_ns < IDLE_SNAPSHOT_NS:
            return
        self._snapshots.append(self._snapshot(plant))
        self.due_ns = now_ns + SNAPSHOT_NS
        while len(self._snapshots) > 1 and self._snapshots[1].now_ns <= now_ns - self._reach_ns:
            old = self._snapshots.popleft()
            if id(old) in self._lent:  # somebody is running it again
                self._lent.discard(id(old))
            else:
                self._spare.append(dict(old.arrays))
        while self._forgotten < self._snapshots[0].deeds:
            self._deeds.popleft()
            self._forgotten += 1

    def note(self, run_to_ns: int, function: Any, arguments: tuple[Any, ...]) -> None:
        """Something is about to be done to the plant."""
        if len(self._deeds) >= MAX_DEEDS:
            raise InternalError("plant.log", f"{MAX_DEEDS} deeds within {self._reach_ns * 1e-9:g} s", "RunLog")
        self._deeds.append(Deed(run_to_ns, function, arguments))

    def cut(self, plant: PlantCore, from_ns: int) -> Cut:
        """The past from a snapshot before ``from_ns``, or from the first one there is, until now."""
        if not self._snapshots:
            raise InternalError("plant.log", "no snapshot has been taken", "RunLog")
        before = [shot for shot in self._snapshots if shot.now_ns <= from_ns]
        start = before[-1] if before else self._snapshots[0]
        self._lent.add(id(start))
        deeds = tuple(self._deeds)[start.deeds - self._forgotten :]
        return Cut(start, deeds, self._snapshot(plant), plant.trace)

    def _snapshot(self, plant: PlantCore) -> Snapshot:
        spare = self._spare.pop() if self._spare else {}
        arrays = {name: _copied(array, spare.get(name)) for name, array in own_arrays(plant).items()}
        return Snapshot(plant._now_ns, arrays, self._forgotten + len(self._deeds))


def _copied(array: np.ndarray, into: np.ndarray | None) -> np.ndarray:
    """A copy, in memory that has been used before where it fits: fresh memory costs more than copying."""
    if into is None or into.shape != array.shape:
        return array.copy()
    into[...] = array
    return into


@dataclass
class Block:
    """Steps in order: ``rows`` of ROW_DTYPE, shape (n,), ``signals`` float64, shape (n, N_SIGNALS)."""

    rows: np.ndarray
    signals: np.ndarray


class Rerun:
    """One cut, run again.

    Args:
        twin: a plant of the same facility, room, species, seed and rules, with a truth ring of TWIN_TRACE; it is
            nobody else's.
        cut: what to run.
        from_ns: from where on to write down.
        to_ns: until where.
    """

    def __init__(self, twin: Plant, cut: Cut, from_ns: int, to_ns: int) -> None:
        self._twin = twin
        self._cut = cut
        self._from_ns = from_ns
        self._to_ns = to_ns
        self.differences: tuple[str, ...] = ("not run",)
        """Names of what the twin ended with otherwise than the plant did; empty if all is the same, bit for bit."""
        self.before: Block | None = None
        """How things stood before the first step that is written down: at ``from_ns`` or less than a step earlier, or,
        where the past begins later, as it begins.  One row; there with the first block."""

    def blocks(self) -> Iterator[Block]:
        """Run; the recorded steps, BLOCK_ROWS at most at a time."""
        twin, cut = self._twin, self._cut
        restore(twin, cut.start)
        rows, signals = np.zeros(BLOCK_ROWS, ROW_DTYPE), np.zeros((BLOCK_ROWS, len(twin.signals)))
        filled = 0
        for deed in (*cut.deeds, None):
            until_ns = cut.end.now_ns if deed is None else deed.run_to_ns
            _run_silent(twin, min(until_ns, self._from_ns))
            shown_ns = min(until_ns, self._to_ns)
            if self.before is None and until_ns >= self._from_ns:
                self.before = standing(twin)
            while twin.t_ns < shown_ns:
                filled = int(run_recorded(twin._arguments, twin._state[0], twin.signals, twin._latch, twin.trace,
                                          shown_ns, rows, signals, filled))  # fmt: skip
                if filled < len(rows):
                    break  # done, or the next step would end beyond
                yield Block(rows.copy(), signals.copy())
                filled = 0
            _run_silent(twin, until_ns)
            if deed is not None:
                _do(twin, deed)
        if filled:
            yield Block(rows[:filled].copy(), signals[:filled].copy())
        self.differences = tuple(differences(twin, cut))


def standing(twin: Plant) -> Block:
    """What is written down of a step, as it stands now; one row."""
    row, state = np.zeros(1, ROW_DTYPE), twin._state[0]
    for name, field in STANDING.items():
        row[name] = state[field]
    row["latched"], row["present"] = twin._latch[:2]
    return Block(row, twin.signals[np.newaxis].copy())


def restore(twin: Plant, shot: Snapshot) -> None:
    """Make the twin what the snapshot says."""
    own = own_arrays(twin)
    for name, array in shot.arrays.items():
        if own[name].shape == array.shape:
            own[name][...] = array
        else:
            setattr(twin, name, array.copy())
    twin._now_ns = shot.now_ns
    twin._pending.clear()
    twin._bind()


def _run_silent(twin: Plant, until_ns: int) -> None:
    """Run on without writing anything down."""
    while True:
        twin._step(until_ns)
        if not twin._state[0].events:
            return
        twin._state[0].events = 0


def _do(twin: Plant, deed: Deed) -> None:
    """Do to the twin what was done to the plant."""
    owner = getattr(deed.function, "__self__", None)
    function = deed.function if owner is None else getattr(twin, deed.function.__name__)
    function(*(_same_of(twin, argument) for argument in deed.arguments))
    twin._state[0].events = 0


def _same_of(twin: Plant, argument: Any) -> Any:
    """The twin's state where the argument is the plant's."""
    is_state = isinstance(argument, np.void) and argument.dtype.names == STATE_DTYPE.names
    return twin._state[0] if is_state else argument


def differences(twin: Plant, cut: Cut) -> Iterator[str]:
    """What the twin is otherwise than the plant was: names of arrays, and the truth."""
    own = own_arrays(twin)
    for name, array in cut.end.arrays.items():
        if own[name].shape != array.shape or own[name].tobytes() != array.tobytes():
            yield name.removeprefix("_")
    if not _same_truth(twin, cut):
        yield "truth"


def _same_truth(twin: Plant, cut: Cut) -> bool:
    """Whether both rings hold the same records of the stretch, as far back as either reaches."""
    first, last = (int(shot.arrays["_state"][0]["trace_count"]) for shot in (cut.start, cut.end))
    first = max(first, last - len(cut.ring), last - len(twin.trace))
    if twin.truth_count != last:
        return False
    there, here = (np.arange(first, last) & (len(ring) - 1) for ring in (cut.ring, twin.trace))
    return bool(cut.ring[there].tobytes() == twin.trace[here].tobytes())
