"""A post-mortem's steps as samples 10 us apart: between two steps all stands as the last one left it.

Where no beam is possible the plant steps by 1 ms. Nothing of it changes in between, so that its state each 10 us is
that of the last step: written out, every trip has the same samples whatever the plant was doing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from facility.constants import TICK_NS
from facility.errors import InternalError
from ioc_sim.rerun import BLOCK_ROWS, Block, Rerun


def every_tick(run: Rerun, from_ns: int, to_ns: int) -> Iterator[Block]:
    """Run again; samples at every 10 us after ``from_ns`` up to ``to_ns``, BLOCK_ROWS at most at a time.

    They begin where the past begins, if that is later; the last step is held up to the end.  InternalError if a step is
    not of whole ticks.
    """
    last: Block | None = None
    for block in run.blocks():
        last = last or run.before or block
        whole = Block(np.concatenate([last.rows, block.rows]), np.concatenate([last.signals, block.signals]))
        yield from _filled(whole, from_ns)
        last = Block(block.rows[-1:], block.signals[-1:])
    last = last or run.before
    if last is not None:
        yield from _tail(last, from_ns, to_ns)


def _filled(block: Block, from_ns: int) -> Iterator[Block]:
    """The samples after the block's first row, up to and with its last."""
    t_ns = block.rows["t_ns"]
    gaps, odd = np.divmod(np.diff(t_ns), TICK_NS)
    if odd.any() or (gaps < 1).any():
        raise InternalError("post-mortem.step", f"steps of {sorted(set(np.diff(t_ns)))[:3]} ns", "rig.every_tick")
    source = np.repeat(np.arange(len(gaps)), gaps)
    steps = np.cumsum(gaps) - 1
    source[steps] += 1
    yield from _samples(block, source, np.isin(np.arange(len(source)), steps), int(t_ns[0]), from_ns)


def _tail(last: Block, from_ns: int, to_ns: int) -> Iterator[Block]:
    """The last step, held to the end."""
    begin_ns = int(last.rows["t_ns"][0])
    source = np.zeros(max(0, (to_ns - begin_ns) // TICK_NS), np.int64)
    yield from _samples(last, source, np.zeros(len(source), np.bool_), begin_ns, from_ns)


def _samples(block: Block, source: np.ndarray, is_step: np.ndarray, begin_ns: int, from_ns: int) -> Iterator[Block]:
    """Rows ``source`` of a block, 10 us apart after ``begin_ns``; what came within a step is counted in it alone."""
    first = max(0, (from_ns - begin_ns) // TICK_NS)
    for begin in range(first, len(source), BLOCK_ROWS):
        part = slice(begin, min(begin + BLOCK_ROWS, len(source)))
        rows = block.rows[source[part]]
        rows["t_ns"] = begin_ns + TICK_NS * np.arange(part.start + 1, part.stop + 1)
        rows["truth_ions"][~is_step[part]] = 0
        yield Block(rows, block.signals[source[part]])
