"""The truth of a plant that is dead: its last table per spot, and the ticks that it wrote after it.

A plant writes its table every quarter of a second and the ticks as they pass, into mapped memory that a kill leaves
whole. A tick's ions belong to the spot that was set, but for those that crossed before the set point moved there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facility.errors import ChannelError
from ioc_sim.layout import T_IONS
from rig.truth_file import SPOTS_FILE, TRACE_FILE, SpotIons, read_now, read_ring, read_spots


def dead_truth(folder: Path) -> SpotIons:
    """Ions by spot, (n,), by layer token, of the plant that ran in this folder; empty if none ever did."""
    if not (folder / TRACE_FILE).exists():
        return {}
    try:
        written, table = read_spots(folder)
    except ChannelError:
        return booked({}, _ticks(folder, -1), 0)
    known = {token: rows[:, T_IONS].copy() for token, rows in table.items()}
    return booked(known, _ticks(folder, written.t_ns), written.t_ns)


def forget(folder: Path) -> None:
    """The next plant of this folder begins at nothing."""
    for name in (SPOTS_FILE, TRACE_FILE):
        (folder / name).unlink(missing_ok=True)


def _ticks(folder: Path, after_ns: int) -> npt.NDArray[Any]:
    """Ticks in order from the last one up to `after_ns` on: those that the header knows and those that came later."""
    ring, count = read_ring(folder), read_now(folder).count
    order = np.roll(ring, -(count % len(ring))) if count >= len(ring) else ring
    last = min(count, len(ring))
    later = order[last:] if count < len(ring) else order[:0]
    ended = int(order[last - 1]["t_ns"]) if last else 0
    rising = np.flatnonzero(np.diff(later["t_ns"], prepend=ended) <= 0)
    ticks = np.concatenate([order[:last], later[: int(rising[0]) if len(rising) else len(later)]])
    first = int(np.searchsorted(ticks["t_ns"], after_ns, side="right"))
    return ticks[max(first - 1, 0) :]


def booked(known: SpotIons, ticks: npt.NDArray[Any], after_ns: int) -> SpotIons:
    """`known` and the ions of the ticks later than `after_ns`; the tick before them says which spot had been set."""
    found = {token: ions.copy() for token, ions in known.items()}
    spot, token = ticks["spot"].astype(np.int64), ticks["token"].astype(np.int64)
    ions, before = ticks["ions"].astype(np.float64), ticks["ions_previous_spot"].astype(np.float64)
    was = np.concatenate((spot[:1], spot[:-1]))
    same = (np.concatenate((token[:1], token[:-1])) == token) & (was >= 0)
    was = np.where(same, was, spot)
    new = (ticks["t_ns"] > after_ns) & (ions > 0.0)
    for one in np.unique(token[new]):
        mine = new & (token == one)
        for where, came in ((was[mine], before[mine]), (spot[mine], (ions - before)[mine])):
            _add(found, int(one), where[where >= 0], came[where >= 0])
    return found


def _add(found: SpotIons, token: int, spot: npt.NDArray[np.int64], ions: npt.NDArray[np.float64]) -> None:
    if not len(spot):
        return
    held = found.get(token, np.zeros(0))
    size = max(len(held), int(spot.max()) + 1)
    found[token] = np.pad(held, (0, size - len(held))) + np.bincount(spot, weights=ions, minlength=size)


def summed(one: SpotIons, other: SpotIons, sign: float = 1.0) -> SpotIons:
    """Spot by spot; a table that is shorter lacks the spots that nothing came to."""
    found = {token: ions.copy() for token, ions in one.items()}
    for token, ions in other.items():
        held = found.get(token, np.zeros(0))
        size = max(len(held), len(ions))
        found[token] = np.pad(held, (0, size - len(held))) + sign * np.pad(ions, (0, size - len(ions)))
    return found
