"""The shared enumerations as plain integers, which is what compiled code compares; their home is facility.states."""

from __future__ import annotations

from facility.states import Action, FrontEndState, HoldReason, ProofAction, RingPhase, SearchStage

(STANDBY, INJECTION, CAPTURE, RAMP, STABILISE, RESONANCE, FLAT_TOP, ENERGY_STEP, DUMP, RAMP_DOWN, STANDARDISE) = (
    int(phase) for phase in RingPhase if phase is not RingPhase.FAULT
)
ARMED, IRRADIATING, HELD, PAUSED, DONE, ABORTED = (
    int(state) for state in FrontEndState if state not in (FrontEndState.IDLE, FrontEndState.LOADED)
)
(
    HOLD_NONE, HOLD_RING, HOLD_EMPTY, HOLD_GATE, HOLD_PERMIT, HOLD_SETTLING, HOLD_OPERATOR, HOLD_HANG, HOLD_REGISTER,
) = (int(reason) for reason in HoldReason)  # fmt: skip
ACTION_INHIBIT, ACTION_HOLD, ACTION_PAUSE, ACTION_ABORT = (
    int(action) for action in Action if action is not Action.NONE
)
RING_FAULT = int(RingPhase.FAULT)
NOT_DONE, SEARCHING, LEAVING, WARNING, SEARCHED = (int(stage) for stage in SearchStage)
(
    PROVE_COUNTS, PROVE_LEAKAGE, PROVE_CHARGE, PROVE_VOLTAGE, PROVE_SCAN_STEP, PROVE_SCAN_ZERO, PROVE_BEAM_OFF,
    PROVE_STOPPER, PROVE_PERMIT_LOOP,
) = (int(action) for action in ProofAction)  # fmt: skip
