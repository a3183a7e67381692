"""The plant's IOCs as a plain EPICS client sees them: server, client and test are three processes on loopback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ca


@pytest.mark.parametrize("case", ["metadata", "stamps", "alarms", "refusals", "commands", "monitors"])
def test_epics_client(case: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.iocs.ca_client", case],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.splitlines()[-1:] == ["PASSED"], done.stdout + done.stderr
