"""Keeps Python's collector of garbage from standing in the way of what has to be in time.

A walk over all that a process has made takes 100 ms and more, holds the interpreter's lock all the while, and comes
when it likes: as soon as a quarter more has been made, of subscriptions of a client for example.  So what was made at
the start is never walked over again (`settle`), what is new is, often and briefly, and what has grown old in between
only where nobody waits (`tidy`).
"""

from __future__ import annotations

import gc

NEVER = 1 << 30
"""Collections of the middle generation until Python walks over the old one by itself."""
DUE = 5
"""Collections of the middle generation until there is something to tidy up: some 40,000 objects more."""
MOST_WALKED = 60_000
"""Old objects that are walked over: some 10 ms, thrice that beside other work. The watchdog of the link is 100 ms."""


def settle(*, tidied: bool = False) -> None:
    """What has been made by now stays; with `tidied` what grows old from now on waits for `tidy`."""
    gc.collect()
    gc.freeze()
    if tidied:
        young, middle, _ = gc.get_threshold()
        gc.set_threshold(young, middle, NEVER)


def tidy(*, idle: bool, most_walked: int = MOST_WALKED) -> int | None:
    """Collect what has grown old, if it is time for it; call it every now and then.

    Args:
        idle: nobody waits: there is no permit.
        most_walked: of more old objects nothing is collected; they stay, as what was made at the start. What refers to
            nothing that refers back to it goes all the same once nobody needs it; only circles of them stay for good.

    Returns how many old objects there were; None if it was not time.
    """
    if not idle or gc.get_count()[2] < DUE:
        return None
    old = len(gc.get_objects(generation=2))
    if old > most_walked:
        gc.freeze()
    gc.collect()
    return old
