"""Replay a seed as if on another machine of the same kind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs

from console.own_packages import OWN_PACKAGES

ROOT = Path(__file__).resolve().parents[2]


def replayed_elsewhere(tmp_path: Path, seed: int) -> Path:
    """The trace of a seed by a process that has the compiled kernel from this one, and nothing else.

    Place of the sources, working folder, home, locale, time zone and hashes of strings are others.
    """
    place, home = tmp_path / "another place", tmp_path / "another home"
    home.mkdir()
    for package in OWN_PACKAGES:
        shutil.copytree(ROOT / package, place / package)
    kernels = os.environ.get("IONCTL_KERNEL_CACHE") or platformdirs.user_cache_dir("ionctl")
    other = {"HOME": str(home), "IONCTL_HOME": str(home), "IONCTL_KERNEL_CACHE": kernels, "PYTHONPATH": str(place),
             "PYTHONHASHSEED": "4242", "TZ": "Pacific/Auckland", "LC_ALL": "POSIX", "PYTHONUTF8": "0"}  # fmt: skip
    code = "import sys; from console.main import run; sys.exit(run(('replay', *sys.argv[1:])))"
    trace = tmp_path / "elsewhere"
    done = subprocess.run(
        [sys.executable, "-c", code, str(seed), "--trace", str(trace)], cwd=home,
        env={"PATH": os.environ["PATH"], **other}, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return trace
