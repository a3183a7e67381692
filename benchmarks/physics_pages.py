"""All pictures of docs/physics by one command: ``make pictures``, or ``python -m benchmarks.physics_pages``.

With the word ``tables`` it makes all tables of those pages and of docs/reference/ranges.md anew as well: an hour of one
core. Each page's own command stands on the page. Pictures and tables that stand beside published figures need
``../shared/data``.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.report import ROOT

PICTURES = (("machine_pictures",), ("slow_extraction", "pictures"), ("dose_tables", "pictures"))
TABLES = (("range_table",), ("several_energies",), ("slow_extraction", "kobayashi", "spill", "start"), ("live_spill",),
          ("spill_calibration",), ("spill_calibration", "slow"), ("live_response",),
          ("dose_tables", "carbon", "proton", "plans", "speed"))  # fmt: skip


def main() -> int:
    """Each in a process of its own, so that times are those of a fresh one; exit code 1 if one failed."""
    if sys.argv[1:] not in ([], ["tables"]):
        print("usage: python -m benchmarks.physics_pages [tables]", file=sys.stderr)
        return 2
    wanted = PICTURES + (TABLES if sys.argv[1:] else ())
    failed = [
        " ".join(words)
        for words in wanted
        if subprocess.run(
            [sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:]], cwd=ROOT, check=False
        ).returncode
    ]
    for name in failed:
        print(f"FAILED {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
