"""The order of calls that the scene `permit` repeats, against the safety controller itself, over seeded runs."""

from __future__ import annotations

import numpy as np
import pytest

from interlocks import permit
from rig.proof.safety_scene import TICK_NS, PermitScene, scenes
from tests.interlocks.support import MS, Safety

CAUSES = {"emergency-stop": ("estop__a_ok", 0.0, 1.0), "gate-stale": ("gate__age_ms", 200.0, 0.0)}
FAST = {"pause": "chamber-drift", "abort": "spot-overdose-ic1"}


def scene_of(safety: Safety) -> PermitScene:
    """The link, an ABORT and a PAUSE, with the controller's first refusal of a reset."""
    wanted = {"link-plant", *CAUSES}
    found = next(one for one in scenes(safety.rules) if {each.name for each in one.watched} == wanted)
    return PermitScene(found.watched, objects=True)


def scan(safety: Safety, label: str) -> None:
    """What the label says, to a controller with all its rules; then a scan, a step of the scene later."""
    words = dict(word.split("=") for word in label.removeprefix("scan ").split())
    for name, (signal, bad, good) in CAUSES.items():
        safety.set(**{signal: bad if name in words["causes"].split(",") else good})
    safety.link_ok = words["link"] == "1"
    ids = [rule.id for rule in safety.rules.h]
    mask = sum(1 << ids.index(FAST[name]) for bit, name in enumerate(FAST) if int(words["fast"]) >> bit & 1)
    if safety.link_ok:
        safety.set(h__latched=float(mask & (1 << 30) - 1), h__latched_high=float(mask >> 30))
    for _ in range(TICK_NS // MS):
        safety.advance()
    safety.scan()


@pytest.mark.parametrize("seed", range(3))
def test_the_controller_gives_the_lines_of_the_scene(seed: int) -> None:
    safety = Safety()
    safety.set(fe__active=0.0, fe__demand=0.0, fe__state=0.0)  # no field: nothing is counted, nothing terminates
    scene = scene_of(safety)
    (_, state), = scene.initial()  # fmt: skip
    draw = np.random.default_rng(seed)
    seen: set[tuple[bool, bool]] = set()
    resets = 0
    for number in range(250):
        choices = dict(scene.steps(state))
        quiet = [label for label in choices if label.startswith("scan causes=none link=1 fast=0")]
        scans = [label for label in choices if label.startswith("scan")]
        asked = [label for label in choices if label.startswith("reset")]
        kind = "quiet" if number == 0 else str(draw.choice(["quiet", "quiet", "reset", "reset", "scan"]))
        label = str(draw.choice({"quiet": quiet, "reset": asked, "scan": scans}[kind]))
        if label.startswith("scan"):
            scan(safety, label)
        else:
            safety.say("reset", label.removeprefix("reset ").replace("nobody", ""))
            resets += 1
        state = choices[label]
        lines = permit.lines(state.permit)
        told = safety.controller.command_to_rack()
        assert (told.permit, told.hold) == lines, (number, label, scene.describe(state))
        seen.add((told.permit, told.hold))
    assert seen == {(True, False), (False, True), (False, False)}
    assert resets > 50
