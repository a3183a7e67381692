"""Breakages of the product, each in a process of its own: how many runs of a campaign until it is caught.

``python -m benchmarks.breakages [NAME ...]`` prints a table and writes benchmarks/results/breakages.json; exit code 1
if one is not caught within 2,000 runs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT, save

FOLDER = ROOT / "tests" / "breakages"
COPIED = (
    "facility",
    "channels",
    "interlocks",
    "ioc_sim",
    "journal",
    "control",
    "records",
    "dose",
    "rig",
    "console",
    "configs",
    "benchmarks",
    "tests",
)
RUNS_MAX = 2000
STEP = 25
"""Runs of one trunk, before it is looked whether one has failed."""


def copy_of_tree(tree: Path) -> None:
    """The product as it stands in the working tree."""
    for name in COPIED:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "results"))


def patched(source: str, breakage: dict[str, str]) -> str:
    """The file with the breakage; ValueError where the place is not there, or there twice."""
    if source.count(breakage["find"]) != 1:
        count = source.count(breakage["find"])
        raise ValueError(f"{breakage['file']}: what is to be replaced is there {count} times, not once")
    return source.replace(breakage["find"], breakage["replace"])


def tried(name: str) -> dict[str, Any]:
    """One breakage: runs until it was caught, by what."""
    breakage = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="ionctl-breakage-") as folder:
        tree = ROOT
        if is_compiled(breakage["file"]):  # compiled code is cached by what the files say
            tree = Path(folder).resolve()
            copy_of_tree(tree)
            path = tree / breakage["file"]
            path.write_text(patched(path.read_text(encoding="utf-8"), breakage), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.breakages", "--here", name], cwd=tree, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(tree)}, check=False,
        )  # fmt: skip
    if done.returncode:
        return {"breakage": name, "words": breakage["words"], "caught": False, "runs": 0, "by": done.stderr[-500:]}
    return {"breakage": name, "words": breakage["words"], **json.loads(done.stdout.splitlines()[-1])}


def is_compiled(file: str) -> bool:
    """Whether the kernel is made from it."""
    return file == "interlocks/fast.py" or file.startswith("ioc_sim/")


def here(name: str) -> dict[str, Any]:
    """In this process, whose modules are not loaded yet: patch what is no kernel, and run until something fails."""
    breakage = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    if is_compiled(breakage["file"]):  # this is the copy
        return until_caught(None)
    if breakage["file"].startswith("configs/"):
        with tempfile.TemporaryDirectory(prefix="ionctl-breakage-") as folder:
            path = Path(folder) / Path(breakage["file"]).name
            path.write_text(patched((ROOT / breakage["file"]).read_text(encoding="utf-8"), breakage), encoding="utf-8")
            return until_caught(folder)
    from tests.rig.mutant_runner import Patched

    source = patched((ROOT / breakage["file"]).read_text(encoding="utf-8"), breakage)
    sys.meta_path.insert(0, Patched(breakage["file"], source))
    return until_caught(None)


def until_caught(config_dir: str | None) -> dict[str, Any]:
    """Run seeds from 0 on until one fails."""
    from rig.campaign.block import run_block
    from rig.campaign.setting import Setting
    from rig.logs import configure_logs

    configure_logs(json_lines=False, level="error")
    for first in range(0, RUNS_MAX, STEP):
        for outcome in run_block(Setting(config_dir=config_dir), range(first, first + STEP)):
            if outcome.failures:
                return {"caught": True, "runs": outcome.seed + 1, "by": outcome.failures[0]}
    return {"caught": False, "runs": RUNS_MAX, "by": ""}


def main(arguments: list[str]) -> int:
    """Try all, or those that are named."""
    if arguments[:1] == ["--here"]:
        print(json.dumps(here(arguments[1])))
        return 0
    names = arguments or sorted(path.stem for path in FOLDER.glob("*.toml"))
    rows = []
    for name in names:
        rows.append(tried(name))
        print(f"{name}: {rows[-1]}", file=sys.stderr, flush=True)
    save("breakages", {"breakages, and the campaign that caught them": rows}, runs_allowed=RUNS_MAX)
    return 0 if all(row["caught"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
