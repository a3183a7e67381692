"""Real processes that are killed while a session is delivered, and the session gone on with as an operator would.

A facility on loopback, an `ionctl deliver`, and `kill -9` for one of its processes, the console, or all of them. Then
what a person does: `ionctl down` and `up` where a process is gone, `interlocks resolve` where the field was terminated,
`ionctl resume`, killed again or not, until the session is completed. Truth of all lives of the plant together judges
(`rig.session_check`). The facility stays up for the next session, unless something of it has been killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from control.plan.dicom_writer import write_dicom_plan
from control.plan.load import load_plan
from control.plan.maker import make_small_plan
from control.plan.program import MachineProgram, compile_program
from facility.config import Facility
from facility.errors import ChannelError, ExitCode, IonctlError
from ioc_sim.register_store import MemoryStore
from journal import read
from journal.store import open_journal
from rig.children import gone
from rig.dead_truth import dead_truth, forget, summed
from rig.field_file import FieldFile
from rig.home import Home
from rig.processes.plant import REGISTER_FILE
from rig.run_dir import NAMES, is_alive
from rig.session_check import objections
from rig.supervisor import RunOptions, Supervisor
from rig.truth_file import SpotIons, read_now
from rig.virtual_deaths import Victim
from rig.wall_clock import monotonic_s, sleep_s

ROOT = Path(__file__).resolve().parents[1]
SPECIES = "carbon"
SPEED = 2.0
UP_TRIES = 3
"""A machine that is busy may keep a plant from its pace."""
DELIVER_TRIES = 3
"""A delivery that was refused before it had a session is asked for again."""
MOST_RESUMES = 10
CONSOLE_S = 120.0
"""A console that has not ended by then, wall time, hangs."""
END_S = 10.0
"""A process that has been killed is gone by then, wall time."""
POLL_S = 0.001
PAUSE_S = 1.0
"""Between two resumes of which the first was refused."""
EXPECTED = {0, 5, 6, -signal.SIGKILL}
"""Exit codes of a console whose facility dies."""
REASON = "a process was killed"


@dataclass(frozen=True)
class Death:
    """Who is killed, and when."""

    victim: Victim
    share: float | None
    """Of the ions that are still to be given, by truth; None: from the start of the console."""
    after_s: float
    """After that, wall time."""


@dataclass
class Verdict:
    """What became of one session."""

    problem: str = ""
    kills: list[str] = field(default_factory=list)
    """Who was killed with a console under way, and the state of things."""
    resumes: int = 0
    said: list[str] = field(default_factory=list)
    """What consoles ended with."""


class KilledFacility:
    """A facility whose processes are killed.

    Args:
        facility: its first room is used.
        home: of its own; nobody else's facility may run there.
        seed: of its first life; each one has another.
    """

    def __init__(self, facility: Facility, home: Home, seed: int, speed: float = SPEED) -> None:
        self.facility, self.home = facility, home
        self.plan = home.plans / "killed.dcm"
        write_dicom_plan(make_small_plan(facility, SPECIES), self.plan)
        self.room = next(iter(facility.rooms))
        self.program: MachineProgram = compile_program(load_plan(self.plan), facility, self.room, qa=True)
        self._supervisor = Supervisor(home, facility.id)
        self._folder = self._supervisor.folder
        self._seed, self._speed = seed, speed
        self._banked: SpotIons = {}
        self.lives = 0

    def close(self) -> None:
        """Stop what runs."""
        self._supervisor.down()

    # --- a session --------------------------------------------------------------------------------------------
    def run(self, deaths: Sequence[Death]) -> Verdict:
        """Deliver a plan and go on with it until it is complete; each console meets the next of the deaths."""
        verdict, left = Verdict(), list(deaths)
        self._stand()
        before, known = self.truth(), self._sessions().keys()
        arguments = ["deliver", str(self.plan), "--qa", "--target", "ca"]
        try:
            for _ in range(DELIVER_TRIES):
                self._resolve(resume=False)  # of the session before
                self._console(arguments, left, verdict, before)
                new = self._sessions().keys() - known
                if new or verdict.kills:
                    break
            if not new:
                given = sum(float(ions.sum()) for ions in self._gained(before).values())
                verdict.problem = f"{given:.0f} ions of a session that the journal does not know" if given else ""
                return verdict
            (session,) = new
            self._finish(session, left, verdict, before)
        except ChannelError as problem:
            verdict.problem = verdict.problem or str(problem)
        return verdict

    def _finish(self, session: str, left: list[Death], verdict: Verdict, before: SpotIons) -> None:
        resume = ["resume", session, "--yes", "--reason", REASON]
        while self._sessions()[session] != "completed":
            if verdict.resumes == MOST_RESUMES:
                verdict.problem = (
                    f"{session} is {self._sessions()[session]} after {MOST_RESUMES} resumes: {verdict.said}"
                )
                return
            verdict.resumes += 1
            self._stand()
            self._resolve(resume=True)
            if self._console(resume, left, verdict, before) not in (0, -signal.SIGKILL):
                sleep_s(PAUSE_S)
        self._stand()
        register = MemoryStore(np.fromfile(self._folder / REGISTER_FILE, dtype=np.int64))
        wrong = objections(self.facility, self.program, self._url, session, self._gained(before), register)
        verdict.problem = "; ".join(wrong)

    # --- consoles and kills -----------------------------------------------------------------------------------
    def _console(self, arguments: list[str], left: list[Death], verdict: Verdict, before: SpotIons) -> int:
        """Run a console command to its end; the next death comes over it. Its exit code."""
        child, begun_s = self._ionctl([*arguments, "--json"]), monotonic_s()
        try:
            if left and self._await(left[0], child, before):
                self._kill(left.pop(0), child, verdict)
            out, err = child.communicate(timeout=CONSOLE_S)
        except subprocess.TimeoutExpired:
            raise ChannelError("kills.hangs", f"it did not end within {CONSOLE_S:g} s", " ".join(arguments)) from None
        finally:
            if child.poll() is None:
                child.kill()
                child.communicate()
        verdict.said.append(
            f"{arguments[0]} {child.returncode} in {monotonic_s() - begun_s:.0f} s: {(err or out).strip()[-300:]}"
        )
        if child.returncode not in EXPECTED or "Traceback" in err:
            raise ChannelError("kills.console", f"exit code {child.returncode}: {err[-2000:]}", " ".join(arguments))
        return child.returncode

    def _ionctl(self, arguments: list[str]) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "console.main", "--home", str(self.home.root), *arguments]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def _await(self, death: Death, child: subprocess.Popen[str], before: SpotIons) -> bool:
        """Until the moment of a death has come; False if the console ended first."""
        given = sum(float(ions.sum()) for ions in self._gained(before).values())
        start = read_now(self._folder).total_ions
        wanted = None if death.share is None else death.share * max(self.program.total_ions - given, 0.0)
        end_s = monotonic_s() + CONSOLE_S
        while wanted is not None and read_now(self._folder).total_ions - start <= wanted:
            if child.poll() is not None or monotonic_s() > end_s:
                return False
            sleep_s(POLL_S)
        end_s = monotonic_s() + death.after_s
        while (left_s := end_s - monotonic_s()) > 0.0:
            sleep_s(min(left_s, 0.02))
            if child.poll() is not None:
                return False
        return True

    def _kill(self, death: Death, child: subprocess.Popen[str], verdict: Verdict) -> None:
        run = self._supervisor.status()[0]
        pids = {"console": child.pid} | {
            name: int(run.processes[name]["pid"]) for name in NAMES if run is not None and is_alive(self._folder, name)
        }
        names = list(pids) if death.victim is Victim.ALL else [death.victim.value]
        for name in names:
            if name in pids:
                os.kill(pids[name], signal.SIGKILL)
        self._await_ends([name for name in names if name in NAMES])
        verdict.kills.append(f"{death.victim.value} at {read_now(self._folder).t_ns * 1e-9:.6f} s")

    def _await_ends(self, names: Sequence[str]) -> None:
        """Until none of them holds its lock: a busy kernel takes its time, and `_stand` must not find them alive."""
        for name in names:
            if not gone(self._folder, name, END_S):
                raise ChannelError("kills.alive", f"it lives {END_S:g} s after kill -9", name)

    # --- what an operator does --------------------------------------------------------------------------------
    def _stand(self) -> None:
        """All three processes run; if one is gone, all are stopped and started."""
        try:
            if self._supervisor.running() is not None:
                return
        except ChannelError:
            pass  # only some of them
        for attempt in range(UP_TRIES):
            self._supervisor.down()
            self._banked = summed(self._banked, dead_truth(self._folder))
            forget(self._folder)
            self.lives += 1
            options = RunOptions(self.room, SPECIES, seed=self._seed + self.lives, speed=self._speed)
            try:
                self._supervisor.up(self.facility, options)
                return
            except IonctlError:
                if attempt == UP_TRIES - 1:
                    raise

    def _resolve(self, *, resume: bool) -> None:
        """Account for a termination, so that the field goes on or is closed."""
        record = FieldFile(self._folder).load()
        if record is not None and record["unresolved"]:
            self._physicist("resolve", "--words", REASON, *["--resume"] * resume)
        self._physicist("reset")

    def _physicist(self, verb: str, *words: str) -> None:
        """What only a physicist may do, and `deliver` and `resume` therefore do not."""
        child = self._ionctl(["interlocks", verb, *words, "--json"])
        _, err = child.communicate(timeout=CONSOLE_S)
        if child.returncode and not (verb == "reset" and child.returncode == ExitCode.INTERRUPTED):
            raise ChannelError("kills.physicist", f"exit code {child.returncode}: {err[-1000:]}", verb)

    # --- what is known ----------------------------------------------------------------------------------------
    @property
    def _url(self) -> str:
        return self.home.journal_url(self.facility.id, {})

    def _sessions(self) -> dict[str, str]:
        """Status by session of the journal."""
        with closing(open_journal(self._url, self.facility.id, read_only=True)) as journal:
            return {entry.session: entry.status for entry in read.sessions(journal)}

    def truth(self) -> SpotIons:
        """Ions by spot of all lives of the plant so far."""
        return summed(self._banked, dead_truth(self._folder))

    def _gained(self, before: SpotIons) -> SpotIons:
        return summed(self.truth(), before, -1.0)
