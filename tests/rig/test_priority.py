"""Who is scheduled first: by niceness, and by that of the session where Linux schedules by session."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_TOLD = """
import json, os, pathlib
from rig.priority import give_way
group = pathlib.Path("/proc/self/autogroup")
give_way()
print(json.dumps([os.getpriority(os.PRIO_PROCESS, 0), group.read_text().split()[-1] if group.exists() else None]))
"""


@pytest.mark.parametrize("leads", [True, False])
def test_a_strangers_process_comes_last_and_moves_no_session_but_its_own(leads: bool) -> None:
    # one that leads no session stands in that of a parent that does
    inner = [sys.executable, "-c", _TOLD]
    outer = [sys.executable, "-c", f"import subprocess; subprocess.run({inner!r}, check=True)"]
    told = subprocess.run(inner if leads else outer, capture_output=True, check=True, text=True, start_new_session=True)
    niceness, of_session = json.loads(told.stdout)
    assert niceness == 19
    assert of_session in (None, "19" if leads else "0")
