"""All benchmarks, one after the other: ``python -m benchmarks``."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.report import ROOT

MODULES = ("bench_kernel", "bench_virtual", "bench_journal", "bench_ca")


def main() -> int:
    """Each in a process of its own, so that none starts warm; exit code 1 if one failed."""
    failed = [
        name
        for name in MODULES
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, check=False).returncode != 0
    ]
    for name in failed:
        print(f"FAILED {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
