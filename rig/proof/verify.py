"""All scenes explored, what was found in words and as data, and a counterexample as a file that can be played again."""

from __future__ import annotations

import concurrent.futures
import functools
import json
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from facility.errors import ConfigError, UsageError
from interlocks.rules import RuleSet
from rig.proof import rule_checks, safety_scene
from rig.proof.bypass_scene import BypassScene
from rig.proof.delivery_scene import DeliveryScene
from rig.proof.explore import Found, Scene, explore, replay
from rig.proof.link_scene import LinkScene
from rig.proof.rack_scene import BeamOffScene, RackScene

SCHEMA = "ionctl.proof/1"


@dataclass(frozen=True)
class Proof:
    """What `ionctl interlocks verify` has found."""

    facility: str
    rules_hash: str
    found: tuple[Found, ...]

    @property
    def holds(self) -> bool:
        """Every property of every scene."""
        return all(one.holds for one in self.found)

    @property
    def states(self) -> int:
        """Over all scenes."""
        return sum(one.states for one in self.found)

    @property
    def transitions(self) -> int:
        """Over all scenes."""
        return sum(one.transitions for one in self.found)

    def to_data(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "schema": SCHEMA,
            "facility": self.facility,
            "rules": self.rules_hash,
            "holds": self.holds,
            "states": self.states,
            "transitions": self.transitions,
            "scenes": [
                {
                    "scene": one.scene,
                    "words": one.words,
                    "states": one.states,
                    "transitions": one.transitions,
                    "properties": [{"name": v.name, "holds": v.holds, "run": list(v.run)} for v in one.verdicts],
                }
                for one in self.found
            ],
        }


def scenes(rules: RuleSet) -> Iterator[Scene]:
    """Everything that is explored for a rule set."""
    yield BeamOffScene()
    yield RackScene(rules)
    yield from safety_scene.scenes(rules)
    yield LinkScene()
    yield BypassScene(rules)
    yield DeliveryScene()


def verify(rules: RuleSet, wanted: Sequence[str] = (), only: str = "", jobs: int = 1) -> Proof:
    """Explore the scenes whose name begins with one of `wanted`, all without, and check every rule by itself; `only`
    names the one property that is judged, until it breaks. UsageError for a name with which no scene begins.

    In so many processes as `jobs` says, where all is judged: scenes know nothing of each other.
    """
    names = [*(scene.name for scene in scenes(rules)), rule_checks.NAME]
    for one in wanted:
        if not any(name.startswith(one) for name in names):
            families = Counter(name.partition(":")[0] for name in names)
            known = (f"{name} ({count} of them)" if count > 1 else name for name, count in families.items())
            raise UsageError("proof.scene", f"no scene begins with '{one}'", "--scene", f"there are {', '.join(known)}")
    found: list[Found] = []
    places = [place for place, scene in enumerate(scenes(rules)) if _asked(scene.name, wanted)]
    for explored in _explored(rules, places, only, jobs):
        found.append(explored)
        if only and not explored.holds:
            break
    if not only and _asked(rule_checks.NAME, wanted):
        found.append(rule_checks.check(rules))
    return Proof(rules.facility, rules.hash, tuple(found))


def _explored(rules: RuleSet, places: Sequence[int], only: str, jobs: int) -> Iterator[Found]:
    """These scenes, in their order."""
    work = functools.partial(_explore, rules, only)
    if only or jobs <= 1 or len(places) <= 1:
        yield from map(work, places)
        return
    fork = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=fork) as pool:
        yield from pool.map(work, places)


def _explore(rules: RuleSet, only: str, place: int) -> Found:
    return explore(next(islice(scenes(rules), place, None)), only)


def _asked(name: str, wanted: Sequence[str]) -> bool:
    return not wanted or any(name.startswith(one) for one in wanted)


def write_counterexample(proof: Proof, path: Path) -> str | None:
    """Write the first broken property's run; its name, or None if nothing is broken or it has no run."""
    for one in proof.found:
        for verdict in one.verdicts:
            if not verdict.holds and verdict.run:
                data = {
                    "schema": SCHEMA, "facility": proof.facility, "rules": proof.rules_hash, "scene": one.scene,
                    "property": verdict.name, "run": list(verdict.run),
                }  # fmt: skip
                path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
                return verdict.name
    return None


def play(rules: RuleSet, path: Path) -> Iterator[str]:
    """Lines of a run played again through the same steps."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ConfigError("proof.file", str(problem), str(path)) from problem
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ConfigError("proof.schema", "no run of a proof", str(path), f"give a file of schema {SCHEMA!r}")
    run = data.get("run")
    if not isinstance(run, list) or not all(isinstance(label, str) for label in run):
        raise ConfigError("proof.run", f"run = {run!r}", str(path), "give a list of labels")
    scene = next((one for one in scenes(rules) if one.name == data.get("scene")), None)
    if scene is None:
        names = ", ".join(one.name for one in scenes(rules))
        raise ConfigError("proof.scene", f"no scene {data.get('scene')!r}", str(path), f"there are {names}")
    if data.get("rules") != rules.hash:
        yield "note: the rules have changed since this run was written"
    for number, (label, state) in enumerate(replay(scene, run)):
        yield f"{number:4}  {label}"
        yield f"      {scene.describe(state)}"
