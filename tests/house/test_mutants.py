"""Mutation testing leaves nothing of interlocks/ out, and its page says what mutants.toml says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "mutants.toml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "reference" / "mutants.md").read_text(encoding="utf-8")
ARGUED = SETTINGS.get("argued", [])
MODULES = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "interlocks").glob("*.py") if path.stat().st_size
)


def part(name: str) -> str:
    """What stands on the page between two marks."""
    return PAGE.split(f"<!-- {name} -->")[1]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_of_the_interlocks_has_a_score(module: str) -> None:
    row = re.search(rf"^\| `{module}` \| (\d+) \| (\d+) \| (\d+) \|", part("scores"), re.MULTILINE)
    assert row, f"{module} is not on the page: run `make mutants`, then scripts/mutants.py --write"
    assert row[1] == row[2], f"{module}: {row[2]} of {row[1]} mutants have been tried"


def test_the_score_on_the_page_is_what_is_wanted() -> None:
    row = re.search(r"^\| all \| \d+ \| (\d+) \| (\d+) \|", part("scores"), re.MULTILINE)
    assert row
    assert int(row[2]) >= SETTINGS["score"] * int(row[1])


def test_every_argument_is_on_the_page_and_about_a_line_that_is_there() -> None:
    for one in ARGUED:
        source = " ".join((ROOT / one["module"]).read_text(encoding="utf-8").split())
        assert one["line"] in source, f"{one['module']}: no line `{one['line']}`"
        assert len(one["why"]) > 10, f"{one['module']}: `{one['line']}` is not argued"
        assert one["why"] in part("argued"), f"{one['module']}: `{one['line']}` is not on the page"


def test_every_kind_of_mutant_that_is_not_made_has_a_reason() -> None:
    assert all(row["why"] and (row.get("operator") or row.get("line")) for row in SETTINGS["left_out"])
