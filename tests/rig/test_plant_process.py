"""What the plant's process does at its end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from facility import signals as g
from facility.config import load_facility
from facility.errors import ChannelError
from facility.timebase import NS_PER_MS
from interlocks.rules import load_rules
from rig.processes import plant as process
from rig.register_sync import RegisterSync, RegisterSyncThread
from rig.shared_plant import SharedPlant


def test_a_plant_that_ends_takes_the_beam_and_does_not_call_the_link_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BEAM_OFF_S", 0.0)
    facility = load_facility("wuwei")
    plant = SharedPlant(facility, "1", "carbon", seed=1, rules=load_rules(facility, "1", "carbon").fast())

    def lines() -> list[float]:
        plant.advance(plant.t_ns + 2 * NS_PER_MS)
        return [float(plant.signals[place]) for place in (g.P_PERMIT, g.P_HOLD, g.LINK_P_OK)]

    plant.set_safety_lines(True, False, True, personnel=True)
    assert lines() == [1.0, 0.0, 1.0]
    asyncio.run(process.PlantProcess.beam_off(cast(Any, SimpleNamespace(plant=plant))))
    assert lines() == [0.0, 0.0, 1.0], "ABORT; a dead link would be a trip of the safety controller"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_register_s_thread_that_fails_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> None:
        raise ValueError("mmap closed")

    monkeypatch.setattr("rig.register_sync.PERIOD_S", 0.0)
    monkeypatch.setattr(process, "PUBLISH_S", 0.0)
    thread = RegisterSyncThread(cast(RegisterSync, SimpleNamespace(look=look)))
    thread.start()
    thread.join(5.0)
    assert isinstance(thread.failure, ValueError)
    rack = SimpleNamespace(failure=None, pacer=None)
    stub = SimpleNamespace(rack=rack, register_sync=thread)
    stub._check_threads = lambda: process.PlantProcess._check_threads(cast(Any, stub))
    with pytest.raises(ChannelError, match=r"register's thread has failed: ValueError.*mmap closed") as caught:
        asyncio.run(process.PlantProcess.publish_for_ever(cast(Any, stub)))
    assert caught.value.code == "plant.register"
