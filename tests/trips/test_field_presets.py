"""Counter and timer of the field: over all layers, independent of the chambers, set to zero by another field only."""

from __future__ import annotations

import numpy as np
import pytest

from control.layer_table import LayerRules, field_preset
from control.plan.maker import make_small_plan
from control.plan.program import compile_program
from facility import signals as g
from facility.config import load_facility
from facility.errors import CommandRefused
from facility.ids import field_number
from facility.states import FrontEndState
from interlocks.rules import compile_fast, load_rules
from interlocks.snapshot import Mode
from ioc_sim import layout as at
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.plant import Plant
from ioc_sim.register_store import MemoryStore
from rig.virtual_world import World, WorldOptions, WorldParts
from tests.plant.layers import MS, S, Spots, go, grid, new_plant, open_field, run_until, start

FACILITY = load_facility("wuwei")
LEVEL = 1e8


def spots() -> Spots:
    return grid(half_mm=12.0, low=4e5, high=8e5)


def with_rules(seed: int = 5, **kwargs: object) -> Plant:
    return new_plant(facility=FACILITY, rules=load_rules(FACILITY, "1", "carbon").fast(), seed=seed, **kwargs)


def one_layer(plant: Plant, token: int) -> None:
    plant.request_cycle(token, 150)
    plant.load_layer(token, 150, LEVEL, spots().table(plant, 150))
    go(plant, plant._now_ns + 5 * MS)
    plant.arm(token, plant.status.permit_epoch)
    run_until(plant, "LAYER_DONE", "ABORTED")
    go(plant, plant._now_ns + 50 * MS)


def tripped(plant: Plant) -> list[str]:
    return [rule for rule, latched in zip(plant.rule_ids, plant.rule_rows["latched"], strict=True) if latched]


def test_a_layer_that_is_delivered_twice_is_too_much_for_the_field() -> None:
    plant = with_rules()
    total = float(spots().ions.sum())
    open_field(plant, 5, total, 1e5)
    one_layer(plant, 78)
    assert plant.status.state is FrontEndState.DONE
    plant.open_field(5, total, 1e5)  # named again: it goes on
    one_layer(plant, 79)
    assert plant.status.state is FrontEndState.ABORTED
    assert tripped(plant) == ["backup-field"]
    assert 1.04 * total < plant.truth_total_ions < 1.05 * total + 20_000 + LEVEL * 2e-3


@pytest.mark.parametrize(("dead", "found"), [("backup.gain", "field-overdose-ic2"), ("ic2.gain", "backup-field")])
def test_chamber_2_and_the_backup_counter_each_end_a_field_without_the_other(dead: str, found: str) -> None:
    """In the rack alone, where no comparison takes the beam before."""
    rules = load_rules(FACILITY, "1", "carbon")
    plant = new_plant(
        facility=FACILITY, rules=compile_fast((rules.rule("backup-field"), rules.rule("field-overdose-ic2")))
    )
    total = float(spots().ions.sum())
    open_field(plant, 5, total, 1e5)
    plant.inject(Fault(dead, FaultKind.DEAD))
    one_layer(plant, 78)
    assert plant.status.state is FrontEndState.DONE
    one_layer(plant, 79)
    assert tripped(plant) == [found]
    assert plant.truth_total_ions < rules.rule(found).relative * total + 25_000 + LEVEL * 2e-3


@pytest.mark.parametrize("again", ["in the next process", "after another field"])
def test_chamber_2_goes_on_from_what_the_backup_counter_says_that_the_field_has_had(again: str) -> None:
    store = MemoryStore()
    plant = with_rules(register_store=store)
    total = float(spots().ions.sum())
    open_field(plant, 5, total, 1e5)
    one_layer(plant, 78)
    assert plant._v[at.FIELD_IC2_IONS] == pytest.approx(total, rel=0.005)
    had = float(plant._v[at.FIELD_IONS])
    if again == "in the next process":
        plant = with_rules(register_store=store.copy())
    else:
        open_field(plant, 6, total, 1e5)
        plant.advance(plant._now_ns + MS)
        assert plant._v[at.FIELD_IC2_IONS] == 0.0
    open_field(plant, 5, total, 1e5)
    plant.advance(plant._now_ns + MS)
    assert plant._v[at.FIELD_IC2_IONS] == pytest.approx(had, abs=0.001)


def test_a_field_goes_on_counting_in_the_next_process_and_after_another_field() -> None:
    """Who dies and is started again, or delivers something else in between, gives no field its presets once more."""
    store = MemoryStore()
    plant = with_rules(register_store=store)
    total = float(spots().ions.sum())
    open_field(plant, 5, total, 1e5)
    one_layer(plant, 78)
    had = (float(plant._v[at.FIELD_IONS]), float(plant._v[at.FIELD_TIMER_MS]), plant.read("BACKUP_COUNTS"))
    again = with_rules(register_store=store.copy())
    assert again.read("BACKUP_COUNTS") == had[2]
    open_field(again, 6, total, 1e5)
    again.advance(again._now_ns + MS)
    assert (again._v[at.FIELD_IONS], again._v[at.FIELD_TIMER_MS]) == (0.0, 0.0)
    open_field(again, 5, total, 1e5)
    again.advance(again._now_ns + MS)
    assert again._v[at.FIELD_IONS] == pytest.approx(had[0], abs=0.001)
    assert again._v[at.FIELD_TIMER_MS] == pytest.approx(had[1], abs=0.001)
    one_layer(again, 79)
    assert again.status.state is FrontEndState.ABORTED
    assert tripped(again) == ["backup-field"]
    assert again.truth_total_ions < 0.05 * total + 20_000 + LEVEL * 2e-3


def test_beam_without_a_field_is_too_much() -> None:
    plant = Plant(FACILITY, "1", "carbon", seed=2, rules=load_rules(FACILITY, "1", "carbon").fast())
    plant.set_safety_lines(True, False, True, personnel=True)
    plant.set_room_beam(True)
    plant.advance(S)
    one_layer(plant, 77)
    assert tripped(plant) == ["backup-field", "field-overdose-ic2"]
    assert plant.truth_total_ions < 20_000 + LEVEL * 2e-3


def test_the_timer_ends_a_field_whose_layers_are_each_in_time() -> None:
    plant = with_rules()
    total = float(spots().ions.sum())
    open_field(plant, 5, 10 * total, 1e3 * total / LEVEL)  # time for one layer: half a second more is allowed
    for token in range(78, 90):
        one_layer(plant, token)
        if plant.status.state is not FrontEndState.DONE:
            break
    assert tripped(plant) == ["field-timer"]
    assert plant._v[at.FIELD_TIMER_MS] == pytest.approx(1.2e3 * total / LEVEL + 500.0, abs=3.0)


def test_what_is_open_keeps_its_presets_and_another_one_waits_for_the_layer() -> None:
    plant = new_plant()
    open_field(plant, 5, 1e9, 1e4)
    plant.advance(plant._now_ns + MS)
    for wrong in ((5, 2e9, 1e4), (5, 1e9, 2e4), (6, 0.0, 1e4), (6, 1e9, float("nan")), (0, 1e9, 1e4)):
        with pytest.raises(CommandRefused):
            plant.open_field(*wrong)
    start(plant, spots(), level=LEVEL)
    run_until(plant, "BEAM_ON")
    go(plant, plant._now_ns + 20 * MS)
    counted = plant.signals[g.BACKUP_FIELD_IONS]
    assert counted > 1e5
    with pytest.raises(CommandRefused, match="a layer is IRRADIATING"):
        plant.open_field(6, 1e9, 1e4)
    plant.pause()
    go(plant, plant._now_ns + 20 * MS)
    assert plant.signals[g.BACKUP_FIELD_IONS] >= counted


def test_no_field_begins_but_the_one_that_the_safety_controller_has_opened() -> None:
    plant = new_plant()
    for other in (6, 5):  # also one that has been open before
        with pytest.raises(CommandRefused, match=rf"field {other} is not the one .* which is field 1"):
            plant.open_field(other, 1e9, 1e4)
        open_field(plant, 1, 1e15, 1e9)
    plant.set_safety_lines(False, False, False, personnel=True)  # a link that is down tells of none
    with pytest.raises(CommandRefused, match="which is none"):
        plant.open_field(6, 1e9, 1e4)
    plant.set_safety_lines(True, False, True, field=6, personnel=True)
    plant.open_field(6, 1e9, 1e4)
    plant.set_safety_lines(True, False, True, personnel=True)  # gone again before it acts
    plant._pending.insert(0, plant._pending.pop())
    plant.advance(plant._now_ns + MS)
    assert plant.signals[g.FE_FIELD] == 1


def test_control_that_names_another_field_between_two_layers_is_refused_and_the_counter_goes_on() -> None:
    program = compile_program(make_small_plan(FACILITY, "carbon"), FACILITY, "1", qa=True)
    made = World(FACILITY, "1", "carbon", 1, WorldOptions(mode=Mode.QA, load_program=lambda *_: program))

    async def work(parts: WorldParts) -> tuple[str, float]:
        operator, sequencer = parts.operator, parts.control.sequencer
        await operator.reset()
        session = await operator.load("plan", "1", True)
        await operator.prepare()
        await operator.start()
        await sequencer.until({sequencer.state.VERIFY_LAYER}, 60.0)
        counted = float(made.plant._v[at.FIELD_IONS])
        for other in (field_number("another"), field_number(session)):
            arguments = {"field": other, "preset_ions": 1e15, "expected_ms": 1e9, "plan_hash": ""}
            with pytest.raises(CommandRefused, match=r"is not the one|was opened with"):
                await parts.control.link.command("FE", "open_field", arguments)
        await operator.ended(session, 600.0)
        return session, counted

    session, counted = made.run(work)
    assert counted > 1e5
    assert made.plant._state[0].field == field_number(session)
    assert made.plant._v[at.FIELD_IONS] > 1.5 * counted
    assert tripped(made.plant) == []


@pytest.mark.parametrize("spread", [0.0, 0.01])
def test_a_field_with_interruptions_ends_where_the_plan_says(spread: float) -> None:
    """Gains `spread` apart; an operator's pause, and a stop after which the field is prepared and started again."""
    program = compile_program(make_small_plan(FACILITY, "carbon"), FACILITY, "1", qa=True)
    made = World(
        FACILITY, "1", "carbon", 1,
        WorldOptions(mode=Mode.QA, load_program=lambda *_: program, allow_faults=True),
    )  # fmt: skip
    made.plant.inject(Fault("ic1.gain", FaultKind.SCALE, 1.0 - spread / 2))
    made.plant.inject(Fault("backup.gain", FaultKind.SCALE, 1.0 + spread / 2))

    async def beam(parts: WorldParts, ions: float) -> None:
        await parts.operator.until(lambda: made.plant.truth_total_ions > ions, 60.0, "beam")

    async def work(parts: WorldParts) -> str:
        operator, sequencer = parts.operator, parts.control.sequencer
        await operator.reset()
        session = await operator.load("plan", "1", True)
        await operator.prepare()
        await operator.start()
        await beam(parts, 1e5)
        await operator.ask("TCS", "pause")
        await sequencer.until({sequencer.state.INTERRUPTED}, 5.0)
        await operator.ask("TCS", "resume")
        await sequencer.until({sequencer.state.VERIFY_LAYER}, 60.0)
        await sequencer.until({sequencer.state.IRRADIATING}, 60.0)
        await operator.ask("TCS", "stop")
        await sequencer.recorded(5.0)
        await operator.prepare()
        await operator.start()
        await operator.ended(session, 600.0)
        return str(session)

    session = made.run(work)
    ions, expected_ms = field_preset(program.layers, LayerRules.of(FACILITY))
    v = made.plant._v
    assert made.plant._state[0].field == field_number(session)
    assert (v[at.FIELD_PRESET_IONS], v[at.FIELD_EXPECTED_MS]) == (ions, expected_ms)
    assert tripped(made.plant) == []
    assert v[at.FIELD_IONS] == pytest.approx(ions * (1.002 + spread), rel=0.004)
    assert 0.9 * expected_ms < v[at.FIELD_TIMER_MS] < 1.1 * expected_ms
    assert np.isclose(made.plant.truth_total_ions, ions * (1.0 + spread / 2), rtol=0.006)
