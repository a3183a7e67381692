"""Typed faults, injected in devices and never in a rule's input.

A fault point is a place where hardware can lie or fail.  What a kind does to the quantity of its point is the same
everywhere; which kinds make sense at a point is listed with it and anything else is refused.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from facility import signals as g
from facility.errors import CommandRefused
from facility.jit import Record, kernel
from facility.rng import bell, draw

FOREVER_NS = 2**62
STREAM_FAULTS = 1000
"""Noise of fault point i is drawn from the stream of this number and i."""
RIPPLE_RAD_PER_NS = 2.0 * math.pi * 50.0 * 1e-9
"""RIPPLE is that of the mains, 50 Hz."""


class FaultKind(IntEnum):
    """What happens to the quantity of a fault point; ``value`` in the unit given here."""

    NONE = 0
    STUCK = 1
    """Keeps the value it had when the fault began (value unused)."""
    SET = 2
    """Becomes ``value``, in the unit of the point."""
    OFFSET = 3
    """Gains ``value``, in the unit of the point."""
    SCALE = 4
    """Is multiplied by ``value``."""
    DRIFT = 5
    """Gains ``value`` per second since the fault began."""
    NAN = 6
    """Becomes not-a-number."""
    DEAD = 7
    """Becomes zero."""
    NOISE = 8
    """Gains noise of ``value`` rms, in the unit of the point, drawn anew each 10 us from seed, point and time."""
    LATE = 9
    """Arrives ``value`` ms late: at first nothing new comes for so long, then what was; in steps of a 32nd of it."""
    SLOW = 10
    """Follows with a time constant of ``value`` ms."""
    INVERT = 11
    """Becomes ``value`` minus itself: 0 is the wrong polarity of a quantity, 1 that of a line."""
    SATURATED = 12
    """Never leaves minus ``value`` to ``value``, in the unit of the point."""
    RIPPLE = 13
    """Is multiplied by 1 + ``value`` times a sine of 50 Hz."""


_names: list[str] = []
_about: list[str] = []


def _point(name: str, about: str) -> int:
    _names.append(name)
    _about.append(about)
    return len(_names) - 1


IC1_GAIN = _point("ic1.gain", "gain of chamber 1, 1")
IC2_GAIN = _point("ic2.gain", "gain of chamber 2, 1")
IC1_COUNTS = _point("ic1.counts", "cumulative count register of chamber 1, counts")
IC2_COUNTS = _point("ic2.counts", "cumulative count register of chamber 2, counts")
IC1_HV = _point("ic1.hv", "high voltage of chamber 1, V")
IC2_HV = _point("ic2.hv", "high voltage of chamber 2, V")
IC1_OK = _point("ic1.ok", "status line of chamber 1 electronics, 1 is good")
IC2_OK = _point("ic2.ok", "status line of chamber 2 electronics, 1 is good")
STRIP_X = _point("strip.x", "strip chamber centroid x, mm at isocentre")
STRIP_Y = _point("strip.y", "strip chamber centroid y, mm at isocentre")
EXTERNAL_OK = _point("external.ok", "external devices answer in time and report no fault, 1 is good")
STRIP_OK = _point("strip.ok", "status line of strip chamber electronics, 1 is good")
SCAN_X_CURRENT = _point("scan_x.current", "true current of scanning supply x, A")
SCAN_Y_CURRENT = _point("scan_y.current", "true current of scanning supply y, A")
SCAN_X_READBACK = _point("scan_x.readback", "current readback of supply x, A")
SCAN_Y_READBACK = _point("scan_y.readback", "current readback of supply y, A")
SCAN_X_PROBE = _point("scan_x.probe", "field probe of magnet x, T m")
SCAN_Y_PROBE = _point("scan_y.probe", "field probe of magnet y, T m")
SCAN_OK = _point("scan.ok", "status line of both scanning supplies, 1 is good")
RFKO = _point("rfko.on", "extraction device, 1 is on: SET 1 is stuck on")
QUAD = _point("quad.open", "transmission past the fast quadrupole: SET 1 is failed open")
CHOPPER = _point("chopper.open", "transmission past the chopper: SET 1 is failed open")
DUMP = _point("dump.cmd", "ring dump trigger: SET 0 is failed")
SPILL = _point("spill.rate", "extraction rate, 1: SCALE 3 is a burst, DEAD no beam")
BEAM_X = _point("beam.x", "beam position x upstream, mm at isocentre")
BEAM_Y = _point("beam.y", "beam position y upstream, mm at isocentre")
RING_TOKEN = _point("ring.token", "token of the running cycle")
HEBT_TOKEN = _point("hebt.token", "token of the transport table")
HEBT_SET = _point("hebt.set", "number of the set points that the transport devices take up")
RING_SUPPLY = _point("ring.supply", "supplies of the ring's magnets, 1 is on: DEAD has tripped")
RING_BRHO = _point("ring.brho", "true rigidity of the ring over nominal, 1")
DOOR_A = _point("door.a", "door contact A, 1 is closed")
DOOR_B = _point("door.b", "door contact B, 1 is closed")
ESTOP_A = _point("estop.a", "emergency stop chain A, 1 is good")
ESTOP_B = _point("estop.b", "emergency stop chain B, 1 is good")
KEY_A = _point("key.a", "mode key switch, bank A, code: 1 clinical, 2 QA, 3 service")
KEY_B = _point("key.b", "mode key switch, bank B, code: 1 clinical, 2 QA, 3 service")
IC1_INJECTOR = _point("ic1.injector", "charge injection source of chamber 1, over its nominal charge, 1")
IC2_INJECTOR = _point("ic2.injector", "charge injection source of chamber 2, over its nominal charge, 1")
IC1_LEAKAGE = _point("ic1.leakage", "leakage of chamber 1 that is not known of, pA")
IC2_LEAKAGE = _point("ic2.leakage", "leakage of chamber 2 that is not known of, pA")
BUTTON_FAR = _point("search.far", "search button at the far end, 1 is pressed")
BUTTON_EXIT = _point("search.exit", "search button at the exit, 1 is pressed")
SEARCH_A = _point("search.a", "contact of search chain A, 1 is done: SET 1 is welded")
SEARCH_B = _point("search.b", "contact of search chain B, 1 is done: SET 1 is welded")
ROOM_TOKENS = _point("room.keys", "rooms whose key lock holds the beam token, bit mask: SET 3 is two, DEAD none")
STOPPER = _point("stopper.in", "position of the beam stopper, 1 is in: SET 0 is stuck out")
GATE = _point("gate.open", "gate line, 1 is open")
GATE_AGE = _point("gate.age", "age of the gate signal, ms")
RS_READBACK = _point("rs.code", "range shifter position switches, bit mask")
ROOM_TOKEN = _point("room.token", "beam token of the room")
FRONT_END = _point("fe.freeze", "SET 1: the front end hangs, its outputs freeze")
FAST_TIER = _point("h.freeze", "SET 1: the fast interlock tier hangs, its outputs freeze")
RING_IONS = _point("ring.fill", "ions of a fill, 1")
BACKUP_GAIN = _point("backup.gain", "gain of the backup counter, 1")
BACKUP_COUNTS = _point("backup.counts", "count register of the backup counter, counts")
LAYER_PRESET = _point("layer.preset", "preset register of the layer, ions")
TIMER_CLOCK = _point("timer.clock", "clock of the backup timer, ms a ms")
FIELD_PRESET = _point("field.preset", "preset register of the field, ions")
FIELD_NUMBER = _point("fe.field", "field number register of the front end")
FIELD_CLOCK = _point("field.clock", "clock of the backup timer of the field, ms a ms")
STRIP_GAIN = _point("strip.gain", "gain of the strips, 1")
BEAM_WIDTH_X = _point("beam.width_x", "width of the beam over that of the table, x, 1")
BEAM_WIDTH_Y = _point("beam.width_y", "width of the beam over that of the table, y, 1")
SOURCE = _point("source.inhibit", "source inhibit, 1 is inhibited: SET 0 is failed")
FIRST_SLOW = len(_names)
"""The slow devices' points begin here, in the order of their signals."""
for _signal in g.SIGNALS[g.FIRST_SLOW : g.LAST_SLOW + 1]:
    _point(_signal.name, f"{_signal.description}; {_signal.unit}")

FAULT_POINTS: tuple[str, ...] = tuple(_names)
ABOUT: dict[str, str] = dict(zip(_names, _about, strict=True))
N_FAULT_POINTS = len(FAULT_POINTS)

LATE_STEPS = 32
F_KIND, F_VALUE, F_FROM_NS, F_UNTIL_NS, F_HELD, F_SEED, F_SEEN_NS = range(7)
F_LINE = 7
"""Columns of the fault table, float64 (N_FAULT_POINTS, F_COLUMNS); from F_LINE on the delay line of LATE. F_HELD is
what STUCK keeps and where SLOW is, NaN before the first use; F_SEEN_NS when SLOW or LATE have last moved on."""
F_COLUMNS = F_LINE + LATE_STEPS


@dataclass(frozen=True)
class Fault:
    """``device`` is a name of ``FAULT_POINTS``; active for ``at_ns <= t < until_ns`` of facility time."""

    device: str
    kind: FaultKind
    value: float = 0.0
    at_ns: int = 0
    until_ns: int = FOREVER_NS

    def index(self) -> int:
        """Position of the fault point, or CommandRefused when there is no such point or the value is no number."""
        if self.device not in ABOUT:
            raise CommandRefused("fault.device", f"no fault point {self.device!r}", "fault", "see: ionctl fault list")
        if not math.isfinite(self.value):
            raise CommandRefused("fault.value", f"value {self.value!r} is not finite", self.device, "use kind NAN")
        if self.kind in (FaultKind.LATE, FaultKind.SLOW, FaultKind.SATURATED) and self.value <= 0.0:
            raise CommandRefused("fault.value", f"{self.kind.name} of {self.value!r}", self.device, "give more than 0")
        if self.until_ns <= self.at_ns:
            raise CommandRefused("fault.time", f"ends at {self.until_ns} ns, begins at {self.at_ns} ns", self.device,
                                 "give until_ns later than at_ns")  # fmt: skip
        return FAULT_POINTS.index(self.device)


GATING = "gating"
"""Not a fault point: SET 1 puts the motion gate into use, SET 0 out of it."""


def fault_line(fault: Fault) -> str:
    """A fault as one line of JSON for a plant in another process: it begins when it is read, and lasts as long."""
    lasts = fault.until_ns - fault.at_ns
    return json.dumps({"device": fault.device, "kind": fault.kind.name, "value": fault.value,
                       "for_ns": None if fault.until_ns == FOREVER_NS else lasts})  # fmt: skip


def fault_from_line(line: str, now_ns: int) -> Fault:
    """The fault of a line, from now on; CommandRefused if it is none."""
    try:
        data = json.loads(line)
        until_ns = FOREVER_NS if data["for_ns"] is None else now_ns + int(data["for_ns"])
        fault = Fault(str(data["device"]), FaultKind[data["kind"]], float(data["value"]), now_ns, until_ns)
    except (ValueError, KeyError, TypeError) as problem:
        raise CommandRefused("fault.line", f"{line.strip()[:80]!r}: {problem}", "fault", "see fault_line") from problem
    if fault.device != GATING:
        fault.index()
    return fault


def fault_row(fault: Fault, seed: int) -> np.ndarray:
    """The row of the fault table, float64 (F_COLUMNS,), as it is before the fault begins."""
    row = np.zeros(F_COLUMNS)
    row[:F_LINE] = (int(fault.kind), fault.value, fault.at_ns, fault.until_ns, math.nan, seed, fault.at_ns)
    return row


@kernel
def _slow(faults: np.ndarray, i: int, value: float, t_ns: int) -> float:
    """First-order lag; a point that is looked at twice in a tick moves once."""
    if math.isnan(faults[i, F_HELD]):
        faults[i, F_HELD] = value
    elif t_ns > faults[i, F_SEEN_NS]:
        share = 1.0 - math.exp(-(t_ns - faults[i, F_SEEN_NS]) * 1e-6 / faults[i, F_VALUE])
        faults[i, F_HELD] += share * (value - faults[i, F_HELD])
    faults[i, F_SEEN_NS] = float(t_ns)
    return faults[i, F_HELD]


@kernel
def _late(faults: np.ndarray, i: int, value: float, t_ns: int) -> float:
    """A delay line of LATE_STEPS places: what comes out is what went in LATE_STEPS - 1 steps before."""
    step_ns = faults[i, F_VALUE] * 1e6 / (LATE_STEPS - 1)
    if math.isnan(faults[i, F_HELD]):
        faults[i, F_HELD] = value
        for k in range(LATE_STEPS):
            faults[i, F_LINE + k] = value
    now = int((t_ns - faults[i, F_FROM_NS]) / step_ns)
    seen = int((faults[i, F_SEEN_NS] - faults[i, F_FROM_NS]) / step_ns)
    for k in range(max(seen + 1, now - LATE_STEPS + 1), now + 1):
        faults[i, F_LINE + k % LATE_STEPS] = value
    faults[i, F_SEEN_NS] = float(t_ns)
    return faults[i, F_LINE + (now + 1) % LATE_STEPS]


@kernel
def _failed(faults: np.ndarray, i: int, value: float, t_ns: int) -> float:
    kind = faults[i, F_KIND]
    if t_ns < faults[i, F_FROM_NS] or t_ns >= faults[i, F_UNTIL_NS]:
        return value
    if kind == 1.0:
        if math.isnan(faults[i, F_HELD]):
            faults[i, F_HELD] = value
        return faults[i, F_HELD]
    if kind == 2.0:
        return faults[i, F_VALUE]
    if kind == 3.0:
        return value + faults[i, F_VALUE]
    if kind == 4.0:
        return value * faults[i, F_VALUE]
    if kind == 5.0:
        return value + faults[i, F_VALUE] * (t_ns - faults[i, F_FROM_NS]) * 1e-9
    if kind == 6.0:
        return math.nan
    if kind == 8.0:
        return value + faults[i, F_VALUE] * bell(draw(np.uint64(faults[i, F_SEED]), STREAM_FAULTS + i, t_ns // 10_000))
    if kind == 9.0:
        return _late(faults, i, value, t_ns)
    if kind == 10.0:
        return _slow(faults, i, value, t_ns)
    if kind == 11.0:
        return faults[i, F_VALUE] - value
    if kind == 12.0:
        return max(-faults[i, F_VALUE], min(faults[i, F_VALUE], value))
    if kind == 13.0:
        return value * (1.0 + faults[i, F_VALUE] * math.sin(RIPPLE_RAD_PER_NS * (t_ns - faults[i, F_FROM_NS])))
    return 0.0


@kernel
def faulted(s: Record, faults: np.ndarray, i: int, value: float, t_ns: int) -> float:
    """The quantity of fault point ``i`` as its (possibly failed) hardware gives it at ``t_ns``."""
    if s.faults == 0 or faults[i, F_KIND] == 0.0:
        return value
    return _failed(faults, i, value, t_ns)
