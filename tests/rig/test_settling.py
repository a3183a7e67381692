"""The collector of garbage: never by itself over what is old, and over that only where nobody waits."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from rig import settling


class _Circle:
    """Refers to itself: only the collector can let go of it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def settled() -> Iterator[list[int]]:
    """A settled process; the generations that were collected since, oldest included. As it was afterwards."""
    threshold, collected = gc.get_threshold(), list[int]()

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            collected.append(info["generation"])

    settling.settle(tidied=True)
    gc.callbacks.append(note)
    try:
        yield collected
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*threshold)
        gc.unfreeze()
        gc.collect()


def _grown_old() -> tuple[list[_Circle], weakref.ref[_Circle]]:
    """Objects until there is something to tidy up, and a circle that nobody needs among the old ones."""
    lost = _Circle()
    kept, ref = [], weakref.ref(lost)
    while gc.get_count()[2] < settling.DUE:
        kept.append(_Circle())
    del lost
    return kept, ref


def test_what_is_old_is_not_walked_over_by_itself(settled: list[int]) -> None:
    kept = [_Circle() for _ in range(300_000)]  # Python would have walked over them at a quarter of what there was
    assert kept
    assert 1 in settled, "what is new is collected"
    assert 2 not in settled


def test_garbage_that_has_grown_old_goes_where_nobody_waits(settled: list[int]) -> None:
    kept, lost = _grown_old()
    assert settling.tidy(idle=False) is None
    assert lost() is not None, "somebody waits"
    assert settling.tidy(idle=True) == pytest.approx(len(kept), abs=20_000)
    assert lost() is None
    assert settled[-1] == 2
    assert settling.tidy(idle=True) is None, "it has just been done"


def test_of_very_much_that_is_old_nothing_is_walked_over(settled: list[int]) -> None:
    kept, lost = _grown_old()
    assert settling.tidy(idle=True, most_walked=1000) is not None
    assert lost() is not None, "it stays"
    one = weakref.ref(kept[0])
    kept[0].me = kept[1]
    del kept[0]
    assert one() is None, "what is in no circle goes all the same"
    assert gc.get_freeze_count() > len(kept)
