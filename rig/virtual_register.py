"""What the plant of a virtual delivery leaves: the words of its dose register, beside the journal that they belong to.

A virtual facility ends with its process. Whoever goes on with its session makes another one, which begins with these
words. They are believed with the very journal that they were left with: with any other one, nobody knows what the layer
under way has got, and all of it counts as delivered (`control.recovery`).
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import structlog

from facility.errors import ConfigError
from ioc_sim.plant import Plant
from ioc_sim.register_store import IMAGE_WORDS, MemoryStore
from journal.chain import Tip

_log = structlog.get_logger(__name__)
REGISTER_FILE = "dose.register.npz"


def leave_register(folder: Path, plant: Plant, tip: Tip | None) -> None:
    """Write the words down as they stand, with where the journal ends; None: nobody goes on, and none are left."""
    if tip is None:
        (folder / REGISTER_FILE).unlink(missing_ok=True)
        return
    plant.dose_records()  # brings them up to date
    new = folder / f"new.{REGISTER_FILE}"
    try:
        np.savez_compressed(new, words=plant.dose.store.words, journal=np.array(tip.hash))
        new.replace(folder / REGISTER_FILE)
    except OSError as problem:  # the journal is worth more: without them the layer under way counts whole
        for path in (new, folder / REGISTER_FILE):
            path.unlink(missing_ok=True)
        _log.error("the dose register cannot be written", problem=str(problem))


def left_register(folder: Path, tip: Tip) -> MemoryStore:
    """The register that belongs to a journal that ends there; an empty one if there is none. ConfigError for a file
    that is damaged."""
    path = folder / REGISTER_FILE
    if not path.exists():
        return MemoryStore()
    try:
        with np.load(path) as data:
            words, journal = np.array(data["words"]), str(data["journal"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as problem:
        raise _unreadable(path, str(problem)) from problem
    if words.shape != (IMAGE_WORDS,) or words.dtype != np.int64:
        raise _unreadable(path, f"{words.dtype} {words.shape}, wanted int64 ({IMAGE_WORDS},)")
    return MemoryStore(words) if journal == tip.hash else MemoryStore()


def _unreadable(path: Path, why: str) -> ConfigError:
    return ConfigError("register.unreadable", f"this is no dose register: {why}", str(path),
                       "move it away; then all of the layer that was under way counts as delivered")  # fmt: skip
