"""A console command of an operator starts without the libraries that only others need: each takes its time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_an_operators_commands_load_neither_database_nor_arrow() -> None:
    code = "import rig.remote, rig.interlock_desk, sys; print(*{'sqlalchemy', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60.0
    )
    assert done.stdout.strip() == ""
