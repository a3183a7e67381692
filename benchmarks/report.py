"""Tables on the terminal and JSON in benchmarks/results/: the same figures, with what they were measured on."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
SCHEMA = "ionctl.benchmark/1"
Row = Mapping[str, Any]


def commit() -> str:
    """Commit of the checkout, with '+' if files differ from it; 'unknown' outside a checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "") if head.returncode == 0 else "unknown"


def cpu() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def measured_on() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "commit": commit(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": numpy.__version__,
    }


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def print_table(title: str, rows: Sequence[Row]) -> None:
    """One line for each row, columns as the first row names them; units stand in the names."""
    print(f"\n{title}")
    if not rows:
        print("  nothing was measured")
        return
    columns = list(rows[0])
    cells = [[column.replace("_", " ") for column in columns], *([_text(row.get(c)) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for number, line in enumerate(cells):
        first, rest = line[0].ljust(widths[0]), [cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True)]
        print("  " + "  ".join([first, *rest]))
        if number == 0:
            print("  " + "  ".join("-" * w for w in widths))


def write_part(page: Path, maker: str, part: str, lines: Sequence[str]) -> None:
    """Print a table and put it into a page, between its marks: made by benchmarks/<maker>.py."""
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {part}: made by benchmarks/{maker}.py -->", f"<!-- end of {part} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    table = "\n".join(lines)
    page.write_text(pattern.sub(lambda _: f"{begin}\n\n{table}\n\n{end}", text), encoding="utf-8")
    print(table)


def save(name: str, tables: Mapping[str, Sequence[Row]], **more: Any) -> Path:
    """Print all tables and write them to results/<name>.json."""
    for title, rows in tables.items():
        print_table(title, rows)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    data = {"schema": SCHEMA, "benchmark": name, "measured_on": measured_on(), "tables": tables, **more}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(f"\n  written to {path.relative_to(ROOT)}")
    return path
