"""The dose register: what the front end knows it has delivered, in memory that outlives the process that wrote it.

At the end of every tick with beam, and of every millisecond without, the front end commits: one record into one of two
slots, in turn, each with a sequence number and a checksum of its own.  Whatever instruction the process dies at, the
slot it was not writing is whole, and at most one tick older.  A spot that is finished or cut gets a row, written before
the record that goes beyond it.  Rows of the present load and of the one before lie in two banks.

All words are int64: charge in thousandths of an ion, lengths in nm, times in ns or ticks; no rounding of a reader's can
change what was written, and the same words are summed in every language.  UNKNOWN stands for what is no number.

The checksum is a sum of words, each folded and multiplied by an odd number of its own: one changed word is always
found, a mixture of two records with the odds of a random 63-bit number; multiplications do not wait for each other, so
that it costs a few ns where a CRC would cost as much as the tick.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from facility.jit import Record, kernel
from ioc_sim import layout as at
from ioc_sim.codes import ABORTED, ARMED, HELD, PAUSED
from ioc_sim.spot_book import R_BEAM_US, R_DONE, R_END, R_IC1, R_IC2, R_X, R_Y

# words of a slot; STATE is the front end's state, and FIELD_BITS up the number of the field that is open
(SEQ, T_NS, LOAD, STATE, SPOT, FIELD_IONS, IC1, IC2, COUNTS1, COUNTS2, BACKUP, TIMER_US, BEAM_TICKS, UNCERTAIN, LEASE,
 CHECK) = range(16)  # fmt: skip
# words of a row: ROW_LOAD is twice the load's number, plus 1 where the spot is done
ROW_LOAD, ROW_IC1, ROW_IC2, ROW_X_NM, ROW_Y_NM, ROW_BEAM_TICKS, ROW_END_NS, ROW_CHECK = range(8)
ROW_WORDS = 8
UNKNOWN = -(1 << 62)
FIELD_BITS = 8
NO_LEASE = -1
_LARGEST = 1e15
_FOLD = np.uint64(32)
_ONE = np.uint64(1)
_ODD = np.array(
    [0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD1B54A32D192ED03, 0xC2B2AE3D27D4EB4F,
     0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53,
     0x2545F4914F6CDD1D, 0x9FB21C651E98DF25, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB],
    dtype=np.uint64,
)  # fmt: skip


@kernel
def checksum(words: np.ndarray, k: int, n: int) -> int:
    """63 bits over the first ``n`` words (15 at most) of row ``k`` of ``words``, int64."""
    total = np.uint64(0)
    for i in range(n):
        word = np.uint64(words[k, i])
        total += (word ^ (word >> _FOLD)) * _ODD[i]
    return int(total >> _ONE)


@kernel
def thousandths(value: float) -> int:
    """A whole number of thousandths; UNKNOWN for what is no number."""
    return math.floor(value * 1000.0 + 0.5) if abs(value) < _LARGEST else UNKNOWN


def thousandths_read(words: NDArray[np.int64]) -> NDArray[np.float64]:
    """What `thousandths` has written; NaN for UNKNOWN."""
    return np.where(words == UNKNOWN, np.nan, words * 1e-3)


@kernel
def whole(value: float) -> int:
    """A whole number; UNKNOWN for what is no number."""
    return math.floor(value) if abs(value) < _LARGEST else UNKNOWN


@kernel
def uncertain_ions(p: Record, s: Record, v: np.ndarray) -> float:
    """Ions that can have crossed and are not in this commit, if the process dies now and the beam with it.

    Intensity x (2 ticks + t_off) plus late charge: a tick that was not committed, one that was under way, what comes
    until the beam is off, and charge that the chamber still holds.  The part of a charge that is still to come is at
    most half of the drift over its time, so RAMP x ticks / 2 x LATE_SHARE bounds it.  Zero where no beam can come.
    """
    may_flow = ARMED <= s.fe_state <= HELD or (
        (s.fe_state == PAUSED or s.fe_state == ABORTED) and s.stop_ticks < p.quiet_ticks
    )
    if not may_flow and s.missed_ticks == 0:
        return 0.0
    rate = max(s.level, s.rate_meas)
    late = v[at.EST_RAMP] * v[at.EST_DRIFT] * 0.5 * v[at.EST_LATE_SHARE]
    return rate * (2e-5 + p.stop_us * 1e-6) + max(late, 0.0)


@kernel
def write_row(s: Record, reg: np.ndarray, rows: np.ndarray, i: int) -> None:
    """The row of spot ``i`` from the register."""
    rows[i, ROW_LOAD] = 2 * s.load_seq + (1 if reg[i, R_DONE] > 0.5 else 0)
    rows[i, ROW_IC1] = thousandths(reg[i, R_IC1])
    rows[i, ROW_IC2] = thousandths(reg[i, R_IC2])
    rows[i, ROW_X_NM] = thousandths(reg[i, R_X] * 1000.0)
    rows[i, ROW_Y_NM] = thousandths(reg[i, R_Y] * 1000.0)
    rows[i, ROW_BEAM_TICKS] = math.floor(reg[i, R_BEAM_US] * 0.1 + 0.5)
    rows[i, ROW_END_NS] = math.floor(reg[i, R_END])
    rows[i, ROW_CHECK] = checksum(rows, i, ROW_CHECK)


@kernel
def commit(p: Record, s: Record, v: np.ndarray, reg: np.ndarray, slots: np.ndarray, rows: np.ndarray) -> None:
    """Write down where the delivery stands; nothing before the first layer is loaded.

    ``slots`` int64 (2, more than CHECK), ``rows`` int64 (n, ROW_WORDS) of the present load.
    """
    if s.load_seq == 0:
        return
    if s.book_from >= 0:
        for i in range(s.book_from, s.book_to + 1):
            write_row(s, reg, rows, i)
        s.book_from = -1
    ions1 = v[at.EST_UNREAD]  # counted while the front end hung
    ions2 = v[at.EST_UNREAD + 1]
    if ARMED <= s.fe_state <= PAUSED:
        ions1 += v[at.EST_IONS] - v[at.SPOT_CUM0]
        ions2 += v[at.EST_IONS + 1] - v[at.SPOT_CUM0 + 1]
    elif s.fe_state == ABORTED and s.spot >= 0:  # all of the spot that was cut: its row may reach a disk later
        ions1 += reg[s.spot, R_IC1]
        ions2 += reg[s.spot, R_IC2]
    s.register_seq += 1
    k = s.register_seq & 1
    slots[k, SEQ] = s.register_seq
    slots[k, T_NS] = s.t_ns
    slots[k, LOAD] = s.load_seq
    slots[k, STATE] = s.field << FIELD_BITS | s.fe_state
    slots[k, SPOT] = s.spot
    slots[k, FIELD_IONS] = thousandths(v[at.FIELD_IONS])
    slots[k, IC1] = thousandths(ions1)
    slots[k, IC2] = thousandths(ions2)
    slots[k, COUNTS1] = whole(v[at.IC_READ])
    slots[k, COUNTS2] = whole(v[at.IC_READ + 1])
    slots[k, BACKUP] = whole(v[at.BACKUP_COUNTS])
    slots[k, TIMER_US] = thousandths(v[at.FIELD_TIMER_MS])
    slots[k, BEAM_TICKS] = s.layer_beam_ticks
    slots[k, UNCERTAIN] = thousandths(uncertain_ions(p, s, v))
    left = v[at.LEASE_NEXT_IONS] - v[at.EST_IONS]
    slots[k, LEASE] = thousandths(left) if left < _LARGEST else NO_LEASE
    slots[k, CHECK] = checksum(slots, k, CHECK)
