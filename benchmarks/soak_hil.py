"""Hardware in the loop for the long counts: C soft IOCs as scanning supply and chamber voltage, failing in turn."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.report import ROOT

CASE_TIMEOUT_S = 1800.0
PER_SIDE = 15
"""225 spots."""
MODES = ("per_spot", "table")
_KEPT = 3000


def field(number: int) -> tuple[str, dict[str, float]]:
    """A field of 225 spots with every failure of both devices in turn; set spot by spot and by table in turn.

    The home of a field that does not pass is kept, with the logs of its processes; the problem says where.
    """
    home = tempfile.mkdtemp(prefix="ionctl-soak-")
    command = [sys.executable, "-m", "rig.external.trial", "--home", home, "--per-side", str(PER_SIDE),
               "--seed", str(number + 1), "--mode", MODES[number % len(MODES)]]  # fmt: skip
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CASE_TIMEOUT_S, check=False)
        problem, figures = verdict(done.returncode, done.stdout, done.stderr)
    except subprocess.TimeoutExpired as late:
        said = f"{_text(late.stdout)}{_text(late.stderr)}"
        problem, figures = f"not done after {CASE_TIMEOUT_S:.0f} s; it said: {said}", {}
    if problem:
        return f"{problem}; its home is {home}", figures
    shutil.rmtree(home)
    return problem, figures


def verdict(code: int, stdout: str, stderr: str) -> tuple[str, dict[str, float]]:
    """What a trial came to, by its last line and its exit code; never an empty problem where it has not passed."""
    lines = stdout.splitlines()
    try:
        said: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    except ValueError:
        said = {}
    if "outcomes" not in said:
        return f"exit code {code} and no verdict; it said: {stdout[-_KEPT:]}{stderr[-_KEPT:] or '(nothing)'}", {}
    figures = {f"{one['deed']}: off_ms": float(one["off_ms"]) for one in said["outcomes"]}
    figures |= {f"{one['deed']}: bound_ms": float(one["bound_ms"]) for one in said["outcomes"]}
    figures["trips of this machine's load"] = float(len(said["nuisances"]))
    figures["worst lateness of the plant, ms"] = float(said["pacing"].get("worst_late_ms", 0.0))
    problem = str(said["problem"])
    if code and not problem:
        problem = f"exit code {code} without a problem; it said: {stderr[-_KEPT:] or '(nothing)'}"
    return problem, figures


def _text(output: bytes | str | None) -> str:
    """The end of what a process has said until it was killed."""
    words = output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""
    return words[-_KEPT:]
