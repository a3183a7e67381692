"""Hardware in the loop for the long counts: C soft IOCs as scanning supply and chamber voltage, failing in turn."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.report import ROOT

CASE_TIMEOUT_S = 1800.0
PER_SIDE = 15
"""225 spots."""
MODES = ("per_spot", "table")


def field(number: int) -> tuple[str, dict[str, float]]:
    """A field of 225 spots with every failure of both devices in turn; set spot by spot and by table in turn."""
    with tempfile.TemporaryDirectory(prefix="ionctl-soak-") as home:
        command = [sys.executable, "-m", "rig.external.trial", "--home", home, "--per-side", str(PER_SIDE),
                   "--seed", str(number + 1), "--mode", MODES[number % len(MODES)]]  # fmt: skip
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=CASE_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return f"not done after {CASE_TIMEOUT_S:.0f} s", {}
    if not done.stdout:
        return f"exit code {done.returncode}: {done.stderr[-3000:]}", {}
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    figures = {f"{one['deed']}: off_ms": float(one["off_ms"]) for one in said["outcomes"]}
    figures |= {f"{one['deed']}: bound_ms": float(one["bound_ms"]) for one in said["outcomes"]}
    figures["trips of this machine's load"] = float(len(said["nuisances"]))
    figures["worst lateness of the plant, ms"] = float(said["pacing"].get("worst_late_ms", 0.0))
    return str(said["problem"]), figures
