"""Writes what the safety controller has kept of a trip, in its own process, on a thread of its own.

Its priority is that of the process, as that of `rig.paced_post_mortem`: it must not be kept off the processor while it
holds the interpreter's lock, which the scans need.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from interlocks.rules import RuleSet
from rig.paced_post_mortem import END_S, put_file
from rig.post_mortem import PostMortem
from rig.run_dir import POST_MORTEM
from rig.safety_scans import FrozenScans
from rig.safety_scans_file import NOMINAL_TIME, write_scans

_log = structlog.get_logger(__name__)


class PacedScans(threading.Thread):
    """Writes the files of one run.

    Args:
        folder: of the run; the files go into `post-mortem` below it.
        about, rules: see `rig.safety_scans_file.write_scans`.
        made: called on this thread for each file that has been written.
    """

    def __init__(
        self, folder: Path, about: Mapping[str, Any], rules: RuleSet, made: Callable[[PostMortem], None]
    ) -> None:
        super().__init__(name="scans", daemon=True)
        self._folder = folder / POST_MORTEM
        self._about = about
        self._rules = rules
        self._made = made
        self._frozen: queue.SimpleQueue[FrozenScans | None] = queue.SimpleQueue()

    def write(self, frozen: FrozenScans) -> None:
        """Write it soon.  From any thread."""
        self._frozen.put(frozen)

    def stop(self) -> None:
        """Write what is left, and end."""
        self._frozen.put(None)
        if self.is_alive():
            self.join(END_S)

    def run(self) -> None:
        """Until `stop`."""
        while (frozen := self._frozen.get()) is not None:
            try:
                made = write_scans(frozen, self._about, self._rules, NOMINAL_TIME)
                put_file(self._folder, made)
                self._made(made)
            except Exception as problem:  # noqa: BLE001 - the next trip gets its file, and the scans must go on
                _log.error("no safety scans", number=frozen.number, problem=f"{type(problem).__name__}: {problem}")
