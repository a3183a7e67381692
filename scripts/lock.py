"""Write constraints.txt: the exact versions of everything ionctl pulls in, as installed in this environment.

Run it with the interpreter of an environment that holds all extras: ``.venv/bin/python scripts/lock.py``.
Only what ionctl depends on, directly or not, is listed; whatever else the environment holds is left out.
"""

from __future__ import annotations

import sys
import tomllib
from collections import deque
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LEFT_OUT = {"setuptools"}  # every new environment brings the one that fits its Python
ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# Exact versions of everything ionctl pulls in, extras included. Written by scripts/lock.py; used by `make venv`.
# Ranges and the reason for each direct dependency stand in pyproject.toml.
"""


def direct_requirements() -> list[Requirement]:
    """What pyproject.toml asks for: to run, with every extra, and to build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        lines += extra
    return [Requirement(line) for line in lines]


def closure(wanted: list[Requirement]) -> tuple[dict[str, str], list[str]]:
    """Versions of all that is reached from `wanted`, and the names that are not installed."""
    versions: dict[str, str] = {}
    missing: list[str] = []
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = deque(wanted)
    while queue:
        requirement = queue.popleft()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            found = distribution(requirement.name)
        except PackageNotFoundError:
            missing.append(requirement.name)
            continue
        versions[key[0]] = found.version
        for line in found.requires or []:
            child = Requirement(line)
            environments = [{"extra": extra} for extra in requirement.extras] or [{"extra": ""}]
            if child.marker is None or any(child.marker.evaluate(env) for env in environments):
                queue.append(child)
    return versions, missing


def main() -> int:
    """Write the file; exit code 1 names what is not installed."""
    versions, missing = closure(direct_requirements())
    if missing:
        sys.stderr.write(f"not installed here: {', '.join(sorted(missing))}\n")
        return 1
    lines = [f"{name}=={version}\n" for name, version in sorted(versions.items()) if name not in LEFT_OUT]
    (ROOT / "constraints.txt").write_text(HEADER + "".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
