"""The parts of a rack that a proof steps: fast tier, lines, front end, beam-off devices.

Production code throughout, with one exception, the delivery front end: its compiled state machine works on doses and
has no finite set of states.  `FrontEnd` stands for it, and `tests/rig/test_proof_front_end.py` holds both together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from facility.signals import INDEX, N_SIGNALS
from facility.states import Action, FrontEndState
from interlocks import fast
from interlocks.model import Rule
from interlocks.rules import compile_fast
from ioc_sim import commands
from ioc_sim.codes import FLAT_TOP
from ioc_sim.faults import N_FAULT_POINTS
from ioc_sim.front_end import try_start
from ioc_sim.layout import LEASE_IONS, N_V
from ioc_sim.physics.beam_off import actuators_tick, permit_lines
from rig.proof.plain import blank_rack, plain

F = FrontEndState
_TICK_NS = 10_000
_FORGOTTEN = ("value", "limit", "bad_value", "bad_limit", "t_condition_ns", "t_decision_ns")
_evaluate = plain(fast.evaluate)
_reset = plain(fast.reset)
_permit_lines = plain(permit_lines)
_actuators_tick = plain(actuators_tick)
_try_start = plain(try_start)


def _leased() -> np.ndarray:
    """A vector with a lease of the dose register that never ends: a lease only ever holds the beam."""
    v = np.zeros(N_V)
    v[LEASE_IONS] = math.inf
    return v


class SafetyLines(NamedTuple):
    """What the rack has of the safety controller: the arguments of `Plant.set_safety_lines`."""

    permit: bool
    hold: bool
    link_ok: bool


class FastState(NamedTuple):
    """Memory of the fast tier, and what it says."""

    memory: bytes
    action: int
    latched: int
    present: int


class FastTier:
    """`interlocks.fast` over one rule for each class: `evaluate` and `reset` themselves, each outcome kept."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self.causes = tuple(i for i, rule in enumerate(self.rules) if not rule.is_echo)
        """Places of the rules whose cause the surroundings decide."""
        self._compiled = compile_fast(self.rules)
        self._screen = fast.new_screen(self._compiled.rows)
        self._history = fast.new_history(0)
        self._known: dict[tuple[Any, ...], FastState] = {}
        latch = fast.new_latch()
        self.start = FastState(self._compiled.rows.tobytes() + latch.tobytes(), 0, 0, 0)
        self.latching_mask = sum(1 << i for i, rule in enumerate(self.rules) if rule.latches)

    def step(self, state: FastState, lines: SafetyLines, bad: int) -> FastState:
        """One tick; `bad` is the mask over `rules` of causes that stand."""
        key = (state.memory, lines, bad)
        if key not in self._known:
            self._known[key] = self._evaluate(state.memory, lines, bad)
        return self._known[key]

    def reset(self, state: FastState, mask: int) -> FastState:
        """What a reset through the link does."""
        key = (state.memory, mask)
        if key not in self._known:
            rows, latch = self._unpack(state.memory)
            _reset(rows, latch, mask)
            self._known[key] = self._pack(rows, latch)
        return self._known[key]

    def _evaluate(self, memory: bytes, lines: SafetyLines, bad: int) -> FastState:
        rows, latch = self._unpack(memory)
        signals = np.zeros(N_SIGNALS)
        for i in self.causes:
            signals[INDEX[self.rules[i].inputs[0]]] = 0.0 if bad >> i & 1 else 1.0
        signals[INDEX["p.permit"]] = float(lines.permit)
        signals[INDEX["p.hold"]] = float(lines.hold)
        history, history_state = self._history
        history_state[:] = 0
        seen = fast.new_seen(N_SIGNALS)  # the screen, which only saves time, is not explored: all rules are judged
        _evaluate(
            rows,
            *self._screen,
            seen,
            signals,
            history,
            history_state,
            self._compiled.hist_index,
            latch,
            _TICK_NS,
            1,
            True,
        )
        return self._pack(rows, latch)

    def _unpack(self, memory: bytes) -> tuple[Any, Any]:
        end = self._compiled.compiled.nbytes
        rows = np.frombuffer(memory[:end], dtype=fast.RULE_DTYPE).copy()
        return rows, np.frombuffer(memory[end:], dtype=np.int64).copy()

    def _pack(self, rows: Any, latch: Any) -> FastState:
        """Values and times of a trip are forgotten, and a count goes no further than it matters."""
        for name in _FORGOTTEN:
            rows[name] = 0
        rows["count"] = np.minimum(rows["count"], np.maximum(rows["debounce"], 1))
        latch[fast.JUDGED] = 0
        memory = rows.tobytes() + latch.tobytes()
        return FastState(memory, int(latch[fast.IN_FORCE]), int(latch[fast.LATCHED]), int(latch[fast.PRESENT]))


def permitted(lines: SafetyLines, action: int) -> tuple[bool, bool]:
    """Permit and hold line of the next tick, as the rack makes them."""
    key = (lines, action)
    if key not in _lines_known:
        rack = blank_rack(action=action, p_permit=int(lines.permit), p_hold=int(lines.hold), link_ok=int(lines.link_ok))
        _permit_lines(rack, None)
        _lines_known[key] = bool(rack.permit_line), bool(rack.hold_line)
    return _lines_known[key]


_lines_known: dict[tuple[SafetyLines, int], tuple[bool, bool]] = {}


class FrontEnd(NamedTuple):
    """What stands for the delivery front end: its state, and whether it demands beam."""

    state: FrontEndState = F.IDLE
    stops: bool = False
    """Beam off at the end of a spot, IRRADIATING all the same: it waits for the tail and looks at no permit."""
    old: bool = False
    """What it was armed or resumed for is a permit that has been lost since."""

    @property
    def demand(self) -> bool:
        """Beam is demanded in no other state."""
        return self.state is F.IRRADIATING and not self.stops

    def permit_changed(self) -> FrontEnd:
        """Another epoch of the permit has begun."""
        return self._replace(old=True) if self._active else self

    def tick(self, permit: bool, hold: bool, action: int, ring: bool, done: bool, stop: bool = False) -> FrontEnd:
        """Follow the lines; `ring`: there is a flat top with ions, `done`: the last spot has been filled, `stop`: a
        spot that ends with a stop has been filled, or its tail still comes."""
        state = self.state
        if state not in (F.ARMED, F.IRRADIATING, F.HELD, F.PAUSED):
            return self
        if action == Action.ABORT:
            return FrontEnd(F.ABORTED)
        if state is F.PAUSED:
            return self
        if state is F.IRRADIATING:
            if done:
                return FrontEnd(F.DONE)
            if stop and (self.stops or permit):
                return self._replace(stops=True)
            if not permit or action == Action.INHIBIT:
                return FrontEnd(F.PAUSED)
            if hold or not ring:
                return self._replace(state=F.HELD, stops=False)
            return self._started(hold, action, ring) if self.stops else self
        return self._started(hold, action, ring) if permit else FrontEnd(F.PAUSED)

    def _started(self, hold: bool, action: int, ring: bool) -> FrontEnd:
        """What becomes of it where it tries to start: `ioc_sim.front_end.try_start` itself."""
        key = (self, hold, action, ring)
        if key not in _started_known:
            rack = blank_rack(
                fe_state=int(self.state), permit_line=1, hold_line=int(hold), action=action, stored=1.0,
                phase=FLAT_TOP if ring else 0, permit_epoch=int(self.old),
            )  # fmt: skip
            plant = blank_rack(fill_ions=1.0, settle_mm=0.0, settle_ticks=0, external=0)
            _try_start(plant, None, rack, _leased())
            found = F(int(rack.fe_state))
            _started_known[key] = FrontEnd(F.PAUSED) if found is F.PAUSED else FrontEnd(
                found, self.stops and rack.demand == 0, self.old
            )  # fmt: skip
        return _started_known[key]

    def command(self, verb: str, permit: bool, current: bool = True) -> FrontEnd:
        """A command of control, as the rack takes it: `ioc_sim.commands` where the verb has its home there.

        Args:
            verb: one of COMMANDS.
            permit: the permit line.
            current: an arm or a resume is meant for the permit that stands.
        """
        epoch = int(current)
        rack = blank_rack(fe_state=int(self.state), permit_line=int(permit), permit_epoch=1, fe_token=1)
        if verb == "load":
            return self if self._active else FrontEnd(F.LOADED)
        if verb == "arm":
            return FrontEnd(F.ARMED, old=not current) if commands.may_arm(rack, 1, epoch) else self
        if verb == "disarm":
            return FrontEnd(F.ABORTED) if self._active else self
        if verb == "pause":
            commands.pause(rack)
        else:
            commands.resume(rack, epoch)
        state = F(int(rack.fe_state))
        return self if state is self.state else FrontEnd(state, old=state is F.HELD and rack.armed_epoch != 1)

    @property
    def _active(self) -> bool:
        return commands.is_active(blank_rack(fe_state=int(self.state)))


_started_known: dict[tuple[Any, ...], FrontEnd] = {}
COMMANDS = ("load", "arm", "pause", "resume", "disarm")
"""What control may tell the front end."""

FAILURES = ("none", "quad", "chopper", "rfko")
"""One beam-off device at most has failed: it never acts."""
RFKO_TICKS, QUAD_TICKS, CHOPPER_TICKS, TAIL_TICKS = 3, 1, 2, 2
"""Delays of the model's devices in its own ticks: all different, so that their order shows."""
_AWAY_MOST = 8
_KEPT = (
    "spill_cmd", "rfko_on", "quad_cmd", "quad_ticks", "quad_open", "chopper_cmd", "chopper_ticks", "chopper_open",
    "spill_off_ticks",
)  # fmt: skip
_COUNTS = {"quad_ticks": QUAD_TICKS, "chopper_ticks": CHOPPER_TICKS, "spill_off_ticks": RFKO_TICKS + 1}
"""Counters of the devices, and from where on they make no difference."""


class Devices(NamedTuple):
    """The beam-off devices, the beam, and how long the permit has been away."""

    failed: str
    values: tuple[float, ...] = (0, 0, 1, QUAD_TICKS, 0.0, 1, CHOPPER_TICKS, 0.0, RFKO_TICKS + 1)
    tail: int = 0
    """Ticks for which extraction still gives ions after its drive is off."""
    away: int = _AWAY_MOST
    """Ticks since the permit line was last on."""
    permit: bool = False
    hold: bool = False
    turned: bool = False
    """Another epoch of the permit began in this tick."""

    @property
    def commanded(self) -> bool:
        """Beam is commanded."""
        return self.values[0] == 1

    @property
    def beam(self) -> bool:
        """Ions reach the isocentre."""
        quad, chopper = self.values[4], self.values[7]
        return self.tail > 0 and quad > 0.0 and chopper > 0.0


class BeamOff:
    """`permit_lines` and `actuators_tick` over a few ticks of delay."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Devices] = {}
        self._faults = np.zeros((N_FAULT_POINTS, 5))

    def tick(self, devices: Devices, lines: SafetyLines, action: int, demand: bool) -> Devices:
        """One tick: the lines as they stand, the devices' motion, the beam."""
        key = (devices, lines, action, demand)
        if key not in self._known:
            self._known[key] = self._tick(devices, lines, action, demand)
        return self._known[key]

    def _tick(self, devices: Devices, lines: SafetyLines, action: int, demand: bool) -> Devices:
        rack = blank_rack(
            **dict(zip(_KEPT, devices.values, strict=True)), stored=1e9, demand=int(demand), action=action,
            p_permit=int(lines.permit), p_hold=int(lines.hold), link_ok=int(lines.link_ok),
            permit_line=int(devices.permit),
        )  # fmt: skip
        plant = blank_rack(
            rfko_delay_ticks=RFKO_TICKS, quad_delay_ticks=QUAD_TICKS, chopper_delay_ticks=CHOPPER_TICKS, quad_step=1.0,
            chopper_step=1.0, quad_present=int(devices.failed != "quad"), overshoot=0.0, dump_decay=1.0,
            chopper_present=int(devices.failed != "chopper"), dump_delay_ticks=10**6,
        )  # fmt: skip
        _permit_lines(rack, None)
        _actuators_tick(plant, None, rack, None, self._faults, 1)
        on = rack.rfko_on == 1 or devices.failed == "rfko"
        for name, most in _COUNTS.items():
            setattr(rack, name, min(getattr(rack, name), most))
        return Devices(
            devices.failed,
            tuple(getattr(rack, name) for name in _KEPT),
            TAIL_TICKS if on else max(0, devices.tail - 1),
            0 if rack.permit_line else min(_AWAY_MOST, devices.away + 1),
            bool(rack.permit_line),
            bool(rack.hold_line),
            rack.permit_epoch != 0,
        )


def bound_ticks(failed: str) -> int:
    """Ticks from the loss of the permit to no beam at the isocentre, from the delays: the fastest device that works."""
    times = {"quad": QUAD_TICKS, "chopper": CHOPPER_TICKS, "rfko": RFKO_TICKS + TAIL_TICKS}
    return min(ticks for name, ticks in times.items() if name != failed) + 1
