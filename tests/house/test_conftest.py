"""The rules of tests/conftest.py bite: shown on small test files run by a pytest of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.skips import AllowedSkip, objection, read_allowed

ROOT = Path(__file__).resolve().parents[2]


def run_pytest(folder: Path, source: str) -> tuple[int, str]:
    """Run one test file under the project's settings and conftest."""
    (folder / "test_small.py").write_text(source, encoding="utf-8")
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest", "-c",
        str(ROOT / "pyproject.toml"), "--rootdir", str(folder), str(folder / "test_small.py"),
    ]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_tasks_skips_and_warnings(tmp_path: Path) -> None:
    code, output = run_pytest(
        tmp_path,
        """
import asyncio
import warnings
import pytest

async def test_leaves_a_task():
    asyncio.create_task(asyncio.sleep(100))

async def test_tidy():
    await asyncio.create_task(asyncio.sleep(0))

def test_skips_for_no_listed_reason():
    pytest.skip("not today")

def test_warns():
    warnings.warn("careless", UserWarning, stacklevel=1)
""",
    )
    assert code == 1, output
    assert "ERROR test_small.py::test_leaves_a_task - Failed: 1 tasks left behind" in output
    assert "test_skips_for_no_listed_reason: skipped for a reason" in output
    assert "FAILED test_small.py::test_warns" in output
    assert "2 failed, 2 passed, 1 error" in output


def test_a_reason_that_is_not_true_here_is_refused() -> None:
    untrue = [AllowedSkip("python not installed", "never", unless_module="sys")]
    assert "module sys is installed" in objection("Skipped: python not installed", untrue)
    assert objection("no gamma camera", [AllowedSkip("no .* camera", "rare", unless_path="no/such/thing")]) == ""
    assert all(entry.because for entry in read_allowed())


def test_channel_access_stays_on_loopback() -> None:
    assert os.environ["EPICS_CA_ADDR_LIST"] == "127.0.0.1"
    assert os.environ["EPICS_CA_AUTO_ADDR_LIST"] == "NO"
    assert os.environ["EPICS_CAS_INTF_ADDR_LIST"] == "127.0.0.1"
