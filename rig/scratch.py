"""A folder for a virtual facility while it lives; of one that was killed the next one clears away what is left.

Whoever made the folder holds a lock in it, which the kernel lets go of when the process dies, however it dies.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from facility.errors import ChannelError, CommandRefused
from rig.run_dir import Lock, is_alive

PREFIX = ".run-"
_NEW, _LOCK = ".new-", "virtual"


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A new folder below `parent`, gone afterwards with all that nobody has put elsewhere."""
    for left in parent.glob(f"{PREFIX}*"):
        if not is_alive(left, _LOCK):
            shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=_NEW, dir=parent))
    lock = Lock(new, _LOCK)  # before it has the name by which others look for what is left
    folder = new.rename(new.with_name(new.name.replace(_NEW, PREFIX)))
    try:
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Nobody else writes into the folder of virtual session `name` meanwhile; CommandRefused 'recovery.busy' where
    somebody does."""
    try:
        lock = Lock(folder, "resume")
    except ChannelError as problem:
        raise CommandRefused("recovery.busy", "another process goes on with it", name, "wait for its end") from problem
    try:
        yield
    finally:
        lock.release()
