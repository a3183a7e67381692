"""What a facility refuses and how it says so; what an accepted plan becomes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from control.plan.check import check_plan, examine_plan
from control.plan.load import load_plan
from control.plan.maker import make_small_plan
from control.plan.model import Beam, Layer, Plan, RangeShifter, make_layer
from control.plan.optics import positions_mm
from control.plan.program import MachineProgram, compile_program, layer_token, summary
from control.plan.timing import CycleClock
from facility.config import Facility, load_facility
from facility.energy_table import load_energy_table
from facility.errors import PlanError, UsageError

Find = Callable[[str], Path]


@pytest.fixture(scope="module")
def wuwei() -> Facility:
    return load_facility("wuwei")


@pytest.fixture(scope="module")
def pimms() -> Facility:
    return load_facility("pimms")


def layer_at(energy: float = 280.0, x: float = 0.0, weight: float = 1e6, n: int = 9, **more: int) -> Layer:
    """A row of spots along y; the last one at x with this weight."""
    xs, ws = np.zeros(n), np.full(n, 1e6)
    xs[-1], ws[-1] = x, weight
    layer = make_layer("field", 3, 0, energy_mev_u=energy, x_mm=xs, y_mm=np.linspace(-8, 8, n), weight=ws, **more)
    if layer is None:
        raise ValueError("no weight")
    return layer


def plan_of(*layers: Layer, unit: str = "NP", **beam: object) -> Plan:
    values: dict[str, object] = {
        "number": 3, "name": "field", "species": "carbon", "mass_number": 12, "charge_state": 6,
        "gantry_angle_deg": 90.0, "support_angle_deg": 0.0, "range_shifters": (), "meterset": 0.0,
        "meterset_unit": unit, "layers": layers,
    }  # fmt: skip
    made = Beam(**(values | beam))  # type: ignore[arg-type]
    return Plan("p", "QA", "2.25.1", "maker", unit, (made,))  # type: ignore[arg-type]


def refusal(plan: Plan, facility: Facility, room: str = "1", *, qa: bool = False) -> PlanError:
    with pytest.raises(PlanError) as caught:
        check_plan(plan, facility, room, qa=qa)
    with pytest.raises(PlanError):
        compile_program(plan, facility, room, qa=qa)
    assert caught.value.exit_code == 4
    return caught.value


def with_shifters(*shifters: RangeShifter) -> Plan:
    return plan_of(layer_at(), range_shifters=shifters)


PROTONS = {"species": "proton", "mass_number": 1, "charge_state": 1}
RS10 = RangeShifter("RS10", 10.0)


@pytest.mark.parametrize(
    ("plan", "code", "where", "words"),
    [
        (plan_of(layer_at(), **PROTONS), "plan.species", "beam 3 'field'", "carbon (6+)"),
        (plan_of(layer_at(), charge_state=5), "plan.species", "beam 3 'field'", "carbon (5+)"),
        (plan_of(layer_at(), layer_at(430.0)), "plan.energy", "layer 1", "120.00 to 400.00"),
        (plan_of(layer_at(90.0)), "plan.energy", "layer 0", "mm of range away"),
        (plan_of(layer_at(1e6)), "plan.energy", "layer 0", "mm of range away"),
        (plan_of(layer_at(), layer_at(270.0, x=100.5)), "plan.scan-field", "layer 1, spot 8", "(100.50, 8.00) mm"),
        (plan_of(layer_at(weight=100.0)), "plan.spot-too-small", "layer 0, spot 8", "counts of the first chamber"),
        (plan_of(layer_at(), gantry_angle_deg=10.0), "plan.angle", "beam 3 'field'", "gantry 10"),
        (plan_of(layer_at(), support_angle_deg=90.0), "plan.angle", "beam 3 'field'", "support 90"),
        (with_shifters(RangeShifter("RS99", None)), "plan.range-shifter", "beam 3", "RS10 (10 mm)"),
        (with_shifters(RangeShifter("RS10", 12.0)), "plan.range-shifter", "beam 3", "12 mm of water"),
        (with_shifters(RS10, RS10), "plan.range-shifter", "beam 3", "twice"),
        (plan_of(layer_at(), accessories=("block",)), "plan.accessory", "beam 3", "block"),
        (plan_of(layer_at(n=4000, paintings=6)), "plan.too-many-spots", "layer 0", "20000 spots a layer"),
    ],
)  # fmt: skip
def test_refused_by_name(plan: Plan, code: str, where: str, words: str, wuwei: Facility) -> None:
    error = refusal(plan, wuwei)
    assert error.code == code
    assert where in error.where
    assert words in str(error)


def test_nan_that_slipped_past_the_readers(wuwei: Facility) -> None:
    layer = layer_at()
    weight = layer.weight.copy()
    weight[4] = np.nan
    error = refusal(plan_of(dataclasses.replace(layer, weight=weight)), wuwei)
    assert (error.code, error.where) == ("plan.not-finite", "beam 3 'field', layer 0, spot 4")


def test_the_spot_is_named_by_its_index_in_the_file(wuwei: Facility) -> None:
    layer = make_layer("field", 3, 0, energy_mev_u=280.0, x_mm=[0, 0, 150], y_mm=[0, 2, 0], weight=[0.0, 1e6, 1e6])
    assert layer is not None
    assert refusal(plan_of(layer), wuwei).where == "beam 3 'field', layer 0, spot 2"


def test_one_message_counts_the_others(wuwei: Facility) -> None:
    plan = plan_of(layer_at(x=150.0), layer_at(430.0), layer_at(weight=50.0), gantry_angle_deg=10.0)
    error = refusal(plan, wuwei)
    assert "(and 3 more problems)" in error.what
    check, problems = examine_plan(plan, wuwei, "1")
    assert check is None
    assert [p.code for p in problems] == ["plan.angle", "plan.scan-field", "plan.energy", "plan.spot-too-small"]


def test_a_room_that_is_not_there(wuwei: Facility) -> None:
    with pytest.raises(UsageError, match="no room '9'"):
        check_plan(plan_of(layer_at()), wuwei, "9")


def test_qa_delivers_at_the_fixed_angle_and_says_so(wuwei: Facility) -> None:
    plan = plan_of(layer_at(), gantry_angle_deg=10.0, support_angle_deg=45.0)
    check = check_plan(plan, wuwei, "4", qa=True)
    assert (check.beams[0].planned_angle_deg, check.beams[0].delivered_angle_deg) == (10.0, 45.0)
    words = "QA: beam 3 'field' is planned for gantry 10 and support 45 degrees, delivered at the fixed 45"
    assert check.notes[0].startswith(words)
    program = compile_program(plan, wuwei, "4", qa=True)
    assert program.qa
    assert program.notes == check.notes


@pytest.mark.parametrize(("name", "told"), [("wuwei", 0), ("", 0), ("GTR1", 1)])
def test_a_plan_that_names_another_machine_is_told_of(wuwei: Facility, name: str, told: int) -> None:
    check = check_plan(plan_of(layer_at(), machine_name=name), wuwei, "1")
    assert [note for note in check.notes if "machine" in note] == ["the plan names the machine GTR1; this is wuwei"][
        :told
    ]


def test_a_room_with_two_angles_takes_the_one_that_is_planned(wuwei: Facility) -> None:
    for angle in (90.0, 0.0, 359.95):
        check = check_plan(plan_of(layer_at(), gantry_angle_deg=angle), wuwei, "3")
        assert abs((check.beams[0].delivered_angle_deg - angle + 180.0) % 360.0 - 180.0) < 0.1


def test_energies_off_the_grid_take_the_nearest_code_and_record_it(wuwei: Facility) -> None:
    table = load_energy_table(wuwei, "carbon")
    between = 0.5 * float(table.energy_mev_u[150] + table.energy_mev_u[151])
    layer = check_plan(plan_of(layer_at(between)), wuwei, "1").layers[0]
    assert layer.energy_code in (150, 151)
    assert 0.4 < abs(layer.range_deviation_mm) < 0.55
    exact = check_plan(plan_of(layer_at(float(table.energy_mev_u[150]))), wuwei, "1").layers[0]
    assert exact.energy_code == 150
    assert abs(exact.range_deviation_mm) < 1e-3


def test_every_energy_between_the_ends_is_accepted(pimms: Facility) -> None:
    for species in ("proton", "carbon"):
        table = load_energy_table(pimms, species)
        for energy in np.linspace(table.energy_mev_u[0], table.energy_mev_u[-1], 200):
            mass, charge = (1, 1) if species == "proton" else (12, 6)
            layer = layer_at(float(energy), weight=1e8)
            heavy = dataclasses.replace(layer, weight=layer.weight * 100.0)
            plan = plan_of(heavy, species=species, mass_number=mass, charge_state=charge)
            assert abs(check_plan(plan, pimms, "1").layers[0].range_deviation_mm) <= 0.51


def test_range_shifters_by_id_or_thickness(wuwei: Facility) -> None:
    wanted = (RangeShifter("RS30", None), RangeShifter("vendor", 10.05))
    check = check_plan(plan_of(layer_at(), range_shifters=wanted), wuwei, "1")
    assert check.beams[0].range_shifter_ids == ("RS10", "RS30")
    assert check.beams[0].range_shifter_code == 0b101


# programs ------------------------------------------------------------------------------------------------------------


def test_mu_become_ions_by_the_factor_of_the_room(wuwei: Facility) -> None:
    small = dataclasses.replace(layer_at(), weight=layer_at().weight / 1e5)
    program = compile_program(plan_of(small, unit="MU"), wuwei, "1")
    layer = program.layers[0]
    charge_fc = load_energy_table(wuwei, "carbon").room("1").charge_per_ion_ic1_fc[layer.energy_code]
    factor = wuwei.species["carbon"].mu_reference_fc / float(charge_fc)
    np.testing.assert_allclose(layer.target_ions, small.weight * factor, rtol=1e-6)


def test_paintings_repeat_the_spots_with_divided_weights(wuwei: Facility) -> None:
    once = compile_program(plan_of(layer_at()), wuwei, "1").layers[0]
    thrice = compile_program(plan_of(layer_at(paintings=3)), wuwei, "1").layers[0]
    assert thrice.n_spots == 3 * once.n_spots
    assert thrice.total_ions == pytest.approx(once.total_ions, rel=1e-12)
    np.testing.assert_array_equal(thrice.spot_index, np.tile(np.arange(once.n_spots), 3))
    np.testing.assert_array_equal(thrice.x_set_a, np.tile(once.x_set_a, 3))


def test_program_of_a_made_plan(wuwei: Facility) -> None:
    plan = make_small_plan(wuwei, "carbon")
    table = load_energy_table(wuwei, "carbon")
    for room_id in wuwei.rooms:
        program = compile_program(plan, wuwei, room_id, qa=True)
        assert program.n_spots == plan.n_spots
        assert program.total_ions == plan.beams[0].meterset
        for layer in program.layers:
            assert layer.transport_set == table.room(room_id).set_number(layer.energy_code)
            back = positions_mm(layer.x_set_a, layer.y_set_a, table.room(room_id), layer.energy_code)
            np.testing.assert_allclose(back, (layer.x_mm, layer.y_mm), atol=1e-9)
            levels = wuwei.species["carbon"].intensity_levels_ions_per_s
            assert layer.intensity_ions_per_s == levels[layer.level_index]
            assert layer.target_ions.min() / layer.intensity_ions_per_s >= 300e-6
            for column in (layer.x_mm, layer.x_set_a, layer.target_ions, layer.spot_index):
                assert not column.flags.writeable


def same(a: MachineProgram, b: MachineProgram) -> bool:
    pairs = zip(a.layers, b.layers, strict=True)
    alike = all(p.token == q.token and p.x_set_a.tobytes() == q.x_set_a.tobytes() for p, q in pairs)
    return alike and summary(a) == summary(b)


def test_same_plan_same_program_and_tokens_tell_layers_apart(wuwei: Facility) -> None:
    plan = make_small_plan(wuwei, "carbon")
    program = compile_program(plan, wuwei, "1")
    assert same(program, compile_program(plan, wuwei, "1"))
    tokens = [layer.token for layer in program.layers]
    assert len(set(tokens)) == len(tokens)
    assert all(0 < token < 2**31 for token in tokens)
    assert layer_token("a", 0, 0) != layer_token("a", 0, 1) != layer_token("b", 0, 1)
    assert layer_token("a", 0, 0, 1) != layer_token("a", 0, 0)


def test_summary_is_json_and_adds_up(wuwei: Facility) -> None:
    program = compile_program(make_small_plan(wuwei, "carbon"), wuwei, "1")
    rows = summary(program)
    json.dumps(rows, allow_nan=False)
    assert sum(int(row["spots"]) for row in rows) == program.n_spots
    assert sum(float(row["expected_s"]) for row in rows) == pytest.approx(program.expected_s)


def test_expected_time_by_hand(wuwei: Facility) -> None:
    """9 spots of 1e6 ions along one line: ions over level, no move without beam, one cycle."""
    layer = compile_program(plan_of(layer_at()), wuwei, "1").layers[0]
    assert layer.time.beam_s == pytest.approx(9e6 / layer.intensity_ions_per_s)
    assert layer.time.move_s == 0.0
    phases = wuwei.ring.phases
    fixed_ms = (
        phases.injection_ms + phases.capture_ms + phases.stabilise_ms + phases.resonance_ms
        + phases.dump_ms + phases.ramp_down_ms + phases.standardise_ms
    )  # fmt: skip
    assert layer.time.cycle_s == pytest.approx((fixed_ms + wuwei.ramp_ms("carbon", layer.energy_mev_u)) * 1e-3)
    assert layer.time.cycles == 1


def test_moves_beyond_the_limit_cost_time(wuwei: Facility) -> None:
    layer = compile_program(plan_of(layer_at(x=80.0)), wuwei, "1").layers[0]
    assert 1e-3 < layer.time.move_s < 5e-3


def test_cycles_follow_what_the_ring_holds(wuwei: Facility) -> None:
    per_fill = wuwei.species["carbon"].fill_ions * wuwei.species["carbon"].transmission
    assert CycleClock(wuwei).layer("carbon", 200.0, 2.5 * per_fill, 5e8, 0.0).cycles == 3
    slow = CycleClock(wuwei).layer("carbon", 200.0, 2.5e7, 1e6, 0.0)
    assert slow.cycles == 3  # 10 s of flat top at 1e6/s
    mee = load_facility("himm-mee")
    clock = CycleClock(mee)
    assert [clock.layer("carbon", e, 1e7, 1e8, 0.0).cycles for e in (300.0, 298.0, 296.0)] == [1, 0, 0]
    assert clock.layer("carbon", 310.0, 1e7, 1e8, 0.0).cycles == 1


# vendors' plans ------------------------------------------------------------------------------------------------------

DELIVERABLE = (
    "DCPT_plan01_sobp_1Gy_Eclipse.dcm",
    "DCPT_plan02_mono160_Eclipse.dcm",
    "DCPT_plan04_ramp_middle_RayStation.dcm",
    "DCPT_plan05_sobp3d_RayStation.dcm",
    "tst003001.rst",
)


@pytest.mark.parametrize("name", DELIVERABLE)
def test_pimms_delivers_shared_plans_in_qa_mode(shared_plan: Find, pimms: Facility, name: str) -> None:
    plan = load_plan(shared_plan(name))
    for room_id in pimms.rooms:
        program = compile_program(plan, pimms, room_id, qa=True)
        assert program.n_spots == plan.n_spots
        held = sum(layer.total_ions * layer.percent_share for layer in program.layers) / program.total_ions
        assert held >= 0.95
        assert max(abs(layer.range_deviation_mm) for layer in program.layers) <= 0.51


@pytest.mark.parametrize("name", DELIVERABLE)
def test_a_carbon_facility_refuses_proton_plans(shared_plan: Find, wuwei: Facility, name: str) -> None:
    error = refusal(load_plan(shared_plan(name)), wuwei, qa=True)
    assert error.code == "plan.species"


def test_a_field_of_240_by_360_mm_fits_no_room(shared_plan: Find, pimms: Facility) -> None:
    error = refusal(load_plan(shared_plan("pymchelper_TR3QA_4fields_Eclipse.dcm")), pimms, qa=True)
    assert error.code == "plan.scan-field"
    assert "beam 1 'Field_1', layer 0, spot 0" in error.where


def test_a_block_and_a_shifter_of_unknown_thickness_are_refused(shared_plan: Find, pimms: Facility) -> None:
    _, problems = examine_plan(load_plan(shared_plan("topasmc_rtip_demo.dcm")), pimms, "1", qa=True)
    assert {problem.code for problem in problems} == {"plan.accessory", "plan.range-shifter"}


def test_without_qa_the_planned_angle_counts(shared_plan: Find, pimms: Facility) -> None:
    plan = load_plan(shared_plan("DCPT_plan01_sobp_1Gy_Eclipse.dcm"))
    assert refusal(plan, pimms, "1").code == "plan.angle"
    assert check_plan(plan, pimms, "2").beams[0].delivered_angle_deg == 0.0  # room 2 has a vertical port
