"""A virtual delivery that was interrupted is gone on with in another process, to the spot, or closed as partial."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from control.layer_table import COLUMN
from control.plan.dicom_writer import write_dicom_plan
from control.plan.maker import make_small_plan
from facility.errors import CommandRefused, ConfigError, PlanError
from facility.intensity import spot_tolerance_ions
from facility.states import FrontEndState
from facility.timebase import NS_PER_MS, Rank
from interlocks.rules import load_rules
from ioc_sim.register_store import MemoryStore, read_records
from journal import read
from journal.store import open_journal, sqlite_url
from journal.verify import verify
from records.reader import read_record
from rig.deliver import EVENTS_FILE, RECORD_FILE, DeliveryRequest, deliver_plan
from rig.home import HOME_ENV, JOURNAL_FILE, Home
from rig.result import DeliveryResult
from rig.resume import close_partial, resume_session
from rig.scratch import alone, scratch
from rig.truth_log import TRUTH_LOG_FILE, read_truth_log
from rig.virtual_register import REGISTER_FILE
from rig.virtual_world import World
from tests.recovery.test_crashes import facility, program

ROOT = Path(__file__).parents[2]
REASON = "a test"
LOOK_NS = 2 * NS_PER_MS


class Hasty(World):
    """A facility whose operator types Ctrl-C once so many ions of it have come, in the middle of a layer."""

    ions = math.inf

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._look()

    def _look(self) -> None:
        irradiating = self.plant.status.state == FrontEndState.IRRADIATING
        if irradiating and not self.interrupted and self.plant.truth_total_ions >= Hasty.ions:
            signal.raise_signal(signal.SIGINT)
        self.loop.call_at_rank(self.loop.now_ns() + LOOK_NS, Rank.IOC, self._look)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rig.deliver_virtual.World", Hasty)


def interrupted(tmp_path: Path, share: float = 0.5) -> tuple[Home, DeliveryResult]:
    """A delivery that somebody has interrupted; the plan is where the journal says it is."""
    home, plan = Home(tmp_path / "home"), tmp_path / "small.dcm"
    write_dicom_plan(make_small_plan(facility(), "carbon"), plan)
    request = DeliveryRequest(plan, facility(), program().room_id, home, qa=True)
    Hasty.ions = share * program().total_ions
    result = deliver_plan(request, "virtual")
    assert result.summary["status"] == "interrupted"
    with np.load(home.session_dir(str(result.summary["session"])) / REGISTER_FILE) as data:
        (record, *_) = read_records(MemoryStore(data["words"]))
    assert 0 < record.done.sum() < len(record.done)
    return home, result


def resume(home: Home, session: str, *, confirm: bool = True, share: float = math.inf) -> DeliveryResult:
    Hasty.ions = share * program().total_ions
    return resume_session(facility(), home, session, None, REASON, lambda *_: confirm)


def ionctl(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, that knows nothing but the home."""
    command = [sys.executable, "-c", "import sys; from console.main import run; sys.exit(run(sys.argv[1:]))"]
    return subprocess.run(
        [*command, *arguments], env={HOME_ENV: str(home.root)}, capture_output=True, text=True, check=False, timeout=300
    )


def given(folder: Path) -> dict[int, np.ndarray]:
    """Ions by spot (n,) and layer, by truth."""
    columns = read_truth_log(folder / TRUTH_LOG_FILE).columns
    return {k: columns["ions"][columns["layer"] == k] for k in range(len(program().layers))}


def uncertain(folder: Path) -> dict[int, np.ndarray]:
    """What counts as delivered and was not measured, (n,) by layer."""
    with closing(open_journal(sqlite_url(folder / JOURNAL_FILE), facility().id, read_only=True)) as journal:
        assert verify(journal).broken == ""
        (entry,) = read.sessions(journal)
        return {one.layer: one.uncertain for one in read.layers(journal, entry.session) if one.status == read.VERIFIED}


def test_it_is_gone_on_with_in_another_process_and_every_spot_is_right_by_truth(tmp_path: Path) -> None:
    home, first = interrupted(tmp_path)
    session = str(first.summary["session"])
    folder = home.session_dir(session)
    second = resume(home, session, share=0.03)
    assert second.summary["status"] == "interrupted"
    assert second.seed != first.seed
    before = given(folder)
    outcome = ionctl(home, "resume", session, "--reason", REASON, "--yes", "--json")
    assert outcome.returncode == 0, outcome.stderr
    told = json.loads(outcome.stdout)
    assert (told["status"], told["part"], told["target"]) == ("completed", 3, "virtual")
    assert told["truth"]["spots_within"] == program().n_spots
    assert not (folder / REGISTER_FILE).exists()
    after, unsure = given(folder), uncertain(folder)
    assert sorted(unsure) == list(range(len(program().layers)))
    for index, layer in enumerate(program().layers):
        count = facility().ions_per_count(layer.species, layer.energy_mev_u)
        target = layer.target_ions
        allowed, _ = spot_tolerance_ions(target, layer.intensity_ions_per_s, count, float(target.max()))
        assert (after[index] - target <= allowed).all()
        assert (target - after[index] <= allowed + unsure[index]).all()
        assert (after[index] >= before[index]).all()
    assert [path.name for path in sorted((folder / "parts").iterdir())] == ["1", "2"]
    with pytest.raises(CommandRefused, match="is completed"):
        resume(home, session)
    interrupted(tmp_path)  # the same seed, so the same name: nothing of the session before is left
    assert not (folder / "parts").exists()


def test_what_is_not_confirmed_or_dies_has_never_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The facility works on a copy: the next one gives what this one had given."""
    home, first = interrupted(tmp_path)
    session = str(first.summary["session"])
    folder = home.session_dir(session)
    journal, truth = (folder / JOURNAL_FILE).read_bytes(), (folder / TRUTH_LOG_FILE).read_bytes()
    with pytest.raises(CommandRefused, match="not confirmed: nothing was delivered"):
        resume(home, session, confirm=False)

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rig.resume_virtual.leave", dies)
        with pytest.raises(KeyboardInterrupt):
            resume(home, session)
    assert (folder / JOURNAL_FILE).read_bytes() == journal
    assert (folder / TRUTH_LOG_FILE).read_bytes() == truth
    assert [path.name for path in home.sessions.iterdir()] == [session]
    done = resume(home, session)
    assert done.truth is not None
    assert (done.completed, done.truth.within_tolerance, done.part) == (True, True, 2)


def test_a_register_of_another_moment_is_not_believed(tmp_path: Path) -> None:
    """Never optimistic: the layer under way counts as delivered."""
    home, first = interrupted(tmp_path)
    folder = home.session_dir(str(first.summary["session"]))
    shutil.copy(folder / REGISTER_FILE, tmp_path)
    second = resume(home, folder.name, share=0.03)
    assert second.summary["status"] == "interrupted"
    shutil.copy(tmp_path / REGISTER_FILE, folder)
    third = resume(home, folder.name)
    assert third.completed
    for index, layer in enumerate(program().layers):
        assert (given(folder)[index] <= 1.02 * layer.target_ions).all()
    assert sum(ions.sum() for ions in given(folder).values()) < 0.97 * program().total_ions


def test_two_do_not_go_on_with_it_at_once(tmp_path: Path) -> None:
    home, first = interrupted(tmp_path)
    session = str(first.summary["session"])

    def meanwhile(*_: Any) -> bool:
        with pytest.raises(CommandRefused, match="another process goes on with it"):
            resume(home, session)
        return False

    with pytest.raises(CommandRefused, match="not confirmed"):
        resume_session(facility(), home, session, None, REASON, meanwhile)


def test_nobody_delivers_into_the_folder_of_a_session_that_is_gone_on_with(tmp_path: Path) -> None:
    """The same plan and seed give the same session: the files of two facilities would lie in one folder."""
    home, first = interrupted(tmp_path)
    session = str(first.summary["session"])
    with alone(home.session_dir(session), session), pytest.raises(CommandRefused, match="another process goes on"):
        interrupted(tmp_path)
    assert [path.name for path in home.sessions.iterdir()] == [session]


def test_a_disk_that_is_full_at_the_end_leaves_the_journal_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("rig.virtual_register.np.savez_compressed", full)
        patch.setattr("rig.deliver_virtual.write_files", full)
        with pytest.raises(ConfigError, match=r"\(the journal is kept\): No space left on device"):
            interrupted(tmp_path)
    home = Home(tmp_path / "home")
    (session,) = (path.name for path in home.sessions.iterdir())
    assert not (home.session_dir(session) / REGISTER_FILE).exists()
    done = resume(home, session)  # the layer under way counts whole: nobody knows what it got
    assert done.summary["status"] == "completed"


def test_what_a_killed_facility_has_left_is_cleared_away_and_what_a_living_one_needs_is_not(tmp_path: Path) -> None:
    held = "import sys, time; from pathlib import Path; from rig.scratch import scratch\n"
    held += "with scratch(Path(sys.argv[1])) as run: print(run.name, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", held, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = tmp_path / process.stdout.readline().strip()
        with scratch(tmp_path) as mine:
            assert left.is_dir()
        assert not mine.exists()
        process.kill()
        process.wait()
    assert left.is_dir()
    with scratch(tmp_path) as mine:
        assert list(tmp_path.iterdir()) == [mine]


def test_without_its_plan_it_is_closed_only_where_somebody_says_so(tmp_path: Path) -> None:
    home, first = interrupted(tmp_path)
    session = str(first.summary["session"])
    (tmp_path / "small.dcm").unlink()
    with pytest.raises(PlanError, match="is no longer"):
        close_partial(facility(), home, session, REASON)
    closed = close_partial(facility(), home, session, REASON, without_plan=True)
    assert not closed.known
    assert "is no longer" in closed.account
    with closing(open_journal(sqlite_url(home.session_dir(session) / JOURNAL_FILE), facility().id)) as journal:
        assert read.session(journal, session).status == "partial"


def test_it_is_closed_as_partial_and_nobody_goes_on_with_it(tmp_path: Path) -> None:
    home, first = interrupted(tmp_path)
    session = str(first.summary["session"])
    plan = (tmp_path / "small.dcm").rename(tmp_path / "moved.dcm")
    with pytest.raises(PlanError, match=r"is no longer .*small\.dcm .*--plan"):
        close_partial(facility(), home, session, REASON)
    closed = close_partial(facility(), home, session, REASON, plan)
    assert closed.known
    assert "spots done" in closed.account
    with closing(open_journal(sqlite_url(home.session_dir(session) / JOURNAL_FILE), facility().id)) as journal:
        entry = read.session(journal, session)
        assert verify(journal).broken == ""
        booked = sum(one.rows[:, COLUMN["ic1_ions"]].sum() for one in read.layers(journal, session) if len(one.rows))
    record = read_record((home.session_dir(session) / RECORD_FILE).read_bytes(), "record")
    assert record.header["status"] == "partial"
    assert sum(layer.meterset.sum() for beam in record.beams for layer in beam.layers) == pytest.approx(
        booked, rel=1e-6
    )
    truth = sum(ions.sum() for ions in given(home.session_dir(session)).values())
    assert (entry.status, entry.ic1_ions) == ("partial", pytest.approx(truth, rel=0.01))
    with pytest.raises(CommandRefused, match=r"is partial \(resume"):
        resume(home, session)
    with pytest.raises(CommandRefused, match=r"is partial \(close"):
        close_partial(facility(), home, session, REASON)


def other_limits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a rule has another limit."""
    folder.mkdir()
    text = (ROOT / "configs" / "interlocks.toml").read_text(encoding="utf-8")
    wider = text.replace("high = 2000.0", "high = 1900.0")
    assert wider != text
    (folder / "interlocks.toml").write_text(wider, encoding="utf-8")
    monkeypatch.setenv("IONCTL_CONFIG", str(folder))


def test_nobody_goes_on_under_other_interlock_limits_but_a_physicist_who_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, first = interrupted(tmp_path)
    session = str(first.summary["session"])
    path, log = home.session_dir(session) / JOURNAL_FILE, home.session_dir(session) / EVENTS_FILE
    before = entry_of(path).rules_hash
    assert before == load_rules(facility(), program().room_id, "carbon").hash
    other_limits(tmp_path / "site", monkeypatch)
    with pytest.raises(CommandRefused, match="the session was opened with") as refused:
        resume(home, session)
    assert refused.value.code == "recovery.limits"
    assert "--new-limits" in str(refused.value)
    assert entry_of(path).rules_hash == before
    Hasty.ions = 0.1 * program().total_ions
    part = resume_session(facility(), home, session, None, "limits were reviewed", lambda *_: True, new_limits=True)
    assert part.summary["status"] == "interrupted"
    now = load_rules(facility(), program().room_id, "carbon").hash
    assert (entry_of(path).rules_hash, entry_of(path).status) == (now, "interrupted")
    with closing(open_journal(sqlite_url(path), facility().id, read_only=True)) as journal:
        said = [row for row in read.rows_of(journal, "operators", session) if row["what"] == "new limits"]
    assert [(row["operator"], row["reason"]) for row in said] == [("physicist", "limits were reviewed")]
    (event,) = [e for e in map(json.loads, log.read_text().splitlines()) if e["kind"] == "session.new-limits"]
    assert (event["data"]["before"], event["data"]["rules_hash"], event["data"]["by"]) == (before, now, "physicist")
    shown = ionctl(home, "session", "show", session)
    assert "under other interlock rules by the physicist: limits were reviewed" in " ".join(shown.stdout.split())
    assert resume(home, session).summary["status"] == "completed"  # by the same rules as last


def test_a_session_is_closed_as_partial_under_other_interlock_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, first = interrupted(tmp_path)
    other_limits(tmp_path / "site", monkeypatch)
    assert close_partial(facility(), home, str(first.summary["session"]), "limits have changed").known


def entry_of(path: Path) -> read.SessionEntry:
    with closing(open_journal(sqlite_url(path), facility().id, read_only=True)) as journal:
        (entry,) = read.sessions(journal)
    return entry


def test_a_delivery_of_the_same_name_deletes_nothing_that_went_otherwise(tmp_path: Path) -> None:
    home, first = interrupted(tmp_path)
    folder = home.session_dir(str(first.summary["session"]))
    before = {name: (folder / name).read_bytes() for name in (EVENTS_FILE, JOURNAL_FILE)}
    request = DeliveryRequest(tmp_path / "small.dcm", facility(), program().room_id, home, qa=True)
    Hasty.ions = math.inf
    whole = deliver_plan(request, "virtual")
    assert (whole.summary["session"], whole.summary["status"]) == (first.summary["session"], "completed")
    kept = folder / "earlier" / "1"
    assert {name: (kept / name).read_bytes() for name in before} == before
    assert any(str(kept) in note for note in whole.notes)
    assert entry_of(kept / JOURNAL_FILE).status == "interrupted"
    again = deliver_plan(request, "virtual")  # the very same: nothing is lost where it takes the other's place
    assert not any(str(folder / "earlier") in note for note in again.notes)
    assert [path.name for path in (folder / "earlier").iterdir()] == ["1"]
