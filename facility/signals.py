"""The signal layout: every quantity a rule or a process image can see, in one float64 vector.

The rack (plant physics, front end, fast interlocks) writes the vector once a tick; the fast evaluator reads it by
index, the safety link packs the members of ``IMAGE`` into its frames.  Digital signals are 0.0 or 1.0.  These are
*observable* quantities, as hardware sees them: nothing here is truth.
"""

from __future__ import annotations

from dataclasses import dataclass

MASK_BITS = 30
"""Bits of a mask that one word of the process image carries; the rest is in the word named _high."""


@dataclass(frozen=True)
class Signal:
    """One place in the signal vector.

    ``resolution`` is the value of one unit of the fixed-point number (int32) that carries the signal in the process
    image of the safety link; 0 means the signal is not part of the image.
    """

    name: str
    unit: str
    description: str
    resolution: float = 0.0


_signals: list[Signal] = []


def _signal(name: str, unit: str, description: str, resolution: float = 0.0) -> int:
    _signals.append(Signal(name, unit, description, resolution))
    return len(_signals) - 1


# --- these change from tick to tick while there is beam: first in the vector, looked at each tick -------------------
FE_SPOT_IC1_IONS = _signal("fe.spot_ic1_ions", "ions", "delivered to the spot by chamber 1, late charge corrected")
FE_SPOT_IC2_IONS = _signal("fe.spot_ic2_ions", "ions", "delivered to the spot by chamber 2, late charge corrected")
FE_SPOT_BEAM_US = _signal("fe.spot_beam_us", "us", "beam-demanded time of the spot")
IC1_IONS = _signal("ic1.ions", "ions", "chamber 1, cumulative counts times nominal ions per count")
IC2_IONS = _signal("ic2.ions", "ions", "chamber 2, cumulative counts times nominal ions per count")
IC1_LAYER_IONS = _signal("ic1.layer_ions", "ions", "chamber 1 since the layer was loaded, 0 if none is active", 1000.0)
IC2_LAYER_IONS = _signal("ic2.layer_ions", "ions", "chamber 2 since the layer was loaded, 0 if none is active", 1000.0)
IC1_NOMINAL_US = _signal("ic1.nominal_us", "us", "cumulative ions of chamber 1 over the layer's level")
IC2_NOMINAL_US = _signal("ic2.nominal_us", "us", "cumulative ions of chamber 2 over the layer's level")
IC1_IDLE_IONS = _signal("ic1.idle_ions", "ions", "cumulative ions of chamber 1 seen while no beam may come any more")
IC2_IDLE_IONS = _signal("ic2.idle_ions", "ions", "cumulative ions of chamber 2 seen while no beam may come any more")
STRIP_ERR_X_MM = _signal("strip.err_x_mm", "mm", "centroid minus plan at isocentre, x, last valid window")
STRIP_ERR_Y_MM = _signal("strip.err_y_mm", "mm", "centroid minus plan at isocentre, y, last valid window")
SCAN_X_ERR_MM = _signal("scan_x.err_mm", "mm", "current readback minus set point as millimetres at isocentre, x supply")
SCAN_Y_ERR_MM = _signal("scan_y.err_mm", "mm", "current readback minus set point as millimetres at isocentre, y supply")
SCAN_X_PROBE_MM = _signal("scan_x.probe_mm", "mm", "field probe minus current readback as millimetres, x supply")
SCAN_Y_PROBE_MM = _signal("scan_y.probe_mm", "mm", "field probe minus current readback as millimetres, y supply")
N_FAST = len(_signals)
"""The signals before this place may change with every tick.  The others are quiet: each change has all rules judged."""
# --- front end -------------------------------------------------------------------------------------------------
FE_HEARTBEAT = _signal("fe.heartbeat", "count", "rises by one each 1 ms the front end lives (modulo 2^20)", 1.0)
FE_STATE = _signal("fe.state", "enum", "FrontEndState", 1.0)
FE_TOKEN = _signal("fe.token", "token", "layer token of the loaded layer, 0 if none", 1.0)
FE_FIELD = _signal("fe.field", "code", "number of the field whose presets, counter and timer count, 0 if none", 1.0)
FE_DEMAND = _signal("fe.demand", "bool", "front end asks for beam", 1.0)
FE_ACTIVE = _signal("fe.active", "bool", "a layer is armed, irradiating or held", 1.0)
FE_SPOT = _signal("fe.spot", "index", "spot being delivered, -1 if none", 1.0)
FE_SPOT_TARGET_IONS = _signal("fe.spot_target_ions", "ions", "prescription of the spot being delivered")
FE_SPOT_LIMIT_US = _signal("fe.spot_limit_us", "us", "longest allowed beam-demanded time of the spot")
FE_LEVEL = _signal("fe.level", "ions/s", "intensity level of the loaded layer", 1000.0)
# --- chambers ---------------------------------------------------------------------------------------------------
IC1_HV_REL = _signal("ic1.hv_rel", "1", "high voltage of chamber 1 over its set value", 1e-5)
IC2_HV_REL = _signal("ic2.hv_rel", "1", "high voltage of chamber 2 over its set value", 1e-5)
IC1_OK = _signal("ic1.ok", "bool", "electronics of chamber 1 report no fault, and their register counts", 1.0)
IC2_OK = _signal("ic2.ok", "bool", "electronics of chamber 2 report no fault, and their register counts", 1.0)
# --- strip chamber ----------------------------------------------------------------------------------------------
STRIP_VALID = _signal("strip.valid", "bool", "the last window held enough charge, on a settled spot")
STRIP_OK = _signal("strip.ok", "bool", "electronics of the strip chamber report no fault", 1.0)
# --- scanning magnets -------------------------------------------------------------------------------------------
SCAN_DUE = _signal("scan.due", "bool", "the settling window of the last move has passed and beam is demanded")
SCAN_OK = _signal("scan.ok", "bool", "both supplies report no fault", 1.0)
EXTERNAL_OK = _signal(
    "external.ok", "bool", "external devices and lines give good readings in time; 1 where none is external"
)
# --- ring and transport -----------------------------------------------------------------------------------------
RING_PHASE = _signal("ring.phase", "enum", "RingPhase", 1.0)
RING_FLAT_TOP = _signal("ring.flat_top", "bool", "the ring stands on the extraction flat top", 1.0)
RING_TOKEN = _signal("ring.token", "token", "layer token of the cycle running in the ring", 1.0)
HEBT_TOKEN = _signal("hebt.token", "token", "layer token of the transport table in force", 1.0)
HEBT_SET = _signal("hebt.set", "1", "number of the set points that the transport devices have taken up, 0 if none")
RING_BRHO_REL = _signal("ring.brho_rel", "1", "measured rigidity over the table value of the loaded layer", 1e-6)
RING_IONS = _signal("ring.ions", "ions", "stored ions by the current transformer", 1e4)
SPILL_CMD = _signal("spill.cmd", "bool", "extraction is commanded on", 1.0)
RFKO_ON = _signal("rfko.on", "bool", "extraction device reads back on", 1.0)
QUAD_BLOCK = _signal("quad.block", "bool", "fast quadrupole reads back off resonance", 1.0)
CHOPPER_BLOCK = _signal("chopper.block", "bool", "chopper reads back blocking", 1.0)
STOPPER_IN = _signal("stopper.in", "bool", "beam stopper reads back in", 1.0)
# --- room and people --------------------------------------------------------------------------------------------
ROOM_TOKEN = _signal("room.token", "index", "room that holds the beam token, -1 if none or more than one", 1.0)
RANGE_SHIFTER = _signal("rs.code", "code", "range shifters in the beam, bit mask", 1.0)
RANGE_SHIFTER_PLAN = _signal("rs.plan_code", "code", "range shifters that the loaded layer wants, bit mask", 1.0)
DOOR_A = _signal("door.a_closed", "bool", "door contact A, 1 is closed", 1.0)
DOOR_B = _signal("door.b_closed", "bool", "door contact B, 1 is closed", 1.0)
ESTOP_A = _signal("estop.a_ok", "bool", "emergency stop chain A, 1 is not pressed", 1.0)
ESTOP_B = _signal("estop.b_ok", "bool", "emergency stop chain B, 1 is not pressed", 1.0)
KEY_A = _signal("key.a", "code", "mode key switch, bank A: 1 clinical, 2 QA, 3 service, 0 between or broken", 1.0)
KEY_B = _signal("key.b", "code", "mode key switch, bank B, codes as bank A", 1.0)
SEARCH_A = _signal("search.a_done", "bool", "search of the room is done and stands, chain A", 1.0)
SEARCH_B = _signal("search.b_done", "bool", "search of the room is done and stands, chain B", 1.0)
SEARCH_STAGE = _signal("search.stage", "enum", "SearchStage of the chain that is less far")
ROOM_TOKENS = _signal("room.tokens", "count", "rooms that hold the beam token, by the contacts of their key locks", 1.0)
PERSONNEL = _signal("personnel.ok", "bool", "the personnel chain lets the stopper out and the source inject", 1.0)
SOURCE_ASKED = _signal("source.asked", "bool", "source inhibit is asked for: escalation, personnel chain, proof", 1.0)
GATE_OPEN = _signal("gate.open", "bool", "motion gate, 1 lets beam through (1 when gating is off)", 1.0)
GATE_AGE_MS = _signal("gate.age_ms", "ms", "age of the newest gate sample (0 when gating is off)", 0.1)
# --- beam-off confirmation (ioc_sim.physics.confirmation) ------------------------------------------------------------
OFF_CONFIRMED = _signal(
    "off.confirmed", "bool", "0: beam where none may be, or no device beside the extraction blocks", 1.0
)
ESCALATED = _signal(
    "off.escalated", "bool", "beam-off was not confirmed: ring dump and source inhibit until the reset", 1.0
)
SOURCE_INHIBITED = _signal("source.inhibited", "bool", "source inhibit reads back set: nothing is injected", 1.0)
QUAD_OBEYS = _signal("quad.obeys", "bool", "fast quadrupole reads back what it was told, in time", 1.0)
CHOPPER_OBEYS = _signal("chopper.obeys", "bool", "chopper reads back what it was told, in time", 1.0)
EXTRACTION_OBEYS = _signal("rfko.obeys", "bool", "extraction device reads back what it was told, in time", 1.0)
DUMP_OBEYS = _signal("dump.obeys", "bool", "ring dump reads back what it was told", 1.0)
# --- slow devices: one fault point each, of the same name and in the same order (ioc_sim.physics.utilities) -------
RF_FREQUENCY_REL = _signal("rf.frequency_rel", "1", "measured revolution frequency over the table value", 1e-7)
HEBT_DIPOLE_REL = _signal("hebt.dipole_rel", "1", "current of the transport dipoles over the table value", 1e-6)
HEBT_QUAD_REL = _signal("hebt.quad_rel", "1", "current of the transport quadrupoles over the table value", 1e-6)
SEPTUM_HV_REL = _signal("septum.hv_rel", "1", "high voltage of the electrostatic septum over its set value", 1e-5)
BUMP_CURRENT_REL = _signal("bump.current_rel", "1", "current of the extraction bumps over the table value", 1e-5)
IC1_KTP = _signal("ic1.ktp", "1", "correction of chamber 1 for temperature and pressure, over the value in use", 1e-5)
IC2_KTP = _signal("ic2.ktp", "1", "correction of chamber 2 for temperature and pressure, over the value in use", 1e-5)
GAS_FLOW_REL = _signal("gas.flow_rel", "1", "gas flow of the chambers over its set value", 1e-4)
COOLING_FLOW_REL = _signal("cooling.flow_rel", "1", "cooling water of the magnets over its set value", 1e-4)
COOLING_TEMPERATURE = _signal("cooling.temperature_c", "degC", "hottest return of the cooling water", 0.01)
VACUUM_RING = _signal("vacuum.ring_mbar", "mbar", "worst pressure in the ring", 1e-12)
VACUUM_HEBT = _signal("vacuum.hebt_mbar", "mbar", "worst pressure in the transport line", 1e-11)
LOSS_HEBT = _signal("loss.hebt_usv_h", "uSv/h", "beam loss monitor of the transport line", 0.01)
STRAY_ROOM = _signal("stray.room_usv_h", "uSv/h", "stray radiation in the treatment room, away from the patient", 0.1)
AREA_DOSE = _signal("area.dose_usv_h", "uSv/h", "area monitor where people work", 0.001)
PATIENT_SHIFT = _signal(
    "patient.shift_mm", "mm", "largest shift of the patient's surface from the planned position", 0.01
)
PATIENT_ROTATION = _signal("patient.rotation_deg", "deg", "rotation of the patient's surface from the plan", 0.01)
GATE_DRIFT = _signal("gate.drift_mm", "mm", "end-exhale baseline of the surrogate against that of the plan", 0.01)
TIMING_LATE = _signal("timing.late_us", "us", "how late the last cycle event arrived at the rack", 0.01)
SNOUT_SPEED = _signal("snout.speed_mm_s", "mm/s", "speed of the snout", 0.01)
UPS_OK = _signal("ups.ok", "bool", "uninterruptible supply of the safety systems reports no fault", 1.0)
INTERCOM_OK = _signal("intercom.ok", "bool", "intercom and video to the patient report no fault", 1.0)
GUARD_A = _signal("guard.a_clear", "bool", "touch guard of the snout, contact A, 1 is clear", 1.0)
GUARD_B = _signal("guard.b_clear", "bool", "touch guard of the snout, contact B, 1 is clear", 1.0)
GATE_SOURCE_OK = _signal("gate.source_ok", "bool", "camera or belt of the gate reports no fault", 1.0)
RIPPLE_CODE = _signal("ripple.code", "code", "ripple filter in the beam, by its coding pins", 1.0)
ROUTE_A = _signal(
    "hebt.route_a", "index", "room to which the switching dipoles lead, polarity sensor A, -1 if none", 1.0
)
ROUTE_B = _signal(
    "hebt.route_b", "index", "room to which the switching dipoles lead, polarity sensor B, -1 if none", 1.0
)
RANGE_SHIFTER_B = _signal("rs.code_b", "code", "range shifters in the beam, bit mask, second set of switches", 1.0)
TIMING_TOKEN = _signal("timing.token", "token", "layer token that came with the last cycle event", 1.0)
FIRST_SLOW, LAST_SLOW = RF_FREQUENCY_REL, TIMING_TOKEN
RIPPLE_PLAN = _signal("ripple.plan_code", "code", "ripple filter the facility's tables were made for", 1.0)
# --- second line of monitors (ioc_sim.physics.second_line) -------------------------------------------------------
BACKUP_LAYER_IONS = _signal(
    "backup.layer_ions", "ions", "backup counter since the layer was loaded, 0 if none is active", 1000.0
)
BACKUP_OK = _signal("backup.ok", "bool", "the register of the backup counter gives a number and has not fallen")
BACKUP_REL = _signal("backup.rel", "1", "ions of the last 100 ms by the backup counter over those by chamber 2", 1e-4)
LAYER_PRESET_IONS = _signal(
    "layer.preset_ions", "ions", "ions that the loaded layer should get, without those it has had", 1000.0
)
LAYER_TIMER_MS = _signal(
    "timer.layer_ms", "ms", "backup timer: time with the spill commanded since the layer was loaded", 1.0
)
LAYER_EXPECTED_MS = _signal(
    "timer.expected_ms", "ms", "time with the spill commanded that the loaded layer should take", 1.0
)
BACKUP_FIELD_IONS = _signal(
    "backup.field_ions", "ions", "backup counter since the field was opened, 0 if no layer is active"
)
IC2_FIELD_IONS = _signal(
    "ic2.field_ions",
    "ions",
    "chamber 2 since the field was opened, and what it had had; 0 if no layer is active",
)
FIELD_PRESET_IONS = _signal("field.preset_ions", "ions", "ions that the field should get in all, 0 if none is open")
FIELD_TIMER_MS = _signal(
    "timer.field_ms", "ms", "second backup timer: time with the spill commanded since the field was opened"
)
FIELD_EXPECTED_MS = _signal(
    "field.expected_ms", "ms", "time with the spill commanded that the field should take in all"
)
RATE_REL = _signal("rate.rel", "1", "measured rate of the last 3 ms over what the extraction drive should give", 1e-3)
STRIP_WIDTH_X = _signal(
    "strip.width_x_rel", "1", "width of the beam at the strip chamber over that of the table, x", 1e-4
)
STRIP_WIDTH_Y = _signal(
    "strip.width_y_rel", "1", "width of the beam at the strip chamber over that of the table, y", 1e-4
)
STRIP_SUM_REL = _signal("strip.sum_rel", "1", "charge of the last 100 ms on the strips over that of chamber 1", 1e-4)
SCAN_SETTLE_MS = _signal(
    "scan.settle_ms", "ms", "how long the front end has waited for magnets beyond the time of the move", 1.0
)
# --- links and permits ------------------------------------------------------------------------------------------
LINK_P_OK = _signal("link.p_ok", "bool", "frames of the safety controller arrive in order and in time", 1.0)
P_PERMIT = _signal("p.permit", "bool", "the safety controller permits beam", 1.0)
P_HOLD = _signal("p.hold", "bool", "the safety controller asks for HOLD", 1.0)
H_PERMIT = _signal("h.permit", "bool", "no fast rule with ABORT or PAUSE is latched", 1.0)
H_LATCHED = _signal("h.latched", "mask", "latched fast rules 0 to 29, bit mask by position in the rule file", 1.0)
H_LATCHED_HIGH = _signal("h.latched_high", "mask", "latched fast rules from 30 on, bit mask", 1.0)
H_PRESENT = _signal("h.present", "mask", "fast rules 0 to 29 whose condition is present, bit mask", 1.0)
H_PRESENT_HIGH = _signal("h.present_high", "mask", "fast rules from 30 on whose condition is present, bit mask", 1.0)
H_FIRST = _signal("h.first", "index", "first fast rule that latched, -1 if none", 1.0)
H_HEARTBEAT = _signal("h.heartbeat", "count", "rises by one each 1 ms the fast evaluator lives (modulo 2^20)", 1.0)
PROOF_SEQ = _signal("proof.seq", "count", "number of the last proof action that is over", 1.0)
PROOF_A = _signal(
    "proof.a", "1", "first value of that action, in the unit of its test; no number if it gave none", 1e-4
)
PROOF_B = _signal("proof.b", "1", "second value", 1e-4)
PROOF_C = _signal("proof.c", "1", "third value", 1e-4)
PROOF_D = _signal("proof.d", "1", "fourth value", 1e-4)
PACING_LATE_MS = _signal("pacing.late_ms", "ms", "how late the plant runs behind its pace (0 in virtual time)", 0.1)

SIGNALS: tuple[Signal, ...] = tuple(_signals)
N_SIGNALS = len(SIGNALS)
INDEX: dict[str, int] = {signal.name: i for i, signal in enumerate(SIGNALS)}
IMAGE: tuple[int, ...] = tuple(i for i, signal in enumerate(SIGNALS) if signal.resolution > 0.0)
"""Indices of the signals that the safety link carries, in frame order."""
