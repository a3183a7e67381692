"""Campaigns: the same run on a copy and straight, the same report however it is spread, failures that are found."""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from console.coverage_picture import coverage_svg
from console.main import run
from control.layer_machine import TABLE, Event, State
from control.layer_table import COLUMN
from control.observer import Observer
from control.session import LayerBook
from facility.config import load_facility
from facility.errors import InternalError, UsageError
from facility.states import FrontEndState
from interlocks.rules import load_rules
from rig.branch import Emit, branch
from rig.campaign.block import course_of, replay, run_block, shrink
from rig.campaign.campaign import _on_processes, run_campaign
from rig.campaign.course import Course
from rig.campaign.draw import Choice, Instants, draw
from rig.campaign.evidence import Evidence
from rig.campaign.invariants import demand_implies_permit, noticed, placed, released
from rig.campaign.outcome import Outcome
from rig.campaign.report import Report, moves, refusals
from rig.campaign.setting import BLOCK, Setting, blocks, choice_of
from rig.campaign.ticks import TickRecord, ions_by_spot
from rig.trials.causes import load_trials
from rig.virtual_time import VirtualLoop, run_virtual
from rig.virtual_world import WorldParts
from tests.campaign import dying
from tests.campaign.elsewhere import replayed_elsewhere

SETTING = Setting()
STOPS = Setting(faults=("operator/stop",))
SEEDS = (98, 99)
LIGHT: Any = "a setting that takes no time to import"


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return run_block(SETTING, SEEDS, digest=True)


def test_a_run_on_a_copy_is_the_straight_run_bit_for_bit(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        straight = replay(SETTING, outcome.seed)
        assert straight.outcome == outcome
        assert outcome.digest
    assert outcomes[0].digest != outcomes[1].digest


def test_runs_pass_and_say_what_they_met(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        assert outcome.failures == ()
        assert outcome.happened
        assert outcome.end in {"COMPLETED", "TERMINATED", "READY"}
        assert set(outcome.cells) <= {*moves(), *refusals()}
        assert outcome.cells


def test_a_termination_that_nothing_names_has_its_record_before_it_is_judged() -> None:
    """Seed 2818: the safety controller asks for an ABORT for 6 ms, no rule of it has tripped, and nobody goes on."""
    outcome = replay(SETTING, 2818).outcome
    assert (outcome.end, outcome.failures) == ("TERMINATED", ())


def test_a_lost_worker_loses_nothing(tmp_path: Path) -> None:
    wanted = blocks(BLOCK - 2, 4)
    some = _on_processes(LIGHT, wanted, 2, functools.partial(dying.dies_once, tmp_path))
    assert sorted(outcome.seed for outcomes in some for outcome in outcomes) == [98, 99, 100, 101]


def test_runs_that_kill_every_worker_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rig.campaign.campaign.ATTEMPTS", 1)
    with pytest.raises(InternalError, match="run the seeds alone: 0 to 1"):
        list(_on_processes(LIGHT, [(0, 1)], 1, dying.dies))


@pytest.mark.slow
def test_the_report_is_the_same_on_processes_and_on_dask(outcomes: list[Outcome]) -> None:
    if find_spec("distributed") is None:
        pytest.skip("distributed not installed")
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        there = run_campaign(SETTING, SEEDS[0], len(SEEDS), scheduler=cluster.scheduler_address)
    apart = run_campaign(SETTING, SEEDS[0], len(SEEDS), jobs=2)
    assert there.to_data() == apart.to_data()
    assert [outcome.digest for outcome in there.outcomes] == ["", ""]
    assert [outcome.rules for outcome in there.outcomes] == [outcome.rules for outcome in outcomes]


def one_spot_off(book: LayerBook) -> np.ndarray:
    if book.rows is None:
        return np.zeros(book.layer.target_ions.size)
    return np.maximum(np.roll(book.rows[:, COLUMN["ic1_ions"]], 1), 0.0)


@pytest.fixture
def broken_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LayerBook, "start_ions", property(one_spot_off))


@pytest.mark.usefixtures("broken_resume")
def test_a_resume_one_spot_off_is_found_and_shrunk() -> None:
    found = [outcome for outcome in run_block(STOPS, range(12)) if outcome.failures]
    assert found
    assert all(words.split(":")[0] in {"dose", "record"} for words in found[0].failures)
    drawn, again = shrink(STOPS, found[0].seed)
    assert again.failures
    assert len(drawn.causes) == 1


def test_a_run_that_passes_is_not_shrunk() -> None:
    drawn, outcome = shrink(STOPS, 3)
    assert not outcome.failures
    assert tuple(cause.words() for cause in drawn.causes) == outcome.causes


# --- what is drawn ---------------------------------------------------------------------------------------
INSTANTS = Instants(10**9, 5 * 10**9, (11 * 10**8, 2 * 10**9), (3 * 10**9,), (4 * 10**9, 4 * 10**9 + 10**6))


@pytest.fixture(scope="module")
def choice() -> Choice:
    return choice_of(SETTING)


def test_draws_follow_from_the_seed_and_come_in_time(choice: Choice) -> None:
    drawn = [draw(seed, INSTANTS, choice) for seed in range(300)]
    assert drawn == [draw(seed, INSTANTS, choice) for seed in range(300)]
    assert {len(one.causes) for one in drawn} == {1, 2, 3, 4}
    assert {cause.what.split("/")[0] for one in drawn for cause in one.causes} == {"rule", "fault", "operator"}
    assert any(cause.after for one in drawn for cause in one.causes)
    for one in drawn:
        assert one.fork_ns >= INSTANTS.begin_ns
        touched = [point for cause in one.causes for point in choice.touches(cause.what)]
        assert len(touched) == len(set(touched))


def test_only_what_is_wanted_is_drawn() -> None:
    only = choice_of(Setting(faults=("rule/door", "operator/pause")))
    whats = {cause.what for seed in range(40) for cause in draw(seed, INSTANTS, only).causes}
    assert whats == {"rule/door", "operator/pause", "operator/pause-storm"}
    with pytest.raises(UsageError, match="nothing that may go wrong begins with 'rule/nonsense'"):
        choice_of(Setting(faults=("rule/nonsense",)))


def test_blocks_share_a_trunk() -> None:
    assert blocks(98, 4) == [(98, 99), (100, 101)]
    assert sum(map(len, blocks(7, 1000))) == 1000


# --- what was exercised ----------------------------------------------------------------------------------
def test_coverage_names_gaps_and_the_picture_shows_them(outcomes: list[Outcome]) -> None:
    report = Report(SETTING, tuple(outcomes))
    covered = {one.title: one for one in report.coverage()}
    assert set(outcomes[0].cells).isdisjoint(covered["transitions"].gaps)
    assert "STANDBY BEAM_ON" in covered["transitions"].gaps
    assert set(covered["transitions"].counts) | set(covered["refusals"].counts) <= {
        f"{state.name} {event.name}" for state, event in TABLE
    }
    picture = coverage_svg(report)
    titles = [node.text or "" for node in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == len(State) * len(Event)
    assert sum(title.endswith(": 0 times") for title in titles) == sum(
        len(covered[name].gaps) for name in ("transitions", "refusals")
    )


def test_moves_and_refusals_are_disjoint() -> None:
    assert not set(moves()) & set(refusals())
    assert "READY START" in moves()
    assert "STANDBY START" in refusals()


def test_moves_and_refusals_have_the_same_order_in_every_process() -> None:
    cells = [f"{state.name} {event.name}" for state in State for event in Event]
    for found in (moves(), refusals()):
        assert found == sorted(found, key=cells.index)


# --- truth from ticks ------------------------------------------------------------------------------------
def ring(**columns: list[int]) -> np.ndarray:
    from ioc_sim.layout import TRUTH_DTYPE

    found = np.zeros(len(next(iter(columns.values()))), TRUTH_DTYPE)
    for name, values in columns.items():
        found[name] = values
    return found


def test_ions_before_a_set_point_moved_belong_to_the_spot_before() -> None:
    ticks = ring(token=[5, 5, 5, 5], spot=[0, 1, 1, -1], ions=[10, 7, 3, 2], ions_previous_spot=[0, 4, 0, 0])
    layer: Any = SimpleNamespace(token=5, target_ions=np.array([14.0, 6.0]))
    found, strays = ions_by_spot(ticks, [layer])
    assert found[5].tolist() == [14.0, 6.0]
    assert strays == 2


def test_ions_add_up_the_same_in_any_portions() -> None:
    ticks = ring(token=[5] * 6 + [6] * 2, spot=[0, 0, 1, 1, 2, 2, 0, 0], ions=[3, 4, 0, 5, 6, 1, 2, 7],
                 ions_previous_spot=[0, 0, 0, 1, 6, 0, 2, 1])  # fmt: skip
    layers: Any = [SimpleNamespace(token=token, target_ions=np.ones(2)) for token in (5, 6)]
    plant: Any = SimpleNamespace(truth_count=0, trace=ticks)
    whole, strays = ions_by_spot(ticks, layers)
    assert {token: sums.tolist() for token, sums in whole.items()} == {5: [7.0, 11.0], 6: [9.0, 0.0]}
    assert strays == 1
    for steps in ((1,) * 8, (3, 5), (4, 4), (6, 2)):
        plant.truth_count = 0
        record = TickRecord(plant, layers)
        for step in steps:
            plant.truth_count += step
            found = record.sums()
        assert found[1] == strays
        assert all(np.array_equal(found[0][token], whole[token]) for token in whole)


def test_runs_hold_nothing_large_that_they_have_no_use_for() -> None:
    """Each is a copy of the process, and pays for what the process holds."""
    large = ("scipy", "pyarrow", "pydicom", "matplotlib", "distributed")
    words = f"import sys, rig.campaign.block; print([name for name in {large!r} if sys.modules.get(name)])"
    found = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_ring_that_turns_around_unread_is_an_error() -> None:
    plant: Any = SimpleNamespace(truth_count=0, trace=ring(ions=[0] * 4))
    record = TickRecord(plant)
    plant.truth_count = 3
    record.keep(at_least=3)
    assert len(record.records()) == 3
    plant.truth_count = 8
    with pytest.raises(InternalError, match="8 ticks since the last look"):
        record.keep()


def test_demand_without_a_permit_and_ions_after_it_are_objected_to() -> None:
    flags = [3, 2, 0, 0]
    ticks = ring(t_ns=[10_000, 20_000, 30_000, 9_000_000], ions=[5, 5, 1, 1], flags=flags)
    told = list(demand_implies_permit(evidence_of(ticks)))
    assert [words.split(" in ")[0] for words in told[:1]] == ["permit: beam asked for"]
    assert "1 ions later than 2 ms" in told[1]


def evidence_of(ticks: np.ndarray, *given_ns: int, failed: tuple[str, ...] = (), layers: Any = ()) -> Evidence:
    released_at = [SimpleNamespace(kind="permit.released", t_ns=t_ns) for t_ns in given_ns]
    world = SimpleNamespace(events=SimpleNamespace(events=released_at))
    bench = SimpleNamespace(program=SimpleNamespace(layers=layers))
    nothing: Any = None
    found = Evidence(bench, world, nothing, ticks, ({}, 0), (), nothing, nothing, 0, [], "")  # type: ignore[arg-type]
    found.__dict__["failed"] = frozenset(failed)
    return found


def test_a_permit_that_comes_back_by_itself_is_objected_to() -> None:
    ticks = ring(t_ns=[10_000, 20_000, 5_000_000, 9_000_000], flags=[1, 0, 0, 1])
    assert list(released(evidence_of(ticks, 6_000_000))) == []
    assert list(released(evidence_of(ticks, failed=("relay-pause",)))) == []
    assert "came back at 9000000 ns" in next(released(evidence_of(ticks, 9_000_001)))


@pytest.mark.parametrize(("failed", "beam_ms", "objected"), [
    ((), 5, False), ((), 9, True), (("h.freeze",), 9, False), (("h.freeze",), 40, True),
])  # fmt: skip
def test_what_a_hanging_fast_tier_cannot_see_is_noticed_by_the_other_one(
    failed: tuple[str, ...], beam_ms: int, objected: bool
) -> None:
    """Seed 8743: the electronics of chamber 2 failed while the fast tier hung, and the beam went in 9 ms, within the
    bound of `fast-tier-alive`: the campaign had asked for that of the rule that saw nothing, 5 ms."""
    facility = load_facility("wuwei")
    rules = load_rules(facility, "1", "carbon")
    trial = load_trials(rules)["chamber-electronics-ic2"]
    n = beam_ms * 100
    one = SimpleNamespace(cause=None, begun_ns=0, ended_ns=10**9, problem="")
    found: Any = SimpleNamespace(
        ticks=ring(t_ns=list(range(10_000, (n + 1) * 10_000, 10_000)), ions=[1] * n),
        demand=np.ones(n, bool),
        mishaps=SimpleNamespace(happened=[one], trial=lambda _: trial),
        bench=SimpleNamespace(rules=rules, facility=facility),
        failed=frozenset(failed),
    )
    assert bool(list(noticed(found))) is objected


@pytest.mark.parametrize(("ticks_off", "objected"), [(150, False), (151, True)])
def test_beam_beside_its_place_may_last_as_long_as_it_takes_to_notice(ticks_off: int, objected: bool) -> None:
    n = 400
    x_um = np.where((np.arange(n) >= 10) & (np.arange(n) < 10 + ticks_off), 2_100, 1_900)
    ticks = ring(t_ns=list(range(0, n * 10_000, 10_000)), ions=[1] * n, token=[5] * n, x_um=list(x_um))
    layer = SimpleNamespace(token=5, n_spots=1, x_mm=np.zeros(1), y_mm=np.zeros(1))
    assert bool(list(placed(evidence_of(ticks, layers=[layer])))) is objected


@pytest.mark.parametrize(
    ("y_um", "token", "spot", "objected"),
    [
        (5_701, 6, 1, True),  # planned at 3.7005 mm
        (5_700, 6, 1, False),
        (1_700, 6, 1, True),
        (1_701, 6, 1, False),
        (5_701, 5, 1, False),  # another layer's spot 1 is there
        (5_701, 6, 2, False),  # no spot of the plan
        (5_701, 6, -1, False),
        (5_701, 7, 0, False),
    ],
)
def test_each_spot_of_each_layer_has_its_own_place(y_um: int, token: int, spot: int, objected: bool) -> None:
    n = 400
    ticks = ring(t_ns=list(range(0, n * 10_000, 10_000)), ions=[1] * n, token=[5] * 200 + [token] * 200)
    ticks["spot"], ticks["y_um"] = 0, 500
    ticks["spot"][200:], ticks["y_um"][200:] = spot, y_um
    first = SimpleNamespace(token=5, n_spots=2, x_mm=np.zeros(2), y_mm=np.array([0.5, 5.7]))
    second = SimpleNamespace(token=6, n_spots=2, x_mm=np.zeros(2), y_mm=np.array([0.5, 3.7005]))
    assert bool(list(placed(evidence_of(ticks, layers=[first, second])))) is objected


# --- what campaigns found --------------------------------------------------------------------------------
def test_waiting_for_a_rules_name_ends_where_rounding_leaves_less_than_a_nanosecond() -> None:
    """Seed 32: 3.890596345 s + 0.5 s - 4.390596345 s is 9e-16 s, for which a timer comes at once, for ever."""
    loop = VirtualLoop(start_ns=3_890_596_345)

    async def changed(left_s: float) -> None:
        loop.call_later(left_s, wake.set)
        await wake.wait()
        wake.clear()

    async def work() -> str:
        return await Observer.rule_name(observer, 0.5)

    wake = asyncio.Event()
    link = SimpleNamespace(tripped="", changed=changed, fe=None)
    observer: Any = SimpleNamespace(_link=link, _rule=lambda: "unknown rule")
    assert run_virtual(work(), loop) == "unknown rule"


BEAM_MAY_COME = {FrontEndState.ARMED, FrontEndState.IRRADIATING, FrontEndState.HELD}


async def state_after(course: Course, parts: WorldParts, verb: str, delay_us: int, send: Emit) -> None:
    """Where the front end stands after a person's word that comes so late, and whether anything has tripped."""
    await asyncio.sleep(delay_us * 1e-6)
    await parts.operator.ask("TCS", verb)
    await asyncio.sleep(0.02)
    send((course.world.plant.status.state, course.world.controller.first_fault))


def test_a_stop_or_a_pause_right_after_arming_leaves_no_front_end_that_waits_for_beam() -> None:
    """Seed 82: the command to arm was done, but its effect not shown yet, so that control saw nothing to disarm."""
    course, found = course_of(SETTING, 0), list[tuple[FrontEndState, str]]()

    async def work(parts: WorldParts) -> None:
        await course.to_ready(parts)
        await parts.operator.start()
        await parts.control.sequencer.until({State.ARMED}, 10.0)
        for verb in ("stop", "pause"):
            for delay_us in range(0, 6000, 500):
                await branch(functools.partial(state_after, course, parts, verb, delay_us), found.append)

    course.world.run(work)
    assert len(found) == 24
    assert {state for state, _ in found}.isdisjoint(BEAM_MAY_COME)


def test_a_stop_or_a_pause_right_after_a_resume_leaves_no_front_end_that_waits_for_beam() -> None:
    """Seed 4772: the same with the command to resume, whose front end still said that it was paused; it was noticed as
    a front end that waits for beam though nothing was armed, and control vouched no more for the layer: a trip."""
    course, found = course_of(SETTING, 0), list[tuple[FrontEndState, str]]()

    async def work(parts: WorldParts) -> None:
        await course.to_ready(parts)
        await parts.operator.start()
        await parts.control.sequencer.until({State.ARMED}, 10.0)
        await asyncio.sleep(0.01)
        await parts.operator.ask("TCS", "pause")
        await parts.control.sequencer.recorded(1.0)
        await parts.operator.ask("TCS", "resume")
        for verb in ("stop", "pause"):
            for delay_us in range(0, 6000, 250):
                await branch(functools.partial(state_after, course, parts, verb, delay_us), found.append)

    course.world.run(work)
    assert len(found) == 48
    assert {state for state, _ in found}.isdisjoint(BEAM_MAY_COME)
    assert {rule for _, rule in found} == {""}


# --- the command line ------------------------------------------------------------------------------------
@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    def ask(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        code = run(arguments)
        found = json.loads(capsys.readouterr().out)
        return {**found, "code": code}

    return ask


def test_campaign_and_replay_over_the_command_line(told: Any, tmp_path: Path, capsys: Any) -> None:
    picture, trace = tmp_path / "covered.svg", tmp_path / "trace"
    found = told("campaign", "--runs", "1", "--seed", "98", "--picture", str(picture), "--json")
    assert (found["code"], found["runs"], found["failed"]) == (0, 1, 0)
    assert found["measured"]["runs_per_s"] > 0.0
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    assert run(("replay", "98", "--trace", str(trace))) == 0
    assert "seed 98" in capsys.readouterr().out
    assert {path.name for path in trace.iterdir()} == {"events.jsonl", "ticks.parquet"}
    elsewhere = replayed_elsewhere(tmp_path, 98)
    for name in ("events.jsonl", "ticks.parquet"):
        assert (trace / name).read_bytes() == (elsewhere / name).read_bytes(), name
