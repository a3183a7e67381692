"""A chamber fails in the middle of a spot, is mended, and the field goes on: nothing is given that had come."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from control.chambers import believed
from control.layer_machine import State
from control.layer_table import COLUMN, FloatArray, LayerRules, spot_table, table_crc32
from control.machine_status import Dose
from control.recovery import reconcile
from control.session import Session, SessionSummary
from facility.ids import field_number
from facility.pv_catalogue import REGISTER_COLUMNS
from ioc_sim.register_store import MemoryStore
from rig.crashes import Left, Life
from rig.operator_client import ENDED
from rig.scenario.deeds import Deeds
from rig.scenario.model import Act, Scenario
from rig.scenario.virtual_hands import VirtualHands
from rig.virtual_world import WorldParts
from tests.control.fakes import FakeLayer, FakeProgram
from tests.recovery.test_crashes import SEED, facility, program
from tests.recovery.test_long_field import Faulty

INTERLOCK_ALLOWS = 1.25
"""Of a spot: `spot-overdose-ic2` lets 12 % and what a stop lets through pass where the first chamber counts nothing."""


def broken_and_mended(fault: str, folder: Path) -> tuple[Faulty, Left]:
    it = Faulty(facility(), program(), folder)
    left = Left(MemoryStore(), folder / "begun")
    left.folder.mkdir()

    async def work(life: Life, parts: WorldParts) -> SessionSummary:
        operator, plan = parts.operator, program()
        deeds = Deeds(Scenario.model_construct(id="chamber"), operator, parts.room, VirtualHands(life.world, parts),
                      "plan", plan.room_id, plan.plan_hash)  # fmt: skip
        await operator.reset()
        session = await operator.load("plan", plan.room_id, plan.qa, plan.plan_hash)
        await operator.prepare(session)
        await operator.start()
        await operator.until(lambda: operator.state is State.IRRADIATING, 120.0, "beam")
        await asyncio.sleep(0.02)
        await deeds.do(Act(fault=fault))
        await operator.until(lambda: operator.state in (State.INTERRUPTED, State.TERMINATED), 30.0, "a stop")
        await asyncio.sleep(1.0)
        await deeds.do(Act(do="go-on", within_ms=120_000.0))
        await operator.until(lambda: operator.state not in ENDED, 30.0, "going on")
        await operator.ended(session, 600.0)
        return await parts.control.sequencer.recorded(60.0)

    it._live(left, SEED, None, work)
    return it, left


@pytest.mark.parametrize(
    ("fault", "most"),
    [("ic1.counts/dead", 1.02), ("ic1.counts/nan", 1.02), ("ic1.counts/stuck", INTERLOCK_ALLOWS),
     ("ic2.counts/dead", 1.02)],
)  # fmt: skip
def test_a_chamber_fails_in_a_spot_and_the_field_is_finished(fault: str, most: float, tmp_path: Path) -> None:
    it, left = broken_and_mended(fault, tmp_path)
    assert left.summary is not None
    assert left.summary.interlocks
    assert left.completed, left.summary.reason
    for layer in program().layers:
        assert (left.truth[layer.token] <= most * layer.target_ions).all()
        assert (left.truth[layer.token] >= 0.95 * layer.target_ions).all()
    if most < INTERLOCK_ALLOWS:
        assert it.objections(left) == []


LAYER = FakeLayer(1, np.full(3, 1e5), np.arange(3.0), np.zeros(3))


def load(ic1: list[float], ic2: list[float]) -> FloatArray:
    rows = np.zeros((3, len(REGISTER_COLUMNS)))
    rows[:, COLUMN["ic1_ions"]], rows[:, COLUMN["ic2_ions"]] = ic1, ic2
    return rows


@pytest.mark.parametrize(
    ("ic1", "ic2", "kept", "beyond"),
    [
        ([1e5, 6e4, 0.0], [1.01e5, 6.05e4, 0.0], ([1e5, 6e4, 0.0], [1.01e5, 6.05e4, 0.0]), [0.0, 0.0, 0.0]),
        ([1e5, 2e4, 0.0], [1e5, 6e4, 0.0], ([1e5, 2e4, 0.0], [1e5, 6e4, 0.0]), [0.0, 4e4, 0.0]),
        ([1e5, -3e9, 0.0], [1e5, 6e4, 0.0], ([1e5, 0.0, 0.0], [1e5, 6e4, 0.0]), [0.0, 6e4, 0.0]),
        ([1e5, 6e4, 0.0], [1e5, np.nan, 0.0], ([1e5, 6e4, 0.0], [1e5, 0.0, 0.0]), [0.0, 0.0, 0.0]),
        ([1e5, np.nan, 0.0], [1e5, -3e9, 0.0], ([1e5, 0.0, 0.0], [1e5, 0.0, 0.0]), [0.0, 7e4, 0.0]),
    ],
    ids=["agree", "one-counts-less", "one-is-dead", "the-second-is-lost", "neither"],
)  # fmt: skip
def test_the_higher_chamber_counts_as_delivered(
    ic1: list[float], ic2: list[float], kept: tuple[list[float], list[float]], beyond: list[float]
) -> None:
    layer = dataclasses.replace(LAYER, ions_per_count=40.0)
    rows, more = believed(layer, load(ic1, ic2), np.array([0.0, 3e4, 0.0]), LayerRules())
    np.testing.assert_array_equal(rows[:, COLUMN["ic1_ions"]], kept[0])
    np.testing.assert_array_equal(rows[:, COLUMN["ic2_ions"]], kept[1])
    np.testing.assert_array_equal(more, beyond)
    assert rows[1, COLUMN["done"]] == (1.0 if beyond[1] == 7e4 else 0.0)


def test_uncertain_charge_that_is_more_than_the_layer_had_left_is_told() -> None:
    """It counts up to the prescription; what may have come on top of it is on record."""
    rules, layer = LayerRules(), dataclasses.replace(LAYER, ions_per_count=40.0)
    plan = FakeProgram((layer,))
    session = Session("S-1", plan, mode="qa", operator="operator", t_ns=0)
    rows = load([1e5, 1e5, 9.9e4], [1e5, 1e5, 9.9e4])
    rows[:2, COLUMN["done"]] = 1.0
    crc = table_crc32(spot_table(layer, np.zeros(3), rules))
    found = reconcile(session, [Dose(1, field_number("S-1"), plan.plan_hash, crc, 2, 5000.0, rows, 1)], rules)
    np.testing.assert_allclose(found.uncertain, [0.0, 0.0, 1e3])
    assert found.to_data()["beyond_ions"] == pytest.approx(4e3)
    assert "up to 4000 beyond the end of the layer" in found.words
