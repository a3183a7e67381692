"""Everything `make test` checks, in one run; all steps run even when one fails, the last line sums up.

The static checks and the uncompiled tests of interlocks/ share two cores, then the tests take both, then those that
start real processes run alone, since their timing is what they test.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PYTEST_NOTHING_COLLECTED = 5
BUDGET_S = 600.0
PARTS = 5
"""The longest files take as long as many others: two workers share more parts than two evenly."""
KERNEL_RUN = re.compile(r"\bRack\(|^from interlocks import .*\bfast\b|interlocks\.fast\b", re.MULTILINE)
"""What a test file of interlocks/ says that runs the fast evaluator."""


@dataclass
class Step:
    """One command, or several in a row, and what became of them."""

    name: str
    commands: list[list[str]]
    env: dict[str, str] = field(default_factory=dict)
    junit: Path | None = None
    may_be_empty: bool = False
    seconds: float = 0.0
    failed: list[str] = field(default_factory=list)
    output: str = ""


def run(step: Step, live: bool) -> Step:
    """Run all commands of a step; print as it goes, or keep the output for later."""
    begin = time.perf_counter()
    for command in step.commands:
        shown = " ".join([Path(command[0]).name, *command[1:]]).replace(f"{ROOT}/", "")
        if live:
            print(f"--- {shown}", flush=True)
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | step.env,
            stdout=None if live else subprocess.PIPE,
            stderr=None if live else subprocess.STDOUT,
            text=True,
            check=False,
        )
        if not live:
            step.output += f"--- {shown}\n{done.stdout}"
        nothing = step.may_be_empty and done.returncode == PYTEST_NOTHING_COLLECTED
        if done.returncode != 0 and not nothing:
            step.failed.append(shown)
    step.seconds = time.perf_counter() - begin
    return step


def tool(name: str, *arguments: str) -> list[str]:
    """A command of this environment."""
    return [str(BIN / name), *arguments]


def counts(steps: list[Step]) -> dict[str, int]:
    """Tests by outcome, over all pytest runs; one that ran in two of them counts once, by the worse."""
    found: dict[tuple[str | None, str | None], set[str]] = {}
    for step in steps:
        if step.junit is None or not step.junit.exists():
            continue
        for case in ET.parse(step.junit).getroot().iter("testcase"):
            found.setdefault((case.get("classname"), case.get("name")), set()).update(child.tag for child in case)
    failed = sum(not tags.isdisjoint({"failure", "error"}) for tags in found.values())
    skipped = sum("skipped" in tags and tags.isdisjoint({"failure", "error"}) for tags in found.values())
    return {"failed": failed, "skipped": skipped, "passed": len(found) - failed - skipped}


def interlock_tests(parts: int) -> list[list[str]]:
    """The test files of interlocks/ in parts of about the same length."""
    shares: list[list[Path]] = [[] for _ in range(parts)]
    files = sorted((ROOT / "tests/interlocks").rglob("test_*.py"), key=lambda path: (-path.stat().st_size, path))
    for path in files:
        min(shares, key=lambda share: sum(p.stat().st_size for p in share)).append(path)
    return [[path.relative_to(ROOT).as_posix() for path in sorted(share)] for share in shares if share]


def runs_kernels(file: str) -> bool:
    """Whether a test file of interlocks/ runs what is compiled: these run both ways, the others are the same twice."""
    return KERNEL_RUN.search((ROOT / file).read_text("utf-8")) is not None


def coverage_of(files: list[str], folder: Path, part: int) -> Step:
    """Run tests uncompiled and note which branches they took; those that tell nothing new that way are left out."""
    junit = folder / f"interlocks.{part}.xml"
    command = tool(
        "coverage", "run", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not ca and not compiled",
        f"--junitxml={junit}", *files,
    )  # fmt: skip
    env = {"NUMBA_DISABLE_JIT": "1", "COVERAGE_FILE": str(folder / f"coverage.{part}")}
    return Step("tests of interlocks/, not compiled", [command], env, junit)


def main() -> int:
    """Run all steps; exit code 1 if one failed."""
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ionctl-check-") as scratch:
        folder = Path(scratch)
        static = Step(
            "static checks",
            [
                tool("ruff", "format", "--check", "."),
                tool("ruff", "check", "."),
                tool("mypy"),
                tool("lint-imports"),
            ],
        )
        shares = interlock_tests(PARTS)
        parts = [coverage_of(files, folder, i) for i, files in enumerate(shares)]
        once = [f"--ignore={file}" for files in shares for file in files if not runs_kernels(file)]
        covered = Step(
            "branch coverage of interlocks/",
            [
                tool("coverage", "combine", "--quiet", str(folder)),
                tool("coverage", "report", "--include=interlocks/*", "--fail-under=100", "--show-missing"),
            ],
            env={"COVERAGE_FILE": str(folder / "coverage")},
        )
        parallel = Step(
            "tests",
            [
                tool(
                    "pytest",
                    "-q",
                    "-n",
                    "2",
                    "--dist",
                    "loadfile",
                    "--durations=15",
                    "-m",
                    "not ca",
                    f"--junitxml={folder / 'main.xml'}",
                    *once,
                )
            ],
            junit=folder / "main.xml",
        )
        serial = Step(
            "tests over Channel Access",
            [tool("pytest", "-q", "--durations=15", "-m", "ca", f"--junitxml={folder / 'ca.xml'}")],
            junit=folder / "ca.xml",
            may_be_empty=True,
        )
        with ThreadPoolExecutor(max_workers=2) as pool:
            for step in pool.map(lambda item: run(item, live=False), (*parts, static)):
                print(step.output, end="", flush=True)
        run(covered, live=True)
        run(parallel, live=True)
        run(serial, live=True)
        steps = [static, *parts, covered, parallel, serial]
        total = counts(steps)
    return report(steps, total, time.perf_counter() - begin)


def report(steps: list[Step], total: dict[str, int], seconds: float) -> int:
    """Print times, failures and the closing line."""
    print()
    for step in steps:
        print(f"{step.seconds:7.1f} s  {step.name}{': FAILED' if step.failed else ''}")
    failed = [command for step in steps for command in step.failed]
    for command in failed:
        print(f"FAILED {command}")
    if seconds > BUDGET_S:
        print(f"note: {seconds:.0f} s is more than the {BUDGET_S:.0f} s allowed on two idle cores")
    bad, passed = total["failed"], total["passed"]
    words = [f"{bad} failed"] if bad else []
    words += [f"{passed} passed", f"{total['skipped']} skipped"]
    if failed and not bad:
        words.append(f"{len(failed)} checks failed")
    print(f"===== {', '.join(words)} in {seconds:.2f}s =====")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    raise SystemExit(main())
