"""Mutation testing leaves no module of interlocks/ out, and its page says what mutants.toml says."""

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


def counts(name: str) -> tuple[int, int, int]:
    """Mutants, tried, killed of a row of the page."""
    row = re.search(rf"^\| {name} \| (\d+) \| (\d+) \| (\d+) \|", part("scores"), re.MULTILINE)
    assert row, f"{name} is not on the page: run `make mutants`, then scripts/mutants.py --write"
    return int(row[1]), int(row[2]), int(row[3])


@pytest.mark.parametrize("module", MODULES)
def test_every_module_of_the_interlocks_has_a_score(module: str) -> None:
    mutants, tried, killed = counts(f"`{module}`")
    assert killed <= tried
    assert tried == mutants, f"{module}: {tried} of {mutants} mutants have been tried"


def test_the_score_on_the_page_is_what_is_wanted() -> None:
    _, tried, killed = counts("all")
    assert killed >= SETTINGS["score"] * tried


def test_every_argument_is_on_the_page_with_its_reason() -> None:
    for one in ARGUED:
        assert one["module"] in MODULES
        assert len(one["why"]) > 10, f"{one['module']}: `{one['line']}` is not argued"
        assert one["why"] in part("argued"), f"{one['module']}: `{one['line']}` is not on the page"


def test_every_kind_of_mutant_that_is_not_made_has_a_reason() -> None:
    assert all(row["why"] and (row.get("operator") or row.get("line")) for row in SETTINGS["left_out"])
    assert set(SETTINGS["whole"]) <= set(MODULES)
