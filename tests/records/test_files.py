"""What a delivery leaves in its folder, and what the command line makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from console.main import run
from control.plan.dicom_writer import write_dicom_plan
from facility.errors import ExitCode
from facility.pv_catalogue import FE_STATUS
from facility.states import FrontEndState
from tests.records.delivered import facility, plan


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_dicom_plan(plan(), folder / "plan.dcm")
    assert run(["--home", str(folder), "deliver", str(folder / "plan.dcm"), "--qa", "--json"]) == ExitCode.OK
    return folder


@pytest.fixture(scope="module")
def session(home: Path) -> Path:
    (found,) = (home / "sessions").iterdir()
    return found


def test_logs_carry_units_hashes_and_the_configuration(session: Path) -> None:
    for name, schema in (("spots.parquet", b"ionctl.spot-log/1"), ("samples.parquet", b"ionctl.sample-log/1")):
        said = pq.read_schema(session / name)
        assert said.metadata[b"schema"] == schema
        assert said.metadata[b"session"] == session.name.encode()
        assert json.loads(said.metadata[b"config"]) == json.loads(facility().canonical_json())
        assert said.metadata[b"facility_hash"] == facility().hash.encode()
        assert len(said.metadata[b"plan_hash"]) == 64
        assert all(said.field(column).metadata[b"unit"] for column in said.names)


def test_samples_tell_the_course_of_the_delivery(session: Path) -> None:
    table = pq.read_table(session / "samples.parquet")
    assert table.column_names[1 : 1 + len(FE_STATUS)] == [f"fe_{name}" for name in FE_STATUS]
    t_ns, state = table["t_ns"].to_numpy(), table["fe_state"].to_numpy()
    assert (np.diff(t_ns) >= 0).all()
    assert {FrontEndState.IRRADIATING, FrontEndState.DONE} <= set(state.tolist())
    assert len(set(table["fe_token"].to_pylist()) - {0}) == len(plan().beams[0].layers)
    spots = pq.read_table(session / "spots.parquet")
    last = table.slice(table.num_rows - 1)
    layer = spots.filter(spots["layer"].to_numpy() == len(plan().beams[0].layers) - 1)
    assert last["fe_ic1_ions"][0].as_py() == pytest.approx(sum(layer["ic1_ions"].to_pylist()), rel=1e-4)  # late charge


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = run(list(words))
    return code, capsys.readouterr().out


def test_the_record_is_exported_again_from_the_journal_and_checked(
    home: Path, session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, again, of = session / "record.dcm", tmp_path / "again.dcm", ("--plan", str(home / "plan.dcm"))
    export = ("session", "export", session.name, "--output", str(again), "--journal", str(session / "journal.sqlite"))
    assert command(capsys, "--home", str(home), *export, *of)[0] == ExitCode.OK
    assert again.read_bytes() == kept.read_bytes()
    code, text = command(capsys, "record", "check", str(kept), *of)
    assert (code, "every spot was delivered as planned" in text) == (ExitCode.OK, True)
    code, text = command(capsys, "--home", str(home), "record", "check", str(kept))  # the journal knows its plan
    assert (code, "every spot was delivered as planned" in text) == (ExitCode.OK, True)
    code, text = command(capsys, "--home", str(tmp_path), "record", "check", str(kept))
    assert code == ExitCode.PLAN_REFUSED
    code, text = command(capsys, "record", "check", str(kept), str(again), *of, "--json")
    assert code == ExitCode.VERIFICATION_FAILED
    assert "is on the list twice" in " ".join(json.loads(text)["objections"])
    code, _ = command(capsys, "record", "check", str(home / "plan.dcm"), *of)
    assert code == ExitCode.PLAN_REFUSED
