"""Every process variable, declared once: type, unit, limits, writer and a sentence.

Names follow ``<prefix>:<system>:<device>:<signal>``: SP set point, RB readback, Sts state, Cmd command.  ``{P}`` is the
facility's prefix.  The groups of the soft IOCs take their properties from here and a test holds both together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from facility.states import FrontEndState, HoldReason, RingPhase, SearchStage

Kind = Literal["float", "int", "enum", "string", "bytes", "floats"]
Server = Literal["plant", "safety", "control"]
Writer = Literal["nobody", "command", "control", "operator"]

COMMAND_BYTES = 4096
RESULT_BYTES = 4096
REGISTER_COLUMNS = (
    "spot", "target_ions", "start_ions", "ic1_ions", "ic2_ions", "x_mm", "y_mm", "beam_us", "t_end_ns", "done",
)  # fmt: skip
"""Columns of the per-spot register; ``start_ions`` was delivered before this load (resume)."""
SPOT_COLUMNS = (
    "x_mm",
    "y_mm",
    "x_set_a",
    "y_set_a",
    "target_ions",
    "start_ions",
    "beam_off_move",
    "limit_us",
)
"""Columns of the layer table a front end loads; ``beam_off_move`` is 1 when the move to the spot is without beam."""
FE_STATUS = (
    "seq", "state", "hold_reason", "token", "spot", "spots", "done_spots", "ic1_ions", "ic2_ions", "demand", "permit",
    "beam_us", "first_rule", "permit_epoch", "backup_ions",
)  # fmt: skip
"""`backup_ions`: of a layer that is done, by the backup counter; else 0."""
RING_STATUS = ("seq", "phase", "token", "energy_code", "cycle", "ions", "flat_top_ms")
SPILL_STATUS = ("seq", "rate_ions_per_s", "level_ions_per_s", "cmd", "rfko_on", "quad_block", "chopper_block")
PACING_STATUS = ("seq", "late_slices", "worst_late_ms", "slip_ms", "speed")
LATENESS_STATUS = (
    "seq", "late_ticks", "to_1_ms", "to_2_ms", "to_5_ms", "to_10_ms", "to_20_ms", "to_50_ms", "to_100_ms", "to_200_ms",
    "to_500_ms", "above",
)  # fmt: skip
"""Ticks that were run late, and slices of the plant by how late they were, ms of wall time."""
LINK_STATUS = ("seq", "gap_ms", "worst_ms", "p999_ms", "watchdog_ms", "windows", "bad_frames", "trips")
"""The safety link as one end hears the other; ms of wall time between good frames, the longest of the last second."""
PROGRESS = (
    "seq", "state", "beam", "layer", "layers", "spots_done", "spots", "ions_done", "ions", "beam_on_s", "facility_s",
)  # fmt: skip
MAX_SPOTS_PER_LAYER = 20_000


@dataclass(frozen=True)
class PvEntry:
    """One process variable.  ``limits`` are drive limits, ``alarms`` are (lolo, low, high, hihi), all in ``unit``."""

    name: str
    server: Server
    group: str
    kind: Kind
    description: str
    unit: str = ""
    precision: int = 3
    writer: Writer = "nobody"
    limits: tuple[float, float] | None = None
    alarms: tuple[float, float, float, float] | None = None
    states: tuple[str, ...] = ()
    length: int = 1
    fields: tuple[str, ...] = ()
    """Names of the elements (or columns) of a waveform."""

    def full_name(self, prefix: str) -> str:
        """The name on the wire for a facility whose prefix is ``prefix``."""
        return f"{prefix}:{self.name}"


_RING = tuple(phase.name for phase in RingPhase)
_SEARCH = tuple(stage.name for stage in SearchStage)
_FE = tuple(state.name for state in FrontEndState)
_HOLD = tuple(reason.name for reason in HoldReason)
TCS_STATES = (
    "STANDBY", "LOADED", "PREPARED", "READY", "SELECT_ENERGY", "LOAD_SPOTS", "ARMED", "IRRADIATING", "HELD",
    "VERIFY_LAYER", "COMPLETED", "INTERRUPTED", "TERMINATED",
)  # fmt: skip
OFF_ON = ("OFF", "ON")
PASS_BLOCK = ("PASS", "BLOCK")
OK_FAULT = ("OK", "FAULT")


def _command(group: str, server: Server, who: str) -> tuple[PvEntry, ...]:
    return (
        PvEntry(f"{group}:Cmd", server, group, "bytes", f"signed command to {who}, canonical JSON", writer="command",
                length=COMMAND_BYTES),
        PvEntry(f"{group}:Cmd-Result", server, group, "bytes", f"result of the last command to {who}, canonical JSON",
                length=RESULT_BYTES),
    )  # fmt: skip


def _scan(axis: str) -> tuple[PvEntry, ...]:
    g = f"SCAN:{axis}"
    return (
        PvEntry(f"{g}:Current-SP", "plant", g, "float", f"set point of scanning supply {axis}", "A",
                limits=(-600, 600)),
        PvEntry(f"{g}:Current-RB", "plant", g, "float", f"current readback of scanning supply {axis}", "A"),
        PvEntry(f"{g}:Field-RB", "plant", g, "float", f"integrated field by the probe, magnet {axis}", "T m", 5),
        PvEntry(f"{g}:Power-Sts", "plant", g, "enum", f"state of scanning supply {axis}", states=OK_FAULT),
    )  # fmt: skip


def _chamber(n: int) -> tuple[PvEntry, ...]:
    g = f"DOSE:IC{n}"
    return (
        PvEntry(f"{g}:Counts-RB", "plant", g, "float", f"cumulative counts of integral chamber {n}", "count", 0),
        PvEntry(f"{g}:Ions-RB", "plant", g, "float", f"cumulative ions by integral chamber {n}", "ions", 0),
        PvEntry(f"{g}:HV-RB", "plant", g, "float", f"high voltage of integral chamber {n}", "V", 1,
                alarms=(350.0, 380.0, 1620.0, 1700.0)),
        PvEntry(f"{g}:Electronics-Sts", "plant", g, "enum", f"electronics of integral chamber {n}", states=OK_FAULT),
    )  # fmt: skip


CATALOGUE: tuple[PvEntry, ...] = (
    # synchrotron
    PvEntry("RING:Phase-Sts", "plant", "RING", "enum", "phase of the synchrotron cycle", states=_RING),
    PvEntry("RING:Status-RB", "plant", "RING", "floats", "ring state, values that change together",
            length=len(RING_STATUS), fields=RING_STATUS),
    PvEntry("RING:Energy-RB", "plant", "RING", "float", "energy of the cycle", "MeV/u"),
    PvEntry("RING:Rigidity-RB", "plant", "RING", "float", "measured magnetic rigidity", "T m", 5),
    PvEntry("RING:Frequency-RB", "plant", "RING", "float", "revolution frequency on the flat top", "Hz", 1),
    PvEntry("RING:Ions-RB", "plant", "RING", "float", "stored ions by the current transformer", "ions", 0),
    *_command("RING", "plant", "the ring: request_cycle, end_cycle"),
    # extraction and spill
    PvEntry("SPILL:Status-RB", "plant", "SPILL", "floats", "spill state, values that change together",
            length=len(SPILL_STATUS), fields=SPILL_STATUS),
    PvEntry("SPILL:Rate-RB", "plant", "SPILL", "float", "spill rate by chamber 1 since the last update", "ions/s", 0),
    PvEntry("SPILL:RfKo-Sts", "plant", "SPILL", "enum", "extraction device", states=OFF_ON),
    PvEntry("SPILL:FastQuad-Sts", "plant", "SPILL", "enum", "fast quadrupole", states=PASS_BLOCK),
    PvEntry("SPILL:Chopper-Sts", "plant", "SPILL", "enum", "chopper of the transport line", states=PASS_BLOCK),
    # transport and room
    PvEntry("HEBT:Token-RB", "plant", "HEBT", "int", "layer token of the transport table in force"),
    PvEntry("HEBT:Set-RB", "plant", "HEBT", "int",
            "number of the set points that the transport devices have taken up, by the energy table; 0 if none"),
    PvEntry("HEBT:Room-RB", "plant", "HEBT", "string", "room that holds the beam token"),
    PvEntry("HEBT:Stopper-Sts", "plant", "HEBT", "enum", "beam stopper of the room", states=("OUT", "IN")),
    PvEntry("ROOM:Door-Sts", "plant", "ROOM", "enum", "door of the treatment room", states=("OPEN", "CLOSED")),
    PvEntry("ROOM:EStop-Sts", "plant", "ROOM", "enum", "emergency stop chain", states=("PRESSED", "OK")),
    PvEntry("ROOM:Search-Sts", "plant", "ROOM", "enum", "search of the treatment room", states=_SEARCH),
    PvEntry("ROOM:Personnel-Sts", "plant", "ROOM", "enum", "personnel chain: lets the stopper out, the source inject",
            states=("OFF", "OK")),
    PvEntry("ROOM:Source-Sts", "plant", "ROOM", "enum", "source inhibit", states=("FREE", "INHIBITED")),
    *_command("ROOM", "plant", "the panels in the room: press_search, move_door, press_estop, release_estop, turn_key"),
    # scanning magnets
    *_scan("X"),
    *_scan("Y"),
    # dose monitors
    *_chamber(1),
    *_chamber(2),
    PvEntry("DOSE:STRIP:Centroid-RB", "plant", "DOSE:STRIP", "floats",
            "centroid of the last valid window at isocentre: sequence, x, y, error x, error y", "mm", length=5,
            fields=("seq", "x_mm", "y_mm", "err_x_mm", "err_y_mm")),
    PvEntry("DOSE:STRIP:Electronics-Sts", "plant", "DOSE:STRIP", "enum", "electronics of the strip chamber",
            states=OK_FAULT),
    # delivery front end
    PvEntry("FE:State-Sts", "plant", "FE", "enum", "state of the delivery front end", states=_FE),
    PvEntry("FE:Hold-Sts", "plant", "FE", "enum", "why an armed layer is not irradiating", states=_HOLD),
    PvEntry("FE:Status-RB", "plant", "FE", "floats", "front-end state, values that change together",
            length=len(FE_STATUS), fields=FE_STATUS),
    PvEntry("FE:Spots-SP", "plant", "FE", "floats", "layer table, row-major; taken over by the load_layer command",
            writer="control", length=MAX_SPOTS_PER_LAYER * len(SPOT_COLUMNS), fields=SPOT_COLUMNS),
    PvEntry("FE:Register-RB", "plant", "FE", "floats", "per-spot register of the loaded layer, row-major",
            length=MAX_SPOTS_PER_LAYER * len(REGISTER_COLUMNS), fields=REGISTER_COLUMNS),
    *_command("FE", "plant",
              "the front end: open_field, load_layer, arm, disarm, pause, resume, read_register, read_dose"),
    # range shifter
    PvEntry("RS:Code-RB", "plant", "RS", "int", "range shifters in the beam, bit mask"),
    PvEntry("RS:Moving-Sts", "plant", "RS", "enum", "range shifter drive", states=("STILL", "MOVING")),
    *_command("RS", "plant", "the range shifter: insert"),
    # gate
    PvEntry("GATE:Amplitude-RB", "plant", "GATE", "float", "breathing surrogate", "mm", 2),
    PvEntry("GATE:Open-Sts", "plant", "GATE", "enum", "motion gate", states=("CLOSED", "OPEN")),
    # the plant itself
    PvEntry("PLANT:Time-RB", "plant", "PLANT", "float", "facility time", "s", 3),
    PvEntry("PLANT:Heartbeat-RB", "plant", "PLANT", "int", "rises while the plant process lives"),
    PvEntry("PLANT:Pacing-RB", "plant", "PLANT", "floats", "pacing of the plant", length=len(PACING_STATUS),
            fields=PACING_STATUS),
    PvEntry("PLANT:Lateness-RB", "plant", "PLANT", "floats", "late ticks, and slices by how late they were",
            precision=0, length=len(LATENESS_STATUS), fields=LATENESS_STATUS),
    PvEntry("PLANT:External-RB", "plant", "PLANT", "bytes", "canonical JSON list of external devices: age, value, ok",
            length=RESULT_BYTES),
    PvEntry("PLANT:Link-RB", "plant", "PLANT", "floats", "how the rack hears the safety controller",
            length=len(LINK_STATUS), fields=LINK_STATUS),
    # safety controller
    PvEntry("SAFE:Permit-Sts", "safety", "SAFE", "enum", "beam permit of the safety controller",
            states=("NO_BEAM", "BEAM_PERMITTED")),
    PvEntry("SAFE:Action-Sts", "safety", "SAFE", "enum", "strongest action in force",
            states=("NONE", "INHIBIT", "HOLD", "PAUSE", "ABORT")),
    PvEntry("SAFE:FirstFault-RB", "safety", "SAFE", "string", "id of the first rule that tripped since the reset"),
    PvEntry("SAFE:Latched-RB", "safety", "SAFE", "bytes", "canonical JSON list of latched rules: value, limit, time",
            length=RESULT_BYTES),
    PvEntry("SAFE:Bypassed-RB", "safety", "SAFE", "bytes", "canonical JSON list of bypasses: reason, by, end",
            length=RESULT_BYTES),
    PvEntry("SAFE:Mode-Sts", "safety", "SAFE", "enum", "operating mode", states=("CLINICAL", "QA", "SERVICE")),
    PvEntry("SAFE:Key-Sts", "safety", "SAFE", "enum", "mode key switch against the mode that was set",
            states=("DISAGREES", "AGREES")),
    PvEntry("SAFE:Field-RB", "safety", "SAFE", "string", "session of the field under way, empty if it has none"),
    PvEntry("SAFE:Field-Sts", "safety", "SAFE", "enum", "account of the field", states=("IDLE", "BEGUN", "UNRESOLVED")),
    PvEntry("SAFE:Pauses-RB", "safety", "SAFE", "int", "times the permit of the field was interrupted"),
    PvEntry("SAFE:Proof-Sts", "safety", "SAFE", "enum", "pre-beam proof tests: some missing, being run, all valid",
            states=("DUE", "RUNNING", "VALID")),
    PvEntry("SAFE:Proof-RB", "safety", "SAFE", "bytes", "canonical JSON list of the proof tests: value, limits, time",
            length=2 * RESULT_BYTES),
    PvEntry("SAFE:Heartbeat-RB", "safety", "SAFE", "int", "rises while the safety controller scans"),
    PvEntry("SAFE:Link-RB", "safety", "SAFE", "floats", "how the safety controller hears the rack",
            length=len(LINK_STATUS), fields=LINK_STATUS),
    PvEntry("SAFE:KeepAlive", "safety", "SAFE", "bytes", "signed keep-alive frame of the operator's console",
            writer="command", length=512),
    PvEntry("SAFE:TcsKeepAlive", "safety", "SAFE", "bytes", "signed keep-alive frame of control, lines of tier T",
            writer="command", length=512),
    *_command("SAFE", "safety", "the safety controller: reset, set_mode, bypass, resolve, ..."),
    # treatment control
    PvEntry("TCS:State-Sts", "control", "TCS", "enum", "state of the layer machine", states=TCS_STATES),
    PvEntry("TCS:Progress-RB", "control", "TCS", "floats", "progress of the session", length=len(PROGRESS),
            fields=PROGRESS),
    PvEntry("TCS:Session-RB", "control", "TCS", "string", "session id, empty if none"),
    PvEntry("TCS:Message-RB", "control", "TCS", "bytes", "last message to the operator", length=512),
    PvEntry("TCS:Summary-RB", "control", "TCS", "bytes", "canonical JSON summary of the last finished session",
            length=262_144),
    PvEntry("TCS:Heartbeat-RB", "control", "TCS", "int", "rises while control lives"),
    *_command("TCS", "control", "treatment control: load, prepare, start, pause, resume, stop, close"),
)  # fmt: skip

BY_NAME: dict[str, PvEntry] = {entry.name: entry for entry in CATALOGUE}


def entries(server: Server | None = None, group: str | None = None) -> Iterator[PvEntry]:
    """Entries of one server or group (all if None), in catalogue order.  Rule PVs of the safety IOC are made from the
    rules themselves: see ``interlocks.pvs``."""
    for entry in CATALOGUE:
        if (server is None or entry.server == server) and (group is None or entry.group == group):
            yield entry
