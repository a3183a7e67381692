"""Reference files are what they were when the documents' figures were made."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.reference_files import FOLDER, SHA256, changed, require


def test_reference_files_have_their_checksums() -> None:
    if not FOLDER.is_dir():
        pytest.skip("../shared/data is not here")
    assert changed() == []
    require()


def test_another_file_is_no_reference(tmp_path: Path) -> None:
    name = "tables/range_p_water.csv"
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text("T_MeV,R_CSDA_ICRU90_I78\n100,7.7\n", encoding="utf-8")
    assert f"{name} is another file" in changed(tmp_path)
    assert len(changed(tmp_path)) == len(SHA256)
