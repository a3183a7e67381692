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
