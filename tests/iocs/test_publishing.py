"""What the groups publish, when, and with which severity; and that a resting plant publishes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from channels.protocol import Severity
from channels.publish import stamp_ns
from channels.pv_groups import declared
from facility import signals as g
from facility.pv_catalogue import FE_STATUS, PACING_STATUS, REGISTER_COLUMNS, RING_STATUS, SPILL_STATUS
from facility.states import FrontEndState, HoldReason, RingPhase
from facility.timebase import NS_PER_MS
from ioc_sim.breathing import Breathing
from ioc_sim.iocs.outlet import Outlet
from tests.iocs.fakes import Bench, wuwei

DOSE = [f"DOSE:IC{n}:{what}-RB" for n in (1, 2) for what in ("Counts", "Ions")]


def field(bench: Bench, name: str, fields: tuple[str, ...], wanted: str) -> float:
    return float(bench.value(name)[fields.index(wanted)])


def stamps(bench: Bench) -> dict[str, int]:
    return {name.split(":", 1)[1]: stamp_ns(pv) for name, pv in bench.iocs.pvdb.items()}


def test_everything_is_shown_at_the_start() -> None:
    bench = Bench()
    assert bench.value("RING:Phase-Sts") == RingPhase.STANDBY
    assert bench.value("DOSE:IC1:HV-RB") == wuwei()[0].chambers.ic1.voltage_v
    assert bench.value("ROOM:Door-Sts") == 1
    assert all(bench.severity(name.split(":", 1)[1]) == 0 for name in bench.iocs.pvdb if "Amplitude" not in name)


def test_a_resting_plant_publishes_heartbeat_and_time_alone() -> None:
    bench = Bench()
    noise = np.random.default_rng(3)
    axes = wuwei()[0].scanning
    before = stamps(bench)
    for _ in range(1000):
        for k, axis in enumerate((axes.x, axes.y)):
            bench.plant.raw["READ_A", k] = axis.readback_noise_a_rms * noise.standard_normal()
            probe = axis.probe_noise_a_rms * axis.tesla_metre_per_a
            bench.plant.raw["PROBE_TM", k] = probe * noise.standard_normal()
            bench.plant.raw["IC_READ", k] = bench.plant.t_ns * 1e-9 * 100.0
            bench.plant.signals[g.IC1_IONS + k] = bench.plant.t_ns * 1e-9 * 1000.0
        bench.run(10)
    moved = {name for name, t_ns in stamps(bench).items() if t_ns != before[name]}
    assert moved == {"PLANT:Heartbeat-RB", "PLANT:Time-RB"}
    assert bench.value("PLANT:Heartbeat-RB") == 40
    assert bench.value("PLANT:Time-RB") == pytest.approx(10.0)


def test_the_heartbeat_stands_still_with_the_plant() -> None:
    bench = Bench()
    bench.run(1000)
    beat = bench.value("PLANT:Heartbeat-RB")
    for _ in range(10):
        bench.iocs.update(bench.plant.t_ns)
    assert bench.value("PLANT:Heartbeat-RB") == beat


def test_front_end_states_are_shown_on_the_event() -> None:
    bench = Bench()
    bench.run(1000)
    bench.clock.advance_ns(10_000)
    bench.plant.set(state=FrontEndState.HELD, hold_reason=HoldReason.GATE, token=5, spot=3, spots=9, done_spots=3)
    assert bench.event("IMAGE") == 0, "not for the eyes of clients"
    assert bench.event("HELD") >= 3
    assert bench.value("FE:State-Sts") == FrontEndState.HELD
    assert bench.value("FE:Hold-Sts") == HoldReason.GATE
    assert field(bench, "FE:Status-RB", FE_STATUS, "token") == 5
    assert field(bench, "FE:Status-RB", FE_STATUS, "done_spots") == 3
    assert stamp_ns(bench.pv("FE:Status-RB")) == bench.plant.t_ns
    bench.clock.advance_ns(10_000)
    bench.plant.set(state=FrontEndState.IRRADIATING, hold_reason=HoldReason.SETTLING)
    bench.event("BEAM_ON")
    assert bench.value("FE:State-Sts") == FrontEndState.IRRADIATING, "10 us later"
    assert bench.value("FE:Hold-Sts") == HoldReason.NONE, "settling between spots is part of it"


@pytest.mark.parametrize(
    ("state", "severity"),
    [
        (FrontEndState.IRRADIATING, Severity.NO_ALARM),
        (FrontEndState.HELD, Severity.NO_ALARM),
        (FrontEndState.PAUSED, Severity.MINOR),
        (FrontEndState.ABORTED, Severity.MAJOR),
    ],
)
def test_front_end_severity(state: FrontEndState, severity: Severity) -> None:
    bench = Bench()
    bench.plant.set(state=state)
    bench.event("STATE")
    assert bench.severity("FE:State-Sts") == bench.severity("FE:Status-RB") == severity


def test_sequence_numbers_rise_by_one() -> None:
    bench = Bench()
    seen = []
    for token in range(1, 6):
        bench.plant.set(token=token)
        bench.event("STATE")
        seen.append(field(bench, "FE:Status-RB", FE_STATUS, "seq"))
    assert seen == [2.0, 3.0, 4.0, 5.0, 6.0]


def test_ring() -> None:
    bench = Bench()
    _, table = wuwei()
    bench.run(100)
    bench.plant.set(
        phase=RingPhase.FLAT_TOP, ring_token=7, energy_code=100, cycle=3, stored_ions=2e9, flat_top_ms=4000.0
    )
    bench.plant.raw |= {("RING_HZ", 0): 3.1e6, ("RING_TM", 0): 4.9}
    bench.event("PHASE")
    assert bench.value("RING:Phase-Sts") == RingPhase.FLAT_TOP
    assert [field(bench, "RING:Status-RB", RING_STATUS, name) for name in RING_STATUS[1:]] == [6, 7, 100, 3, 2e9, 4000]
    assert bench.value("RING:Energy-RB") == table.energy_mev_u[100]
    assert bench.value("RING:Frequency-RB") == 3.1e6
    assert bench.value("RING:Rigidity-RB") == 4.9  # by the programme, where no layer says what it should be
    bench.plant.set(phase=RingPhase.FAULT)
    bench.event("PHASE")
    assert bench.severity("RING:Phase-Sts") == Severity.MAJOR


async def test_measured_rigidity_follows_the_field_not_the_table() -> None:
    from tests.iocs.fakes import load_args, spot_table

    bench = Bench()
    table = spot_table()
    await bench.put("FE:Spots-SP", table.ravel())
    result = await bench.command("FE", "load_layer", load_args(table))
    assert result.status.value == "done"
    bench.plant.set(phase=RingPhase.FLAT_TOP, energy_code=100)
    bench.plant.signals[g.RING_BRHO_REL] = 1.002
    bench.run(1000)
    assert bench.value("RING:Rigidity-RB") == pytest.approx(1.002 * wuwei()[1].rigidity_tm[100], rel=1e-12)


def test_spill() -> None:
    bench = Bench()
    bench.run(500)
    for signal in (g.SPILL_CMD, g.RFKO_ON, g.QUAD_BLOCK, g.CHOPPER_BLOCK):
        bench.plant.signals[signal] = 1.0
    bench.plant.set(rate=9e7, level=1e8)
    bench.event("BEAM_ON")
    names = ("SPILL:RfKo-Sts", "SPILL:FastQuad-Sts", "SPILL:Chopper-Sts")
    assert [bench.value(name) for name in names] == [1, 1, 1]
    assert [field(bench, "SPILL:Status-RB", SPILL_STATUS, name) for name in SPILL_STATUS[1:]] == [9e7, 1e8, 1, 1, 1, 1]
    bench.plant.signals[g.IC1_IONS] += 5e7
    bench.run(500)
    assert bench.value("SPILL:Rate-RB") == pytest.approx(1e8)


def test_switching_between_spots_costs_two_updates_a_second() -> None:
    bench = Bench()
    before = [bench.pv("SPILL:RfKo-Sts"), bench.iocs.writes]
    seen = 0
    last = stamp_ns(before[0])
    for k in range(500):
        bench.plant.signals[g.RFKO_ON] = float(k % 2)
        bench.run(10)
        if stamp_ns(bench.pv("SPILL:RfKo-Sts")) != last:
            seen, last = seen + 1, stamp_ns(bench.pv("SPILL:RfKo-Sts"))
    assert seen <= 10


@pytest.mark.parametrize(
    ("signal", "name"),
    [
        (g.IC1_OK, "DOSE:IC1:Electronics-Sts"),
        (g.IC2_OK, "DOSE:IC2:Electronics-Sts"),
        (g.STRIP_OK, "DOSE:STRIP:Electronics-Sts"),
        (g.SCAN_OK, "SCAN:X:Power-Sts"),
        (g.SCAN_OK, "SCAN:Y:Power-Sts"),
    ],
)
@pytest.mark.parametrize("value", [0.0, math.nan])
def test_faults_of_electronics_are_major(signal: int, name: str, value: float) -> None:
    bench = Bench()
    bench.plant.signals[signal] = value
    bench.run(100)
    assert bench.value(name) == 1
    assert bench.severity(name) == Severity.MAJOR
    bench.plant.signals[signal] = 1.0
    bench.run(200)
    assert (bench.value(name), bench.severity(name)) == (0, Severity.NO_ALARM)


@pytest.mark.parametrize(
    ("volt", "severity"),
    [(300.0, 2), (350.0, 2), (370.0, 1), (400.0, 0), (1500.0, 0), (1650.0, 1), (1800.0, 2), (math.nan, 3)],
)
def test_high_voltage_alarms(volt: float, severity: int) -> None:
    bench = Bench()
    bench.plant.signals[g.IC2_HV_REL] = volt / wuwei()[0].chambers.ic2.voltage_v
    bench.run(100)
    assert bench.value("DOSE:IC2:HV-RB") == pytest.approx(volt, nan_ok=True)
    assert bench.severity("DOSE:IC2:HV-RB") == severity
    assert bench.severity("DOSE:IC1:HV-RB") == 0
    assert bench.run(1000) == 5, "said once: heartbeat and time go on"


def test_doses_are_exact_when_the_beam_has_gone() -> None:
    bench = Bench()
    bench.run(1000)
    bench.clock.advance_ns(10_000)
    bench.plant.raw["IC_READ", 0] = 3.0
    bench.plant.signals[g.IC1_IONS] = 42.0
    bench.run(50)
    assert bench.value("DOSE:IC1:Counts-RB") == 0.0
    bench.event("LAYER_DONE")
    assert bench.value("DOSE:IC1:Counts-RB") == 3.0
    assert bench.value("DOSE:IC1:Ions-RB") == 42.0
    bench.plant.raw["IC_READ", 1] = math.nan
    bench.event("ABORTED")
    assert bench.severity("DOSE:IC2:Counts-RB") == bench.severity("DOSE:IC2:Ions-RB") == Severity.INVALID


def test_the_strip_chamber_is_shown_while_beam_is_on() -> None:
    bench = Bench()
    bench.plant.raw |= {("STRIP_MM", 0): 1.5, ("STRIP_MM", 1): -2.5}
    bench.plant.signals[g.STRIP_ERR_X_MM] = 0.1
    bench.run(1000)
    assert list(bench.value("DOSE:STRIP:Centroid-RB")) == [1, 0, 0, 0, 0]
    bench.plant.set(state=FrontEndState.IRRADIATING)
    bench.plant.signals[g.STRIP_VALID] = 1.0
    bench.run(1000)
    assert list(bench.value("DOSE:STRIP:Centroid-RB")) == [2, 1.5, -2.5, 0.1, 0]
    bench.plant.raw["STRIP_MM", 0] = math.nan
    bench.run(2000)
    assert bench.value("DOSE:STRIP:Centroid-RB")[0] == 3, "said once"
    assert bench.severity("DOSE:STRIP:Centroid-RB") == Severity.INVALID


def test_room_and_transport() -> None:
    bench = Bench()
    rooms = list(wuwei()[0].rooms)
    assert bench.value("HEBT:Room-RB") == ""
    assert bench.value("HEBT:Stopper-Sts") == 1
    bench.plant.signals[[g.ROOM_TOKEN, g.HEBT_TOKEN, g.STOPPER_IN]] = 1.0, 2.0**31 - 1, 0.0
    bench.run(100)
    assert bench.value("HEBT:Room-RB") == rooms[1]
    assert bench.value("HEBT:Token-RB") == 2**31 - 1
    assert bench.value("HEBT:Stopper-Sts") == 0
    bench.plant.signals[[g.ROOM_TOKEN, g.HEBT_TOKEN]] = math.nan
    bench.run(100)
    assert (bench.value("HEBT:Room-RB"), bench.severity("HEBT:Room-RB")) == ("", Severity.INVALID)
    assert (bench.value("HEBT:Token-RB"), bench.severity("HEBT:Token-RB")) == (-1, Severity.INVALID)


@pytest.mark.parametrize(
    ("a", "b", "value", "door", "estop"),
    [(1, 1, 1, 0, 0), (1, 0, 0, 2, 2), (0, 1, 0, 2, 2), (math.nan, 1, 0, 2, 2), (0, 0, 0, 0, 2)],
)
def test_two_contacts_that_contradict_each_other_are_a_fault(
    a: float, b: float, value: int, door: int, estop: int
) -> None:
    bench = Bench()
    bench.plant.signals[[g.DOOR_A, g.ESTOP_A]] = a
    bench.plant.signals[[g.DOOR_B, g.ESTOP_B]] = b
    bench.run(100)
    assert (bench.value("ROOM:Door-Sts"), bench.severity("ROOM:Door-Sts")) == (value, door)
    assert (bench.value("ROOM:EStop-Sts"), bench.severity("ROOM:EStop-Sts")) == (value, estop)


def test_range_shifter_moves_until_the_switches_agree() -> None:
    bench = Bench()
    bench.plant.raw["range_shifter_asked", 0] = 2.0
    bench.run(100)
    assert (bench.value("RS:Moving-Sts"), bench.value("RS:Code-RB")) == (1, 0)
    bench.plant.signals[g.RANGE_SHIFTER] = 2.0
    bench.run(100)
    assert (bench.value("RS:Moving-Sts"), bench.value("RS:Code-RB")) == (0, 2)


def test_gate_with_and_without_gating() -> None:
    without = Bench()
    assert without.severity("GATE:Amplitude-RB") == Severity.INVALID
    breathing = Breathing.of(wuwei()[0])
    bench = Bench(breathing=breathing)
    bench.plant.signals[g.GATE_OPEN] = 0.0
    written = bench.run(10_000)
    assert bench.value("GATE:Open-Sts") == 0
    assert bench.severity("GATE:Amplitude-RB") == 0
    t_ns = stamp_ns(bench.pv("GATE:Amplitude-RB"))
    assert bench.value("GATE:Amplitude-RB") == breathing.amplitude_mm(t_ns)
    assert written <= 50 + 50 + 2, "5 Hz, beside heartbeat and time"


def test_scanning_supplies() -> None:
    bench = Bench()
    bench.plant.raw |= {("SET_A", 1): 50.0, ("READ_A", 1): 50.2, ("PROBE_TM", 1): 0.01}
    bench.run(1000)
    assert [bench.value(f"SCAN:Y:{name}") for name in ("Current-SP", "Current-RB", "Field-RB")] == [50.0, 50.2, 0.01]
    assert bench.value("SCAN:X:Current-RB") == 0.0


def test_the_register_is_shown_when_a_layer_ends() -> None:
    bench = Bench()
    bench.plant.rows = np.arange(2.0 * len(REGISTER_COLUMNS)).reshape(2, -1)
    bench.event("BEAM_ON")
    assert len(bench.value("FE:Register-RB")) == 0
    bench.event("LAYER_DONE")
    assert np.array_equal(bench.value("FE:Register-RB").reshape(2, -1), bench.plant.rows)
    bench.plant.rows[0, 0] = -1.0
    assert bench.value("FE:Register-RB")[0] == 0.0, "a copy"


def test_pacing() -> None:
    bench = Bench()
    bench.iocs.set_pacing(3, 12.5, 40.0, 2.0)
    bench.run(1100)
    assert [field(bench, "PLANT:Pacing-RB", PACING_STATUS, name) for name in PACING_STATUS[1:]] == [3, 12.5, 40.0, 2.0]


def test_refresh_says_everything_again() -> None:
    bench = Bench()
    bench.clock.advance_ns(7 * NS_PER_MS)
    before = bench.iocs.writes
    bench.iocs.refresh()
    shown = [name for name, t_ns in stamps(bench).items() if t_ns == bench.plant.t_ns]
    assert bench.iocs.writes - before == len(shown)
    assert {"RING:Phase-Sts", "FE:Status-RB", "DOSE:IC1:HV-RB", "PLANT:Time-RB", *DOSE} <= set(shown)


def test_beam_costs_few_updates() -> None:
    """All that moves while beam is on, at its fastest."""
    bench = Bench()
    bench.plant.set(phase=RingPhase.FLAT_TOP, state=FrontEndState.IRRADIATING, spots=1000, level=1e8, stored_ions=5e9)
    bench.plant.signals[[g.STRIP_VALID, g.SPILL_CMD]] = 1.0
    bench.event("BEAM_ON")
    rng = np.random.default_rng(1)
    before = bench.iocs.writes
    for k in range(1000):
        bench.plant.signals[g.RFKO_ON] = bench.plant.signals[g.QUAD_BLOCK] = float(k % 2)
        for name in ("SET_A", "READ_A", "PROBE_TM", "STRIP_MM"):
            for i in range(2):
                bench.plant.raw[name, i] = rng.normal() * 100.0
        for i in range(2):
            bench.plant.raw["IC_READ", i] = k * 1e5
        bench.plant.signals[[g.IC1_IONS, g.IC2_IONS]] = k * 1e6
        bench.plant.set(spot=k, done_spots=k, stored_ions=5e9 - k * 1e6, ic1_ions=k * 1e6, demand=bool(k % 2))
        bench.run(10)
    per_second = (bench.iocs.writes - before) / 10.0
    assert per_second <= 45.0, "60 s of beam in 150 s stay within 6,000 updates"


def test_outlet_interval_holds_back_and_then_shows_the_last() -> None:
    from channels.pv_groups import CataloguedGroup
    from facility.timebase import ManualClock

    class One(CataloguedGroup):
        amplitude = declared("GATE:Amplitude-RB")

    channel = One("P", ManualClock()).channel("GATE:Amplitude-RB")
    outlet = Outlet(channel, least_ns=100, deadband=0.5)
    assert outlet.offer(1.0, 0)
    assert not outlet.offer(2.0, 99)
    assert outlet.offer(2.0, 99, now=True)
    assert not outlet.offer(2.4, 500)
    assert outlet.offer(2.4, 500, now=True)
    assert outlet.offer(math.nan, 1000)
    assert not outlet.offer(math.nan, 2000)
    assert outlet.offer(0.0, 3000)
    assert outlet.offer(0.0, 4000, severity=2), "a change of severity is a change"
    assert channel.alarm.severity == 2
    assert outlet.writes == 6
