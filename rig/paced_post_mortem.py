"""Post-mortems of a plant in step with the wall clock, on a thread of its own.

It waits until the window has passed, holds the plant still for as long as copying its state takes, and does the rest
with the compiled code and the file writer running without the interpreter's lock. Its priority is that of the process:
a thread of a lower one that holds that lock and is kept off the processor holds up the safety link with it (170 ms were
seen beside two starting consoles, and the watchdog of 100 ms took the beam).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from facility.events import Event
from interlocks.rules import RuleSet
from ioc_sim.plant import Plant
from rig.post_mortem import Freezer, Frozen, PostMortem, Writers
from rig.run_dir import POST_MORTEM
from rig.shared_plant import SharedPlant

_log = structlog.get_logger(__name__)
_LOOK_S = 0.01
END_S = 10.0


class PacedPostMortems(threading.Thread):
    """Writes the files of one run.

    Args:
        plant: gets a run log; before time runs.
        folder: of the run; the files go into `post-mortem` below it.
        make_twin, about, rules: see `rig.post_mortem.Writers`.
        made: called on this thread for each file that has been written.
    """

    def __init__(
        self, plant: SharedPlant, folder: Path, make_twin: Callable[[int], Plant], about: Mapping[str, Any],
        rules: RuleSet, made: Callable[[PostMortem], None],
    ) -> None:  # fmt: skip
        super().__init__(name="post-mortem", daemon=True)
        self._plant = plant
        self._folder = folder / POST_MORTEM
        self._made = made
        self._freezer = Freezer(plant)
        self._writers = Writers(make_twin, about, rules)
        self._writers.warm_up()
        self._tripped = threading.Event()
        self._stopping = threading.Event()

    def trip(self, event: Event) -> None:
        """A trip has been logged; from any thread."""
        with self._plant.lock:
            self._freezer.trip(event)
        self._tripped.set()

    def stop(self) -> None:
        """Freeze what is open, write it, and end."""
        self._stopping.set()
        self._tripped.set()
        if self.is_alive():
            self.join(END_S)

    def run(self) -> None:
        """Until `stop`."""
        while True:
            self._tripped.wait()
            self._tripped.clear()
            frozen = self._wait_and_cut()
            if frozen is not None:
                self._write(frozen)
            if self._stopping.is_set():
                return

    def _wait_and_cut(self) -> Frozen | None:
        """The past, once the plant has passed the window or is stopped."""
        while True:
            with self._plant.lock:
                due_ns = self._freezer.due_ns
                if due_ns is None or self._plant.t_ns >= due_ns or self._stopping.is_set():
                    return self._freezer.cut()
            self._stopping.wait(_LOOK_S)

    def _write(self, frozen: Frozen) -> None:
        try:
            made = self._writers.write(frozen)
            put_file(self._folder, made)
            self._made(made)
        except Exception as problem:  # noqa: BLE001 - the next trip gets its file, and the plant must go on
            _log.error("no post-mortem", number=frozen.number, problem=f"{type(problem).__name__}: {problem}")


def put_file(folder: Path, made: PostMortem) -> None:
    """Write a file into a folder, which is made; whole, or not at all."""
    folder.mkdir(mode=0o700, exist_ok=True)
    new = folder / f".{made.name}"
    new.write_bytes(made.data)
    new.replace(folder / made.name)
