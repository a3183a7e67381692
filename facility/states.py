"""Enumerations shared by rack, PV catalogue and control.  Values are the numbers on the wire."""

from __future__ import annotations

from enum import IntEnum


class RingPhase(IntEnum):
    """Phase of the synchrotron cycle."""

    STANDBY = 0
    INJECTION = 1
    CAPTURE = 2
    RAMP = 3
    STABILISE = 4
    RESONANCE = 5
    FLAT_TOP = 6
    ENERGY_STEP = 7
    DUMP = 8
    RAMP_DOWN = 9
    STANDARDISE = 10
    FAULT = 11


class SearchStage(IntEnum):
    """How far the search of the treatment room is."""

    NOT_DONE = 0
    SEARCHING = 1
    """The far button has been pressed; the exit button must follow in time."""
    LEAVING = 2
    """The exit button has been pressed; out, and the door closed behind, in time."""
    WARNING = 3
    """The door is closed; light and sound go on until the delay is over."""
    DONE = 4


class ProofAction(IntEnum):
    """What the rack does for pre-beam proof tests, in the order in which it is asked for it; 0 is none."""

    COUNTS = 1
    LEAKAGE = 2
    CHARGE = 3
    VOLTAGE = 4
    SCAN_STEP = 5
    SCAN_ZERO = 6
    BEAM_OFF = 7
    STOPPER = 8
    PERMIT_LOOP = 9
    """Done from the safety controller's end; the rack only shows its lines."""


class FrontEndState(IntEnum):
    """State of the delivery front end."""

    IDLE = 0
    LOADED = 1
    ARMED = 2
    IRRADIATING = 3
    HELD = 4
    """Beam off, goes on by itself: gate closed, ring empty, or between cycles."""
    PAUSED = 5
    """Beam off, goes on only after a separate resume command."""
    DONE = 6
    ABORTED = 7
    """An ABORT took the beam; the layer must be loaded again to go on."""


class Action(IntEnum):
    """What a rule does when it trips, weakest first."""

    NONE = 0
    INHIBIT = 1
    HOLD = 2
    PAUSE = 3
    ABORT = 4


class HoldReason(IntEnum):
    """Why the front end is not irradiating although a layer is armed."""

    NONE = 0
    RING_NOT_READY = 1
    RING_EMPTY = 2
    GATE = 3
    NO_PERMIT = 4
    SETTLING = 5
    OPERATOR = 6
    HANG = 7
    """It did not run for a while; the layer has ended there."""
    REGISTER = 8
    """What may be delivered before the dose register is synchronised again has been delivered."""
