"""The long counts, one after the other, resumable: ``make soak`` writes soak/<commit>.json after every single case.

A count is a number of cases of one kind that all have to pass. Stopped at any moment and started again at the same
commit it goes on where it was. With n cases and no failure, the failure rate is below 1 - 0.05^(1/n) at 95 %
confidence; that bound stands beside each count. Arguments choose counts by a part of their name; several processes may
work on different counts of one file.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import (
    soak_campaign,
    soak_crashes,
    soak_fields,
    soak_fuzz,
    soak_hil,
    soak_kills,
    soak_link,
    soak_rogue,
    soak_scenarios,
)
from benchmarks.report import ROOT, commit, measured_on

SOAK_SCHEMA = "ionctl.soak/1"
FOLDER = ROOT / "soak"
CONFIDENCE = 0.95
DEMO_TIMEOUT_S = 600.0
KEPT_OUTPUT = 4000


@dataclass
class Count:
    """How one count stands."""

    wanted: int
    passed: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    worst: dict[str, float] = field(default_factory=dict)
    """The greatest of each figure that cases gave."""

    @property
    def done(self) -> int:
        """Cases that were run."""
        return self.passed + len(self.failures)

    def bound(self) -> float | None:
        """Upper bound of the failure rate at 95 % confidence; None once something failed, or nothing was run."""
        return None if self.failures or not self.passed else 1.0 - (1.0 - CONFIDENCE) ** (1.0 / self.passed)


Case = Callable[[int], "str | tuple[str, dict[str, float]]"]
"""Runs case number i; returns what went wrong, nothing if it passed, and figures of which the greatest are kept."""


def demo(number: int) -> str:
    """One demo in a home of its own, seed = number of the case: it must deliver without any interlock."""
    with tempfile.TemporaryDirectory(prefix="ionctl-soak-") as home:
        command = [str(Path(sys.executable).parent / "ionctl"), "demo", "--seed", str(number + 1)]
        try:
            done = subprocess.run(
                command,
                env=os.environ | {"IONCTL_HOME": home},
                capture_output=True,
                text=True,
                timeout=DEMO_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"not done after {DEMO_TIMEOUT_S:.0f} s"
    if done.returncode != 0:
        return f"exit code {done.returncode}: {(done.stdout + done.stderr)[-KEPT_OUTPUT:]}"
    return ""


COUNTS: dict[str, tuple[int, Case]] = {
    "demo without a nuisance trip": (20, demo),
    "all scenarios in virtual time, the same run each time": (20, soak_scenarios.scenarios),
    "field without a nuisance trip, virtual time": (3000, soak_fields.field),
    "all trials of the interlocks, one seed each": (5, soak_fields.trials),
    "campaign: blocks of 100 runs": (100, soak_campaign.block),
    "attack on the safety link, virtual time": (1000, soak_link.virtual_attack),
    "attack on the safety link, real processes": (100, soak_link.real_attack),
    "rogue clients and deaf subscribers": (30, soak_rogue.rogue),
    "hardware in the loop, every failure in turn": (20, soak_hil.field),
    "death of one or all and recovery, virtual time": (1000, soak_crashes.crash),
    "kill -9 and recovery, real processes": (100, soak_kills.kill),
    "broken plans and records, blocks of 1,000": (100, soak_fuzz.block),
    "lateness of the safety link over ten minutes": (1, soak_link.lateness),
}


def load(path: Path) -> dict[str, Count]:
    """The counts as the file has them; new ones at zero."""
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["counts"] if path.exists() else {}
    counts = {}
    for name, (wanted, _) in COUNTS.items():
        entry = known.get(name, {})
        counts[name] = Count(
            wanted, entry.get("passed", 0), list(entry.get("failures", [])), float(entry.get("seconds", 0.0)),
            dict(entry.get("worst", {})),
        )  # fmt: skip
    return counts


def save(path: Path, name: str, count: Count) -> None:
    """Write one count into the file, in one step; the other counts stay as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        counts = load(path) | {name: count}
        data = {
            "schema": SOAK_SCHEMA,
            "measured_on": measured_on(),
            "confidence": CONFIDENCE,
            "counts": {key: asdict(one) | {"failure_rate_below": one.bound()} for key, one in counts.items()},
        }
        new = path.with_suffix(".new")
        new.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        new.replace(path)


def run_case(count: Count, case: Case) -> None:
    """Run the next case of a count and book it."""
    number, begin = count.done, time.perf_counter()
    result = case(number)
    problem, figures = result if isinstance(result, tuple) else (result, {})
    count.seconds += time.perf_counter() - begin
    for name, value in figures.items():
        count.worst[name] = max(value, count.worst.get(name, value))
    if problem:
        count.failures.append({"case": number, "problem": problem})
    else:
        count.passed += 1


def main(arguments: list[str]) -> int:
    """Run what is missing; exit code 1 if a case failed, now or before."""
    revision = commit()
    if revision.endswith("+"):
        print("note: files differ from the commit; the count is kept apart")
    path = FOLDER / f"{revision.replace('+', '-changed')}.json"
    counts = load(path)
    chosen = [name for name in COUNTS if not arguments or any(part in name for part in arguments)]
    for name in chosen:
        wanted, case = COUNTS[name]
        while counts[name].done < wanted:
            run_case(counts[name], case)
            save(path, name, counts[name])
            print(f"{name}: {counts[name].done} of {wanted}, {len(counts[name].failures)} failed", flush=True)
    for name in chosen:
        count, bound = counts[name], counts[name].bound()
        words = f"failure rate below {bound:.2%} at 95 % confidence" if bound is not None else "FAILED"
        print(f"{name}: {len(count.failures)} of {count.done} failed; {words}")
        for figure, value in sorted(count.worst.items()):
            print(f"    worst {figure}: {value:.3f}")
    print(f"written to {path.relative_to(ROOT)}")
    return 1 if any(counts[name].failures for name in chosen) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
