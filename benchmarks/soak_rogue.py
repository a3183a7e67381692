"""Rogue Channel Access clients for the long counts: `python -m benchmarks.soak_rogue NUMBER` runs one case."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT
from facility.config import load_facility
from rig.home import Home
from rig.link_trial_ca import NoTrialError
from rig.rogue_trial import RogueTrial, run_rogue_trial

CASE_TIMEOUT_S = 300.0
TRIES = 5
DEAF = 8
"""Times that the stopped subscriber has subscribed to everything: some 4,000 channels."""


def rogue(number: int) -> tuple[str, dict[str, float]]:
    """One facility among rogues; tried again where no beam came."""
    command = [sys.executable, "-m", "benchmarks.soak_rogue", str(number)]
    why = ""
    for untried in range(TRIES):
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=CASE_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"not done after {CASE_TIMEOUT_S:.0f} s", {}
        if done.returncode != 0:
            return f"exit code {done.returncode}: {(done.stdout + done.stderr)[-3000:]}", {}
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if said["tried"]:
            return said["problem"], said["figures"] | {"tries without beam": float(untried)}
        why = said["why"]
    return f"no beam came in {TRIES} tries; at last: {why}", {}


def main() -> int:
    """One case, its result as the last line."""
    number = int(sys.argv[1])
    trial = RogueTrial(
        seed=number + 1, seconds=(0.2, 4.0, 8.0)[number % 3], pause_s=(0.0, 0.001, 0.01)[number // 3 % 3],
        rogues=((False,), (True,), (False, True))[number % 3], deaf=DEAF, speed=(1.0, 2.0, 4.0)[number // 9 % 3],
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="ionctl-soak-") as home:
        try:
            verdict = run_rogue_trial(load_facility("wuwei"), Home(Path(home)), trial)
        except NoTrialError as nothing:
            print(json.dumps({"tried": False, "why": str(nothing)[-1000:]}))
            return 0
    figures: dict[str, float] = {
        "writes in one case": float(verdict.sent.get("writes", 0)), "subscriptions": float(verdict.subscriptions),
        "link cut with beam": float(verdict.link.ions_before > 0),
    }  # fmt: skip
    if verdict.link.ions_before:
        figures["beam_off_wall_ms"] = verdict.link.off_wall_ms
    print(json.dumps({"tried": True, "problem": verdict.problem, "figures": figures}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
