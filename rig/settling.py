"""Keeps Python's collector of garbage from standing in the way of what has to be in time."""

from __future__ import annotations

import gc


def settle() -> None:
    """What has been made by now stays: the collector walks over it no more.

    A walk over everything that a process has imported takes 100 to 400 ms, holds the interpreter's lock all the while,
    and comes when it likes.
    """
    gc.collect()
    gc.freeze()
