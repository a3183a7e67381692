"""The second line of monitors, each 1 ms: backup counter and timer, rate, strip charge, spot width, settling.

- Backup counter: a sealed chamber with a supply and a board of its own: gas, voltage, gain, quantum and register share
  nothing with the chambers.  Its late charge (at most 0.2 ms) is inside the millisecond it is read in.
- Backup timer: counts milliseconds with the spill commanded on its own clock; what is expected is made from the table.
- Both once more for the field, over all its layers: presets that control has computed from the plan, counters that only
  another field sets to zero, a clock of its own.  Without a field nothing is preset, and any beam is too much.
- Chamber 2 over the field, besides: it begins at what the backup counter says that the field has had.
- Ratios (strip charge over chamber 1, backup counter over chamber 2, rate over what the drive should give) are of sums
  that forget; a floor of a millisecond of the level and some counts keeps them at 1 where there is nothing to compare.
- Spot width: of the strip chamber's profile, over the width the tables were made for; counting and electronics noise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from facility import signals as g
from facility.jit import Record, kernel
from facility.landing import STOP_LANDINGS
from facility.pv_catalogue import SPOT_COLUMNS
from facility.rng import draw, triangle
from ioc_sim import faults as fp
from ioc_sim import layout as at
from ioc_sim.codes import ARMED, HOLD_SETTLING, IRRADIATING, PAUSED
from ioc_sim.faults import faulted
from ioc_sim.layout import E_QB_FC
from ioc_sim.physics.chambers import KTP_1

STREAM_WIDTH = 80
WIDTH_NOISE = 0.02
"""Noise of the strip electronics in a width of 1 ms, relative [D]."""
WIDTH_SHARE = 0.2
"""Share of a new width in the running one: 5 ms."""
WIDTH_IONS = 200.0
SUM_DECAY = math.exp(-1.0 / 100.0)
"""Sums of charge forget over 100 ms."""
RATE_DECAY = math.exp(-1.0 / 3.0)
"""The rate monitor forgets over 3 ms."""
FLOOR_COUNTS = 50.0
_OFF_MOVE, _TARGET, _START = (SPOT_COLUMNS.index(name) for name in ("beam_off_move", "target_ions", "start_ions"))


def preset(p: Any, v: np.ndarray, table: np.ndarray, level: float) -> None:
    """A layer has been loaded: what it should get and how long that should take; counter and timer begin at zero."""
    left = np.maximum(table[:, _TARGET] - table[:, _START], 0.0)
    stops = 1 + int(np.count_nonzero(table[1:, _OFF_MOVE] > 0.5))
    v[at.LAYER_PRESET_IONS] = float(left.sum())
    v[at.LAYER_EXPECTED_MS] = 1e3 * float(left.sum()) / level + stops * STOP_LANDINGS * float(p.land_ticks) * 0.01
    v[at.LAYER_TIMER_MS] = 0.0
    v[at.BACKUP_LAYER_COUNTS] = v[at.BACKUP_COUNTS]


def open_field(
    s: Any, v: np.ndarray, field: int, preset_ions: float, expected_ms: float, had: tuple[float, float]
) -> None:
    """A field begins: its presets, counter (ions) and timer (ms) at what it `had`.  The open one goes on as it is."""
    if int(s.field) == field:
        return
    s.field = field
    v[at.FIELD_PRESET_IONS], v[at.FIELD_EXPECTED_MS] = preset_ions, expected_ms
    v[at.FIELD_IONS], v[at.FIELD_TIMER_MS] = had
    v[at.FIELD_IC2_IONS] = had[0]
    take_correction(v)


def take_correction(v: np.ndarray) -> None:
    """Use, from now on, the correction for temperature and pressure that each chamber's own sensors ask for."""
    v[at.KTP_USED : at.KTP_USED + 2] = v[KTP_1 : KTP_1 + 2]


@kernel
def backup_counter(
    q: np.ndarray, s: Record, v: np.ndarray, sig: np.ndarray, faults: np.ndarray, etab: np.ndarray, ions: float
) -> float:
    """Ions of this millisecond by the backup counter; its register and the totals of layer and field.

    A register that is not a number, or has fallen, which none does that works, counts nothing: as long as that lasts
    the line ``backup.ok`` is 0 and both totals are NaN.  Without a layer one that is not zero is read anew.
    """
    gain = faulted(s, faults, fp.BACKUP_GAIN, q[at.BACKUP_GAIN], s.t_ns)
    charge = ions * v[at.BACKUP_FC_PER_ION] * gain
    if charge == charge:
        v[at.BACKUP_FC] += charge
        v[at.BACKUP_FC_SEEN] = v[at.BACKUP_FC_PER_ION] * gain
    counts = faulted(s, faults, fp.BACKUP_COUNTS, math.floor(v[at.BACKUP_FC] / q[at.BACKUP_QUANTUM_FC]), s.t_ns)
    good = counts >= v[at.BACKUP_COUNTS]
    sig[g.BACKUP_OK] = 1.0 if good else 0.0
    new = counts - v[at.BACKUP_COUNTS] if good else 0.0
    active = ARMED <= s.fe_state <= PAUSED
    v[at.BACKUP_COUNTS] = counts if counts > 0.0 and not (good or active) else v[at.BACKUP_COUNTS] + new
    if s.fe_code < 0:
        return 0.0
    per_count = q[at.BACKUP_QUANTUM_FC] / etab[s.fe_code, E_QB_FC]
    bad = 0.0 if good or not active else math.nan
    layer = (v[at.BACKUP_COUNTS] - v[at.BACKUP_LAYER_COUNTS]) * per_count if active else 0.0
    sig[g.BACKUP_LAYER_IONS] = layer + bad
    v[at.FIELD_IONS] += new * per_count
    sig[g.BACKUP_FIELD_IONS] = (v[at.FIELD_IONS] if active else 0.0) + bad
    return new * per_count


@kernel
def ratio(v: np.ndarray, k: int, a: float, b: float, floor: float, decay: float) -> float:
    """Running ratio of two sums that forget; sums at ``v[k]`` and ``v[k + 1]``."""
    v[k] = v[k] * decay + a
    v[k + 1] = v[k + 1] * decay + b
    return (v[k] + floor) / (v[k + 1] + floor)


@kernel
def spot_width(p: Record, s: Record, v: np.ndarray, sig: np.ndarray, faults: np.ndarray, ions: float) -> None:
    """Widths of the profile in both axes over those of the tables; 1 while no layer is active."""
    bits = draw(p.seed, STREAM_WIDTH, s.tick)
    active = ARMED <= s.fe_state <= PAUSED
    for axis in range(2):
        if not active:
            v[at.WIDTH_REL + axis] = 1.0
        elif s.strip_valid == 1 and ions >= WIDTH_IONS:
            noise = math.sqrt(0.5 / ions + WIDTH_NOISE * WIDTH_NOISE) * triangle(bits, axis == 1)
            seen = faulted(s, faults, fp.BEAM_WIDTH_X + axis, 1.0, s.t_ns) * (1.0 + noise)
            last = v[at.WIDTH_REL + axis]
            # a width that is no number stands until there is one again
            v[at.WIDTH_REL + axis] = last + WIDTH_SHARE * (seen - last) if last == last else seen
        sig[g.STRIP_WIDTH_X + axis] = v[at.WIDTH_REL + axis]


@kernel
def second_line_ms(
    p: Record, q: np.ndarray, s: Record, v: np.ndarray, sig: np.ndarray, faults: np.ndarray, etab: np.ndarray
) -> None:
    """One millisecond of all second-line monitors, and their signals."""
    t_ns = s.t_ns
    ions = s.truth_total - v[at.IONS_SEEN]
    v[at.IONS_SEEN] = s.truth_total
    ic1 = v[at.IC_IONS] - v[at.IC_SEEN]
    ic2 = v[at.IC_IONS + 1] - v[at.IC_SEEN + 1]
    v[at.IC_SEEN] = v[at.IC_IONS]
    v[at.IC_SEEN + 1] = v[at.IC_IONS + 1]
    backup = backup_counter(q, s, v, sig, faults, etab, ions)
    v[at.FIELD_IC2_IONS] += ic2
    spot_width(p, s, v, sig, faults, ions)
    sig[g.LAYER_PRESET_IONS] = faulted(s, faults, fp.LAYER_PRESET, v[at.LAYER_PRESET_IONS], t_ns)
    sig[g.LAYER_EXPECTED_MS] = v[at.LAYER_EXPECTED_MS]
    sig[g.FIELD_PRESET_IONS] = faulted(s, faults, fp.FIELD_PRESET, v[at.FIELD_PRESET_IONS], t_ns)
    sig[g.FIELD_EXPECTED_MS] = v[at.FIELD_EXPECTED_MS]
    if s.spill_cmd == 1:
        v[at.LAYER_TIMER_MS] += faulted(s, faults, fp.TIMER_CLOCK, 1.0, t_ns)
        v[at.FIELD_TIMER_MS] += faulted(s, faults, fp.FIELD_CLOCK, 1.0, t_ns)
    active = ARMED <= s.fe_state <= PAUSED
    sig[g.LAYER_TIMER_MS] = v[at.LAYER_TIMER_MS] if active else 0.0
    sig[g.FIELD_TIMER_MS] = v[at.FIELD_TIMER_MS] if active else 0.0
    sig[g.IC2_FIELD_IONS] = v[at.FIELD_IC2_IONS] if active else 0.0
    if active:
        floor = s.level * 1e-3 + FLOOR_COUNTS * v[at.IC_IONS_PER_COUNT]
        strip = ions * faulted(s, faults, fp.STRIP_GAIN, 1.0, t_ns)
        sig[g.STRIP_SUM_REL] = ratio(v, at.STRIP_SUM, strip, ic1, floor, SUM_DECAY)
        floor = s.level * 1e-3 + FLOOR_COUNTS * v[at.IC_IONS_PER_COUNT + 1]
        sig[g.BACKUP_REL] = ratio(v, at.BACKUP_SUM, backup, ic2, floor, SUM_DECAY)
    else:
        for i in range(4):
            v[at.STRIP_SUM + i] = 0.0
        sig[g.STRIP_SUM_REL] = 1.0
        sig[g.BACKUP_REL] = 1.0
    if s.fe_state == IRRADIATING:
        due = s.rate_model if s.rate_model < 1.0 else 1.0
        sig[g.RATE_REL] = ratio(v, at.RATE_SUM, ic1, due * s.level * 1e-3, s.level * 1e-4, RATE_DECAY)
    else:
        v[at.RATE_SUM] = 0.0
        v[at.RATE_SUM + 1] = 0.0
        sig[g.RATE_REL] = 1.0
    waits = active and s.demand == 0 and s.hold_reason == HOLD_SETTLING and s.move_ticks > s.move_allow_ticks
    v[at.SETTLE_MS] = v[at.SETTLE_MS] + 1.0 if waits else 0.0
    sig[g.SCAN_SETTLE_MS] = v[at.SETTLE_MS]
