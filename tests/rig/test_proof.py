"""The explorer finds what is there, and what it finds can be played again; classes of rules are what they claim."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from console.main import run
from facility.config import load_facility
from facility.errors import IonctlError
from interlocks import latch
from interlocks.rules import RuleSet, load_rules
from rig.proof import rule_checks, safety_scene
from rig.proof.classes import class_of, members
from rig.proof.explore import Always, Occurs, Property, Recurs, Step, explore, replay
from rig.proof.rack_scene import BeamOffScene
from rig.proof.verify import play, verify, write_counterexample


class Lift:
    """Floors 0 to 4; from 4 there is no way down."""

    name = "lift"
    words = "a lift"

    def __init__(self, *properties: Property) -> None:
        self.properties: Sequence[Property] = properties

    def initial(self) -> Iterable[tuple[str, int]]:
        return [("start", 0)]

    def steps(self, state: int) -> Iterator[tuple[str, int]]:
        if state < 4:
            yield "up", state + 1
        if 0 < state < 4:
            yield "down", state - 1

    def describe(self, state: int) -> str:
        return f"floor {state}"


@pytest.fixture(scope="module")
def rules() -> RuleSet:
    facility = load_facility("wuwei")
    return load_rules(facility, next(iter(facility.rooms)), "carbon")


def test_the_explorer_finds_every_state_and_the_shortest_run() -> None:
    found = explore(
        Lift(
            Always("low", lambda floor: floor < 3),
            Always("in the house", lambda floor: 0 <= floor <= 4),
            Step("never from 1 to 2", lambda before, _label, after: (before, after) != (1, 2)),
            Recurs("ground", lambda floor: floor == 0),
            Recurs("top", lambda floor: floor == 4),
            Occurs("second floor", lambda _before, _label, after: after == 2),
            Occurs("fifth floor", lambda _before, _label, after: after == 5),
        )
    )
    assert (found.states, found.transitions) == (5, 7)
    verdicts = {verdict.name: verdict for verdict in found.verdicts}
    assert [name for name, verdict in verdicts.items() if verdict.holds] == ["in the house", "top", "second floor"]
    assert verdicts["low"].run == ("start", "up", "up", "up")
    assert verdicts["never from 1 to 2"].run == ("start", "up", "up")
    assert verdicts["ground"].run == ("start", "up", "up", "up", "up")


def test_a_run_can_be_played_again_and_an_impossible_one_is_named() -> None:
    assert [state for _, state in replay(Lift(), ("start", "up", "up", "down"))] == [0, 1, 2, 1]
    with pytest.raises(IonctlError, match="step 1, 'down', is not possible"):
        list(replay(Lift(), ("start", "down")))


def test_the_beam_off_scene_and_one_pair_of_rules_hold(rules: RuleSet) -> None:
    assert explore(BeamOffScene()).holds
    found = explore(next(safety_scene.scenes(rules)))
    assert found.holds
    assert found.states > 300


def test_two_processes_find_what_one_finds(rules: RuleSet) -> None:
    wanted = ("bypass", "beam-off")
    proof = verify(rules, wanted, jobs=2)
    assert [one.scene for one in proof.found] == ["beam-off", "bypass"]
    assert proof == verify(rules, wanted)


def test_every_rule_trips_by_itself(rules: RuleSet) -> None:
    found = rule_checks.check(rules)
    assert [verdict.name for verdict in found.verdicts if not verdict.holds] == []
    assert found.states == len(rules.rules)


def test_rules_of_a_class_are_alike_to_the_latch(rules: RuleSet) -> None:
    for kind, group in members(rules.p).items():
        for rule in group:
            spec = latch.spec_of(rule)
            assert (spec.action, spec.latching, spec.debounce_ns > 0) == (kind.action, kind.latching, kind.debounced)
            assert not spec.latching or spec.reset == kind.reset


def test_all_rules_are_explored_as_a_class_or_as_an_echo(rules: RuleSet) -> None:
    grouped = [rule.id for group in members(rules.rules).values() for rule in group]
    assert sorted(grouped + [rule.id for rule in rules.rules if rule.is_echo]) == sorted(rules.by_id)
    assert len({class_of(rule) for rule in rules.rules}) >= 6


def test_two_rules_of_one_class_are_as_one(rules: RuleSet) -> None:
    """The symmetry itself: a scene with the same class twice gives the permit no state that it has not with one."""
    scene = next(safety_scene.scenes(rules))
    link, first, _ = scene.watched
    twice = explore_permits(safety_scene.PermitScene((link, first, first._replace(name="twin"))))
    assert twice == explore_permits(safety_scene.PermitScene((link, first)))


def explore_permits(scene: safety_scene.PermitScene) -> set[object]:
    seen: set[object] = set()
    found = explore(Watching(scene, seen))
    assert found.states > 50
    return seen


class Watching:
    """A scene that writes down the permit's states."""

    def __init__(self, scene: safety_scene.PermitScene, seen: set[object]) -> None:
        self.name, self.words, self.properties = scene.name, scene.words, ()
        self._scene, self._seen = scene, seen
        self.initial, self.describe = scene.initial, scene.describe

    def steps(self, state: safety_scene.State) -> Iterator[tuple[str, safety_scene.State]]:
        self._seen.add((state.permit, state.fast, state.granted))
        yield from self._scene.steps(state)


def test_a_counterexample_is_a_file_that_can_be_played(rules: RuleSet, tmp_path: Path) -> None:
    proof = verify(rules, ["beam-off"])
    path = tmp_path / "run.json"
    assert write_counterexample(proof, path) is None
    shown = proof.found[0].verdicts[-1]
    path.write_text(json.dumps({"schema": "ionctl.proof/1", "scene": "beam-off", "rules": rules.hash,
                                "run": list(shown.run)}))  # fmt: skip
    lines = list(play(rules, path))
    assert "beam=1" in lines[-1]
    path.write_text("{}")
    with pytest.raises(IonctlError, match="no run of a proof"):
        list(play(rules, path))


def test_the_command_proves_and_replays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["--home", str(tmp_path), "interlocks", "verify", "--scene", "beam-off", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["holds"]
    assert data["states"] > 100
    shown = data["scenes"][0]["properties"][-1]["run"]
    Path("run.json").write_text(
        json.dumps({"schema": "ionctl.proof/1", "scene": "beam-off", "rules": data["rules"], "run": shown})
    )
    assert run(["--home", str(tmp_path), "interlocks", "verify", "--replay", "run.json"]) == 0
    assert "beam=1" in capsys.readouterr().out
    assert run(["--home", str(tmp_path), "interlocks", "verify", "--scene", "nowhere"]) == 2
