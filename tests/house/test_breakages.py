"""Each breakage that the campaigns have to catch still finds the place that it breaks."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from benchmarks.breakages import COPIED, FOLDER, patched
from benchmarks.report import ROOT

PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_a_breakage_finds_its_place_once(path: Path) -> None:
    breakage = tomllib.loads(path.read_text(encoding="utf-8"))
    source = (ROOT / breakage["file"]).read_text(encoding="utf-8")
    assert patched(source, breakage) != source


def test_the_copy_that_is_broken_has_every_package() -> None:
    assert set(COPIED) >= PACKAGES
