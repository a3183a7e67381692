"""What a command does to the state of the rack, and what is refused before it gets there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from facility.errors import CommandRefused
from facility.pv_catalogue import REGISTER_COLUMNS, SPOT_COLUMNS
from facility.states import FrontEndState, HoldReason
from ioc_sim import layout as at
from ioc_sim.layout import E_MM_PER_A, E_Q1_FC, EV_ROOM, EV_STATE
from ioc_sim.physics.utilities import initial_slow

_ACTIVE = (FrontEndState.ARMED, FrontEndState.IRRADIATING, FrontEndState.HELD, FrontEndState.PAUSED)
TOKEN_MAX = 2**31 - 1
LEVEL_MIN_PER_S, LEVEL_MAX_PER_S = 1.0, 1e13
"""Levels that a layer may have, ions/s. The dose register keeps them in thousandths, as whole numbers of 64 bits."""
RANGE_SHIFTER_NS = 500_000_000


def initial_state(s: Any, v: np.ndarray) -> None:
    """A plant that has just been switched on: nothing loaded, no permit, doors closed, stopper in."""
    s.fe_code = s.ring_code = s.spot = s.book_from = -1
    v[at.LEASE_IONS] = v[at.LEASE_NEXT_IONS] = math.inf
    s.quad_open = s.chopper_open = 1.0
    v[at.IC_LOSS_SPOT] = 1.0
    v[at.RING_SEEN] = -1.0
    s.drive = s.scale = s.sensitivity = s.cycle_gain = 1.0
    s.ring_gain = s.rest_drive = s.ripple = s.line_scale = 1.0
    for first in (at.IC_DRIFT, at.EST_DRIFT, at.IC_IONS_PER_COUNT, at.IC_FC_PER_ION, at.MM_PER_A, at.A_PER_MM):
        v[first : first + 2] = 1.0
    v[at.IC_VOLT_TEST : at.IC_VOLT_TEST + 2] = v[at.KTP_USED : at.KTP_USED + 2] = 1.0
    for first in (at.EST_GAIN, at.EST_LATE_SHARE, at.IC_RAMP_SHARE):
        v[first : first + 2] = 0.5
    s.room_token = s.lost_tick = -1
    s.stopper_cmd = s.stopper_in = s.stopper_asked = s.source_inhibited = 1
    s.door_a = s.door_b = s.estop_a = s.estop_b = s.gate_open = 1
    s.key = 1
    s.beats_alive = 1
    s.spill_off_ticks = 10**6
    s.fine_age_ticks = 10**6
    s.stop_ticks = 10**6
    s.move_ticks = 10**6
    initial_slow(v)


def is_active(s: Any) -> bool:
    """A layer is armed, irradiating, held or paused."""
    return int(s.fe_state) in _ACTIVE


def check_token(token: int, what: str = "token") -> None:
    """Tokens of layers and numbers of fields are positive 31-bit numbers."""
    if not 0 < token <= TOKEN_MAX:
        raise CommandRefused("token", f"{what} {token}", what, f"give 1 to {TOKEN_MAX}")


def check_level(level: float) -> None:
    """CommandRefused for an intensity, ions/s, that no beam has and the dose register could not hold."""
    if not LEVEL_MIN_PER_S <= level <= LEVEL_MAX_PER_S:
        raise CommandRefused("fe.level", f"level_ions_per_s {level!r}", "load_layer",
                             f"give {LEVEL_MIN_PER_S:g} to {LEVEL_MAX_PER_S:g} ions/s")  # fmt: skip


def checked_table(spots: np.ndarray, most: int, max_a: np.ndarray) -> np.ndarray:
    """A private copy of a sound layer table, or CommandRefused naming the spot and the column."""
    table = np.array(spots, dtype=np.float64, order="C")
    if table.ndim != 2 or table.shape[1] != len(SPOT_COLUMNS) or not 1 <= len(table) <= most:
        raise CommandRefused("fe.table", f"layer table of shape {table.shape}", "load_layer",
                             f"give 1 to {most} rows of {len(SPOT_COLUMNS)} columns")  # fmt: skip
    bad = np.argwhere(~np.isfinite(table))
    if len(bad):
        row, column = (int(v) for v in bad[0])
        raise CommandRefused(
            "fe.value", f"{table[row, column]} in {SPOT_COLUMNS[column]}", f"spot {row}", "give a number"
        )
    for k, name in enumerate(("x_set_a", "y_set_a")):
        _refuse_where(np.abs(table[:, SPOT_COLUMNS.index(name)]) > float(max_a[k]), table, name,
                      f"within +-{float(max_a[k]):g} A")  # fmt: skip
    target = table[:, SPOT_COLUMNS.index("target_ions")]
    start = table[:, SPOT_COLUMNS.index("start_ions")]
    _refuse_where(target <= 0.0, table, "target_ions", "give a positive number of ions")
    _refuse_where((start < 0.0) | (start > target * 1.5), table, "start_ions", "between 0 and the target")
    _refuse_where(table[:, SPOT_COLUMNS.index("limit_us")] <= 0.0, table, "limit_us", "give a positive time")
    return table


def _refuse_where(bad: np.ndarray, table: np.ndarray, column: str, fix: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise CommandRefused("fe.value", f"{table[row, SPOT_COLUMNS.index(column)]:g} in {column}", f"spot {row}", fix)


def fresh_register(table: np.ndarray) -> np.ndarray:
    """Register of a layer that has just been loaded, shape (n, len(REGISTER_COLUMNS))."""
    register = np.zeros((len(table), len(REGISTER_COLUMNS)))
    register[:, REGISTER_COLUMNS.index("spot")] = np.arange(len(table))
    for name in ("target_ions", "start_ions"):
        register[:, REGISTER_COLUMNS.index(name)] = table[:, SPOT_COLUMNS.index(name)]
    already = table[:, SPOT_COLUMNS.index("start_ions")] >= table[:, SPOT_COLUMNS.index("target_ions")]
    register[already, REGISTER_COLUMNS.index("done")] = 1.0
    return register


def load(s: Any, q: np.ndarray, v: np.ndarray, etab: np.ndarray, token: int, code: int, level: float, n: int) -> None:
    """Make a checked table the loaded layer: constants of its energy, counters at zero."""
    s.fe_token, s.fe_code, s.level, s.n_spots = token, code, level, n
    s.level_inverse = 1.0 / level
    s.fe_state, s.hold_reason = FrontEndState.LOADED, HoldReason.NONE
    s.spot, s.done_spots, s.demand = -1, 0, 0
    s.layer_beam_ticks = s.missed_ticks = 0
    s.target_cum = 0.0
    if int(s.done_token) == token:
        s.done_token = 0
    for first in (at.IC_LAYER_IONS, at.EST_IONS, at.EST_UNREAD, at.TRIM_MM):
        v[first : first + 2] = 0.0
    for k in range(2):
        axis = list(q[at.AXIS_SUPPLY : at.AXIS_SUPPLY + 2]).index(k)
        v[at.MM_PER_A + k] = etab[code, E_MM_PER_A + axis]
        v[at.A_PER_MM + k] = 1.0 / v[at.MM_PER_A + k]
        ions_per_fc = v[at.KTP_USED + k] / (q[at.AIR_DENSITY] * etab[code, E_Q1_FC + k])
        v[at.IC_IONS_PER_COUNT + k] = q[at.IC_QUANTUM_FC + k] * ions_per_fc
        v[at.EST_LEAK + k] = q[at.IC_LEAK_FC_PER_TICK + k] * ions_per_fc
    counts_per_tick = level * 1e-5 / v[at.IC_IONS_PER_COUNT]
    s.track_gain = min(1.0, max(0.15, counts_per_tick))
    s.answer_gain = min(0.25, max(0.06, 0.1 * counts_per_tick))


def same_permit(s: Any, epoch: int) -> bool:
    """The permit stands, and has stood without a break since its epoch was read."""
    return int(s.permit_line) == 1 and int(s.permit_epoch) == epoch


def check_permit(s: Any, epoch: int, verb: str) -> None:
    """CommandRefused unless the permit is there and is the one that the command was meant for."""
    if not int(s.permit_line):
        raise CommandRefused("fe.permit", "no beam permit", verb, "reset the interlock first")
    if not same_permit(s, epoch):
        what = f"meant for permit epoch {epoch}, the present one is {int(s.permit_epoch)}: the permit was lost since"
        raise CommandRefused("fe.epoch", what, verb, "start or resume again")


def may_arm(s: Any, token: int, epoch: int) -> bool:
    """The layer with this token is loaded, under the permit that the command was meant for."""
    return int(s.fe_state) == FrontEndState.LOADED and int(s.fe_token) == token and same_permit(s, epoch)


def queue_cycle(s: Any, token: int, code: int, transport_set: int) -> None:
    """Queue a cycle; a later request replaces one that has not begun."""
    s.queued, s.queued_token, s.queued_code, s.queued_set = 1, token, code, transport_set


def end_cycle(s: Any) -> None:
    """Ask the ring to end its flat top; a queued request is forgotten."""
    s.end_cycle = 1
    s.queued = 0


def pause(s: Any) -> None:
    """Operator pause of an armed, irradiating or held layer."""
    if is_active(s) and int(s.fe_state) != FrontEndState.PAUSED:
        s.demand = 0
        s.fe_state, s.hold_reason = FrontEndState.PAUSED, HoldReason.OPERATOR
        s.stop_ticks = 0
        s.events |= EV_STATE


def resume(s: Any, epoch: int) -> None:
    """From PAUSED to HELD under the permit that the command was meant for; the front end goes on by itself then."""
    if int(s.fe_state) == FrontEndState.PAUSED and same_permit(s, epoch):
        s.armed_epoch = epoch
        # the magnets are waited for on a flat top only: until then it is the ring that the beam waits for
        s.fe_state, s.hold_reason = FrontEndState.HELD, HoldReason.RING_NOT_READY
        s.settled_ticks = 0
        s.events |= EV_STATE


def insert(s: Any, code: int) -> None:
    """Start the range shifter drive; not for a layer that has been armed since the command was taken.

    A drive that leaves its place leaves its switch: until it arrives there is no code.
    """
    if is_active(s):
        return
    s.range_shifter = code
    if code != int(s.rs_code):
        s.rs_code = -1
    s.rs_moving_ns = int(s.t_ns) + RANGE_SHIFTER_NS


def room_beam(s: Any, p: Any, on: bool) -> None:
    """Beam token of the room, and what is asked of its stopper; the personnel chain must let it out."""
    s.room_token = int(p.room_index) if on else -1
    s.stopper_asked = 0 if on else 1


def may_open(s: Any, field: int) -> bool:
    """No layer is active, and the field is the one that is open or that the safety controller has opened."""
    return not is_active(s) and field in (int(s.field), int(s.field_told))


def safety_lines(s: Any, permit: bool, hold: bool, link_ok: bool, personnel: bool) -> None:
    """Lines of the safety link; a permit that they take away is noted, so that it stays away for a tick at least."""
    if int(s.p_permit) and int(s.link_ok) and not (permit and link_ok):
        s.lost_tick = int(s.tick)
    s.p_permit, s.p_hold, s.link_ok = int(permit), int(hold), int(link_ok)
    s.personnel = int(personnel)


def loss_unseen(s: Any) -> bool:
    """The lines have taken the permit away, and no tick has run since."""
    return int(s.lost_tick) == int(s.tick)


def bypass_rules(rows: np.ndarray, action: np.ndarray, latching: np.ndarray, mask: int) -> None:
    """Fast rules in ``mask`` act and latch no more, all others as they were compiled; presence and latches stay."""
    acts = np.array([not mask >> place & 1 for place in range(len(rows))], dtype=np.int64)
    rows["action"] = action * acts
    rows["latching"] = latching * acts


def set_lines(s: Any, name: str, a: bool, b: bool) -> None:
    """A pair of contacts, ``door`` or ``estop``."""
    s[f"{name}_a"], s[f"{name}_b"] = int(a), int(b)


def begin_proof(s: Any, v: np.ndarray, action: int, seq: int) -> None:
    """Carry out an action of the proof tests; one that is under way is given up."""
    s.proof_action, s.proof_want, s.proof_step, s.proof_stopper = action, seq, 0, 0
    v[at.IC_VOLT_TEST : at.IC_VOLT_TEST + 2] = 1.0


def press(s: Any, button: str) -> None:
    """A search button goes down for a moment: ``far`` or ``exit``."""
    s[f"press_{button}"] = 1


def turn_key(s: Any, position: int) -> None:
    """Mode key switch: 1 clinical, 2 QA, 3 service; a change is an event."""
    if s.key != position:
        s.events |= EV_ROOM
    s.key = position


def gating(s: Any, on: bool) -> None:
    """Motion gate on or off."""
    s.gating = int(on)
