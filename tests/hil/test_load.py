"""Load of the machine is told from failure of a device by who has waited for a processor."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import soak_hil
from control.layer_machine import State
from facility.config import load_facility
from facility.errors import ChannelError, CommandRefused
from facility.timebase import NS_PER_MS, NS_PER_S
from rig.external.soft_devices import LOADED, LOST, SUPPLY, VOLTAGE, with_devices
from rig.external.trial import Verdict, _Field
from rig.external.waiting import BACK_NS, LEAST_NS, Waiting, Waits, waits_of
from rig.home import Home
from rig.scenario.loader import load_all
from rig.scenario.model import Target
from rig.scenario.run_ca import CaRun
from rig.scenario.stage import Stage


class Machine:
    """Two threads of one process; who waits is said."""

    def __init__(self) -> None:
        self.t_ns = 0
        self.waits: Waits = {(1, "1"): 7 * NS_PER_S, (1, "2"): 0}
        self.waiting = Waiting(lambda: (1,), lambda: self.t_ns, lambda _: dict(self.waits))

    def passes(self, ms: int, waited_ms: int) -> None:
        self.waiting.look()
        self.t_ns += ms * NS_PER_MS
        self.waits[1, "2"] += waited_ms * NS_PER_MS


def test_only_what_was_waited_lately_makes_a_machine_busy() -> None:
    machine = Machine()
    assert not machine.waiting.busy(), "what was waited before anybody looked is of no account"
    machine.passes(200, 49)
    assert not machine.waiting.busy()
    machine.passes(200, 1)
    assert machine.waiting.busy()
    assert machine.waiting.lately_ns() == LEAST_NS
    for _ in range(BACK_NS // (200 * NS_PER_MS) + 1):
        machine.passes(200, 0)
    assert not machine.waiting.busy(), "long ago"
    del machine.waits[1, "1"]  # a thread has ended
    machine.waits[1, "3"] = 60 * NS_PER_MS  # and one has begun
    assert machine.waiting.busy()


def test_the_kernel_counts_for_each_thread(tmp_path: Path) -> None:
    for thread, words in (("11", "5 1234 1"), ("12", "5 66 1"), ("13", "rubbish")):
        (tmp_path / "11" / "task" / thread).mkdir(parents=True)
        (tmp_path / "11" / "task" / thread / "schedstat").write_text(words)
    assert waits_of((11, 99), tmp_path) == {(11, "11"): 1234, (11, "12"): 66}
    own = waits_of((os.getpid(),))
    assert not own or min(own.values()) >= 0


@pytest.fixture
def run(tmp_path: Path) -> CaRun:
    one = next(one for one in load_all() if one.scenario.id == "hil-supply-is-killed")
    assert not one.scenario.why_not(Target.HIL)
    stage = Stage.of(one.scenario, one.folder, one.config_dir)
    device: Any = SimpleNamespace(prefix="PS1:", port=5072)
    facility = with_devices(stage.facility, {SUPPLY: device, VOLTAGE: device}, "per_spot")
    return CaRun(one, replace(stage, facility=facility), Home(tmp_path), Target.HIL)


@pytest.mark.parametrize("busy", [True, False])
def test_a_trip_that_nobody_waited_for_is_held_against_the_device(
    run: CaRun, busy: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = Machine()
    run._waiting = machine.waiting
    machine.passes(200, 60 if busy else 0)
    monkeypatch.setattr(run, "_trips", lambda _: ("external-device", "plant-late"))
    for _ in range(2):  # each is judged once
        run._judge_trips(tmp_path)
    assert run.seen.busy == (frozenset({"plant-late"}) if busy else frozenset())
    assert run.seen.failures == ([] if busy else ["plant-late tripped, and this machine was not busy"])
    assert [run._was_load(rule) for rule in ("external-device", "chamber-voltage-ic1")] == [busy, False]


def test_without_hardware_a_busy_machine_makes_a_failure_no_verdict(
    run: CaRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = Machine()
    alone = CaRun(run._loaded, replace(run._stage, facility=load_facility("wuwei")), Home(tmp_path), Target.CA)
    alone._waiting, alone._at_first = machine.waiting, 1
    monkeypatch.setattr(alone, "_trips", lambda _: ("external-device", "link-plant"))
    alone._judge_trips(tmp_path)
    assert not alone._load
    assert alone._result(trace=False).verdict == "failed"
    alone._judged = 0
    machine.passes(200, 60)
    alone._judge_trips(tmp_path)
    assert alone._load == {"link-plant"}
    assert not alone.seen.busy
    with pytest.raises(ChannelError, match="kept everybody waiting"):
        alone._result(trace=False)


@pytest.mark.parametrize(("rule", "busy", "again"), [
    ("link-plant", True, True), ("link-plant", False, False), ("scan-settling", True, False),
])  # fmt: skip
async def test_what_load_trips_before_the_moment_is_let_go_of_in_the_same_facility(
    run: CaRun, rule: str, busy: bool, again: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine, done = Machine(), list[str]()
    run._waiting = machine.waiting
    machine.passes(200, 60 if busy else 0)

    async def go(_begin: str) -> None:
        done.append("go")
        raise ChannelError("console.timeout", "no READY")

    async def begin_again(_within_s: float) -> None:
        done.append("begin again")

    async def moment(*_: object) -> None:
        done.append("moment")

    monkeypatch.setattr(run, "_until_moment", moment)
    deeds, operator = SimpleNamespace(go=go, begin_again=begin_again), SimpleNamespace(first_fault=rule)
    came: Any = run._to_the_moment(operator, tmp_path, deeds)  # type: ignore[arg-type]
    if again:
        await came
        assert done == ["go", "begin again", "moment"]
        return
    with pytest.raises(ChannelError):
        await came
    assert done == ["go"]


@pytest.mark.parametrize(("rule", "busy", "known"), [
    ("link-plant", True, True), ("link-plant", False, False), ("external-device", False, False),
    ("scan-readback-x", True, False), ("", True, False),
])  # fmt: skip
def test_a_trial_says_what_was_not_this_machines_load(rule: str, busy: bool, known: bool) -> None:
    field: Any = object.__new__(_Field)
    field._verdict = Verdict(doing="supply in alarm")
    field._load_only(rule, busy)
    assert field._verdict.nuisances == [rule]
    assert (not field._verdict.unexplained) == known
    assert "link-plant" in LOADED
    assert "external-device" in LOST


async def test_a_stop_that_has_been_gone_on_with_is_no_nuisance() -> None:
    states = [State.TERMINATED, State.TERMINATED, State.IRRADIATING]

    async def until(met: Callable[[], bool], _timeout_s: float, _what: str) -> None:
        while not met():
            states.pop(0)

    class Operator:
        first_fault = ""
        state = property(lambda _self: states[0])

        def progress(self) -> Any:
            return SimpleNamespace(spots_done=200 if states[0] is State.IRRADIATING else 0)

    operator: Any = Operator()
    operator.until = until
    field: Any = object.__new__(_Field)
    field._verdict = Verdict(doing="voltage wrong")
    await field._until_spot(operator, 100)
    assert field._verdict.nuisances == field._verdict.unexplained == []


@pytest.mark.parametrize(("state", "rule", "beam"), [
    (State.IRRADIATING, "", True), (State.TERMINATED, "", False), (State.HELD, "link-plant", False),
])  # fmt: skip
async def test_beam_that_was_taken_is_not_waited_for(
    state: State, rule: str, beam: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ions = iter(range(10)) if beam else itertools.repeat(0)
    monkeypatch.setattr("rig.external.trial.read_now", lambda _folder: SimpleNamespace(total_ions=next(ions)))
    operator: Any = SimpleNamespace(first_fault=rule, state=state)
    field: Any = object.__new__(_Field)
    field._folder = None
    assert await field._until_ions(operator) == beam


@pytest.mark.parametrize(("rule", "busy", "done"), [
    ("link-plant", True, True), ("link-plant", False, False), ("chamber-voltage-ic1", True, False),
])  # fmt: skip
async def test_a_trial_gets_ready_again_only_where_this_machines_load_has_tripped_something(
    rule: str, busy: bool, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator: Any = SimpleNamespace(first_fault=rule, resets=0)
    asked: list[str] = []

    async def reset() -> None:
        operator.first_fault, operator.resets = "", operator.resets + 1

    async def make_ready(*_: object) -> None:
        asked.append(operator.first_fault)
        if operator.first_fault:
            raise CommandRefused("proof.tripped", "proof tests run when nothing has tripped")

    operator.reset = reset
    monkeypatch.setattr("rig.external.trial.make_ready", make_ready)
    monkeypatch.setattr("rig.external.trial._RETRY_S", 0.0)
    field: Any = object.__new__(_Field)
    field._facility = field._home = field._run = None
    field._verdict = Verdict()
    field._waiting = SimpleNamespace(busy=lambda: busy)
    if done:
        await field._made_ready(operator)
        assert field._verdict.nuisances == [rule]
        assert operator.resets == 2
    else:
        with pytest.raises(CommandRefused):
            await field._made_ready(operator)
    assert asked == ([rule, ""] if done else [rule])
    assert not field._verdict.unexplained


SAID = {"problem": "", "outcomes": [], "nuisances": [], "pacing": {}}


@pytest.mark.parametrize(("code", "stdout", "stderr", "words"), [
    (1, "", "", "exit code 1 and no verdict; it said: (nothing)"),
    (-9, "half a line", "", "exit code -9 and no verdict; it said: half a line"),
    (1, "", "TimeoutError", "TimeoutError"),
    (0, "[]", "", "no verdict"),
    (1, json.dumps(SAID), "", "exit code 1 without a problem"),
    (1, json.dumps(SAID | {"problem": "late"}), "", "late"),
])  # fmt: skip
def test_a_long_count_always_says_what_went_wrong(code: int, stdout: str, stderr: str, words: str) -> None:
    problem, _ = soak_hil.verdict(code, stdout, stderr)
    assert words in problem


def test_a_trial_that_passes_has_no_problem() -> None:
    outcome = {"deed": "supply in alarm", "off_ms": 3.0, "bound_ms": 200.0}
    problem, figures = soak_hil.verdict(0, json.dumps(SAID | {"outcomes": [outcome]}), "")
    assert problem == ""
    assert figures["supply in alarm: off_ms"] == 3.0
