"""Applies mutants to production modules as they are imported and explores; one process for all of them.

Prints one JSON line for each mutant: name, the properties that broke, CPU seconds.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "mutants"
OURS = ("facility", "dose", "channels", "journal", "interlocks", "ioc_sim", "control", "records", "rig", "console")


class Patched(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module another source."""

    def __init__(self, file: str, source: str) -> None:
        self.name = file.removesuffix(".py").replace("/", ".")
        self.file = ROOT / file
        self.source = source
        self.used = False

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self, origin=str(self.file)) if name == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self.file)
        self.used = True
        exec(compile(self.source, str(self.file), "exec"), module.__dict__)


def patched(mutant: dict[str, str]) -> Patched:
    source = (ROOT / mutant["file"]).read_text(encoding="utf-8")
    if source.count(mutant["find"]) != 1:
        raise SystemExit(
            f"{mutant['file']}: {mutant['find']!r} is there {source.count(mutant['find'])} times, not once"
        )
    return Patched(mutant["file"], source.replace(mutant["find"], mutant["replace"]))


def forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]


def broken(mutant: dict[str, str], judge_all: bool) -> list[str]:
    finder = patched(mutant)
    forget()
    sys.meta_path.insert(0, finder)
    try:
        from facility.config import load_facility
        from interlocks.rules import load_rules
        from rig.proof.verify import verify

        facility = load_facility("wuwei")
        rules = load_rules(facility, next(iter(facility.rooms)), "carbon")
        proof = verify(rules, [mutant["scene"]] if mutant["scene"] else (), "" if judge_all else mutant["property"])
    finally:
        sys.meta_path.remove(finder)
    if not finder.used:
        raise SystemExit(f"{mutant['file']} was not imported")
    return sorted({v.name for one in proof.found for v in one.verdicts if not v.holds})


def main(names: Sequence[str]) -> None:
    sys.path.insert(0, str(ROOT))
    judge_all = "--all" in names
    wanted = [name for name in names if name != "--all"] or sorted(path.stem for path in FOLDER.glob("*.toml"))
    for name in wanted:
        begin = time.process_time()
        found = broken(tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8")), judge_all)
        print(json.dumps({"mutant": name, "broken": found, "cpu_s": round(time.process_time() - begin, 2)}), flush=True)
    forget()


if __name__ == "__main__":
    main(sys.argv[1:])
