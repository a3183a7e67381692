"""Rogue clients of Channel Access: the dose by truth stays in tolerance, or the beam is off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from facility.config import load_facility
from facility.pv_catalogue import CATALOGUE
from interlocks import pvs
from interlocks.rules import load_rules

ROOT = Path(__file__).resolve().parents[2]
WRITABLE = {"FE:Spots-SP", "FE:Cmd", "RING:Cmd", "RS:Cmd", "SAFE:Cmd", "SAFE:KeepAlive", "TCS:Cmd"}
"""Signed commands, signed signs of life, and a table that does nothing until a signed command with its CRC takes it."""


def test_no_limit_gain_calibration_or_bypass_is_a_plain_writable_pv() -> None:
    facility = load_facility("wuwei")
    rules = load_rules(facility, "1", "carbon").rules
    writable = {entry.name: entry for entry in (*CATALOGUE, *pvs.entries(rules)) if entry.writer != "nobody"}
    plain = {name for name, entry in writable.items() if entry.kind != "bytes"}
    assert plain == {"FE:Spots-SP"}
    assert set(writable) >= WRITABLE
    for name in set(writable) - WRITABLE:
        assert writable[name].writer == "command", f"{name}: who may write it, and what does it do unsigned?"


@pytest.mark.ca
def test_rogue_writes_and_deaf_subscribers_while_beam_is_on(tmp_path: Path) -> None:
    """In a process of its own, since libca reads its addresses once; at the end the link is cut among them all."""
    code = (
        "import json, sys; from pathlib import Path; from facility.config import load_facility; "
        "from rig.home import Home; from rig.rogue_trial import RogueTrial, run_rogue_trial; "
        "trial = RogueTrial(seconds=2.0, rogues=(True,)); "
        "v = run_rogue_trial(load_facility('wuwei'), Home(Path(sys.argv[1])), trial); "
        "print(json.dumps([v.problem, v.sent, v.subscriptions]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    problem, sent, subscriptions = json.loads(done.stdout.splitlines()[-1])
    assert problem == ""
    assert subscriptions > 200
    assert sent["writes"] > 100
    for deed in ("number", "text", "bytes", "flood", "slowly", "replay", "command"):
        assert sent[deed] > 0, sent
