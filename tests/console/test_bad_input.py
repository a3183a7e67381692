"""What is refused, of every command: the exit code of the table in docs/reference/cli.md, one line, nothing begun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.console.conftest import Ionctl
from tests.console.test_cli_reference import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
USAGE, CONFIGURATION, PLAN, UNAVAILABLE, FAILED = 2, 3, 4, 6, 7
CASES: dict[str, list[tuple[str, int, str]]] = {
    "demo": [
        ("--speed nan", USAGE, "0.01 to 100"),
        ("--speed inf", USAGE, "0.01 to 100"),
        ("--seed -1", USAGE, "seed of -1"),
        ("--facility nowhere", CONFIGURATION, "known: "),
    ],
    "deliver": [
        ("", USAGE, "PLAN"),
        ("PLAN --speed nan", USAGE, "0.01 to 100"),
        ("PLAN --speed -1", USAGE, "0.01 to 100"),
        ("PLAN --speed 2", USAGE, "virtual time has no speed"),
        ("PLAN --seed -1", USAGE, "seed of -1"),
        ("PLAN --seed 1.5", USAGE, "--seed"),
        ("PLAN --target moon", USAGE, "--target"),
        ("PLAN --fraction 0", USAGE, "--fraction"),
        ("PLAN --fraction 2", USAGE, "without a course"),
        ("PLAN --continues S-1", USAGE, "without a course"),
        ("PLAN --new-limits", USAGE, "--new-limits without --reason"),
        ("PLAN --reason A", USAGE, "--reason without --new-limits"),
        ("PLAN --new-limits --reason A", USAGE, "it is for --continues SESSION"),
        ("PLAN --continues S-1 --new-limits --reason A", USAGE, "without a course"),
        ("PLAN --facility nowhere", CONFIGURATION, "known: "),
        ("nosuch", PLAN, "nosuch"),
        ("PLAN", PLAN, "not a plan"),
    ],
    "plan make": [
        ("", USAGE, "--output"),
        ("--size-mm -5 --output a.dcm", USAGE, "give 2 to 300 mm"),
        ("--depth-mm nan --output a.dcm", USAGE, "give 1 to 400 mm"),
        ("--dose-gy 0 --output a.dcm", USAGE, "give 0.001"),
        ("--spacing-mm inf --output a.dcm", USAGE, "give 0.5 to 10 mm"),
        ("--layer-mm 0 --output a.dcm", USAGE, "give 0.5"),
        ("--species helium --output a.dcm", USAGE, "known: carbon"),
        ("--output away/a.dcm", USAGE, "no folder 'away'"),
        ("--size-mm 299 --output a.dcm", PLAN, "scan field"),
        ("--facility nowhere --output a", CONFIGURATION, "known: "),
    ],
    "plan show": [("", USAGE, "FILE"), ("nosuch", PLAN, "nosuch")],
    "plan check": [
        ("", USAGE, "FILE"),
        ("nosuch", PLAN, "nosuch"),
        ("PLAN --facility nowhere", CONFIGURATION, "known: "),
    ],
    "machine spill": [
        ("--facility nowhere", CONFIGURATION, "known: "),
        ("--species helium", USAGE, "known: carbon"),
        ("--particles 5", USAGE, "1000<=x<=1000000"),
        ("--drive 0", USAGE, "0.0<x<=1000.0"),
        ("--drive nan", USAGE, "0.0<x<=1000.0"),
        ("--ripple nan", USAGE, "0.0<x<=0.01"),
        ("--plot away/a.svg", USAGE, "no folder 'away'"),
    ],
    "machine separatrix": [
        ("--facility nowhere", CONFIGURATION, "known: "),
        ("--distance nan", USAGE, "-0.02<=x<=0.02"),
        ("--distance inf", USAGE, "-0.02<=x<=0.02"),
        ("--distance -0.03", USAGE, "-0.02<=x<=0.02"),
        ("--plot away/a.svg", USAGE, "no folder 'away'"),
    ],
    "machine calibrate": [
        ("--facility nowhere", CONFIGURATION, "known: "),
        ("--output table.txt", USAGE, "does not end in .csv"),
        ("--output away/a.csv", USAGE, "no folder 'away'"),
        ("--check --like pimms", USAGE, "nothing to take"),
        ("--like pimms --output a.csv", CONFIGURATION, "the optics of wuwei are not those of pimms"),
        ("--like wuwai --output a.csv", CONFIGURATION, "did you mean 'wuwei'"),
    ],
    "machine cycle": [
        ("--facility nowhere", CONFIGURATION, "known: "),
        ("--room 9", USAGE, "known: 1"),
        ("--species helium", USAGE, "known: carbon"),
        ("--energy nan", USAGE, "1.0<=x<=500.0"),
        ("--energy 20", CONFIGURATION, "allowed: "),
        ("--seed -1", USAGE, "seed of -1"),
        ("--plot away/a.svg", USAGE, "no folder 'away'"),
    ],
    "machine scan": [
        ("--facility nowhere", CONFIGURATION, "known: "),
        ("--room 9", USAGE, "known: 1"),
        ("--species helium", USAGE, "known: carbon"),
        ("--energy 20", CONFIGURATION, "allowed: "),
        ("--plot away/a.svg", USAGE, "no folder 'away'"),
    ],
    "machine monitors": [
        ("--facility nowhere", CONFIGURATION, "known: "),
        ("--room 9", USAGE, "known: 1"),
        ("--species helium", USAGE, "known: carbon"),
        ("--energy 20", CONFIGURATION, "allowed: "),
        ("--plot away/a.svg", USAGE, "no folder 'away'"),
    ],
    "machine range": [
        ("--facility nowhere", CONFIGURATION, "known: "),
        ("--species helium", USAGE, "known: carbon"),
        ("--reference away", USAGE, "away"),
        ("--reference .", CONFIGURATION, "range_c12_water.csv"),
        ("--plot away/a.svg", USAGE, "no folder 'away'"),
    ],
    "machine bragg": [
        ("--facility nowhere", CONFIGURATION, "known: "),
        ("--species helium", USAGE, "known: carbon"),
        ("--energy nan", USAGE, "10 to 450 MeV/u"),
        ("--energy 900", USAGE, "10 to 450 MeV/u"),
        ("--ripple-mm -1", USAGE, "0.0<=x<=10.0"),
        ("--energy 20 --before-mm 50", USAGE, "less water or more energy"),
        ("--plot a.gif", USAGE, "does not end in"),
    ],
    "monitors daily": [
        ("--facility nowhere", CONFIGURATION, "known: "),
        ("--room 9", USAGE, "known: 1"),
        ("--species helium", USAGE, "known: carbon"),
        ("--target moon", USAGE, "--target"),
        ("--seed -1", USAGE, "seed of -1"),
        ("--speed 2", USAGE, "virtual time has no speed"),
    ],
    "table show": [
        ("--facility nowhere", CONFIGURATION, "known: "),
        ("--species helium", USAGE, "known: carbon"),
        ("--room 9", USAGE, "known: 1, 2, 3, 4"),
        ("--species spill --room 1", USAGE, "a spill table is of the ring"),
    ],
    "table make": [
        ("--facility nowhere", CONFIGURATION, "known: "),
        ("--species helium", USAGE, "known: carbon"),
        ("--species spill", USAGE, "ionctl machine calibrate --facility wuwei"),
    ],
    "table approve": [
        ("", USAGE, "--by"),
        ("--by A", USAGE, "--reason"),
        ("--by A --reason B --on today", USAGE, "--on"),
        ("--by A --reason B", CONFIGURATION, "version 3 is on record with these rows"),
        ("--by A --reason B --species helium", USAGE, "known: carbon"),
        ("--by A --reason B --facility nowhere", CONFIGURATION, "known: "),
    ],
    "dose": [
        ("", USAGE, "SESSION|PLAN"),
        ("S-1", CONFIGURATION, "no session or plan 'S-1'"),
        ("../home", CONFIGURATION, "no session or plan"),
        ("PLAN", PLAN, "not a plan"),
        ("PLAN --facility nowhere", CONFIGURATION, "known: "),
        ("PLAN --step-mm 0", USAGE, "0.5<=x<=10.0"),
        ("PLAN --dose-pct nan", USAGE, "0.1<=x<=20.0"),
        ("PLAN --plot away/a.svg", USAGE, "no folder 'away'"),
    ],
    "up": [
        ("--room 9", USAGE, "known: 1, 2, 3, 4"),
        ("--species helium", USAGE, "known: carbon"),
        ("--speed nan", USAGE, "0.01 to 100"),
        ("--speed 0", USAGE, "0.01 to 100"),
        ("--speed 1e9", USAGE, "0.01 to 100"),
        ("--seed -1", USAGE, "seed of -1"),
        ("--seed 9223372036854775808", USAGE, "seed of"),
        ("--mqtt here", USAGE, "host:port"),
        ("--mqtt here:99999", USAGE, "host:port"),
        ("--mqtt :1883", USAGE, "host:port"),
        ("--mode fast", USAGE, "--mode"),
        ("--facility nowhere", CONFIGURATION, "known: "),
    ],
    "down": [("--facility nowhere", CONFIGURATION, "known: "), ("now", USAGE, "now")],
    "status": [("--facility nowhere", CONFIGURATION, "known: "), ("--nonsense", USAGE, "--nonsense")],
    "interlocks list": [("--room 9", USAGE, "known: 1"), ("--species helium", USAGE, "known: carbon")],
    "interlocks show": [
        ("", USAGE, "RULE"),
        ("nosuch", USAGE, "interlocks list"),
        ("doors", USAGE, "did you mean 'door'"),
    ],
    "interlocks reset": [
        ("--rule nosuch", USAGE, "no rule"),
        ("--role control", USAGE, "--role"),
        ("", UNAVAILABLE, "ionctl up"),
    ],
    "interlocks resolve": [
        ("", USAGE, "--words"),
        ("--words=", USAGE, "say why"),
        ("--words gone", UNAVAILABLE, "ionctl up"),
    ],
    "interlocks matrix": [
        ("--output x.docx", USAGE, ".html, .csv"),
        ("--output away/x.csv", USAGE, "no folder 'away'"),
    ],
    "interlocks bypass": [
        ("nosuch --reason r --for 1m", USAGE, "no rule"),
        ("gate --for 1m", USAGE, "--reason"),
        ("gate --reason= --for 1m", USAGE, "say why"),
        ("gate --reason r --for 10", USAGE, "90s, 10m or 1h"),
        ("gate --reason r --for 1m", UNAVAILABLE, "ionctl up"),
    ],
    "interlocks unbypass": [("nosuch", USAGE, "no rule"), ("gate", UNAVAILABLE, "ionctl up")],
    "interlocks mode": [("fast", USAGE, "clinical"), ("qa", UNAVAILABLE, "ionctl up")],
    "interlocks history": [
        ("nosuch", USAGE, "no trip"),
        ("--plot a.png", USAGE, "one trip"),
        ("T-1 --plot a.doc", USAGE, ".png, .svg, .pdf"),
        ("--facility nowhere", CONFIGURATION, "known: "),
    ],
    "interlocks test": [
        ("--rule nosuch", USAGE, "no rule"),
        ("--room 9", USAGE, "known: 1"),
        ("--seed -1", USAGE, "seed of -1"),
        ("--junit away/x.xml", USAGE, "no folder 'away'"),
        ("--state flying", USAGE, "--state"),
    ],
    "interlocks verify": [
        ("--scene nosuch", USAGE, "there are "),
        ("--replay nosuch", USAGE, "nosuch"),
        ("--replay PLAN", CONFIGURATION, "plan"),
        ("--counterexample away/c.json", USAGE, "no folder 'away'"),
    ],
    "interlocks prove": [("nosuch", USAGE, "no proof test 'nosuch'"), ("", UNAVAILABLE, "ionctl up")],
    "scenario list": [("nosuch", USAGE, "no scenario 'nosuch'")],
    "scenario run": [
        ("nosuch", USAGE, "scenario list"),
        ("PLAN", USAGE, "no scenario 'not a plan'"),
        ("--jobs 0", USAGE, "--jobs"),
        ("--target moon", USAGE, "--target"),
    ],
    "fault list": [("now", USAGE, "now")],
    "campaign": [
        ("--runs 0", USAGE, "--runs"),
        ("--faults nosuch", USAGE, "rule/..., fault/..., operator/..."),
        ("--plan nosuch", PLAN, "nosuch"),
        ("--scheduler nosuch://here", USAGE, "--scheduler"),
    ],
    "replay": [("", USAGE, "SEED"), ("x", USAGE, "SEED")],
    "resume": [
        ("", USAGE, "SESSION"),
        ("nobody", USAGE, "--reason"),
        ("nobody --reason=", USAGE, "say why"),
        ("nobody --reason x", USAGE, "no session 'nobody'"),
    ],
    "session list": [("now", USAGE, "now")],
    "session show": [("", USAGE, "SESSION"), ("nobody", USAGE, "ionctl session list")],
    "session export": [("nobody", USAGE, "--output"), ("nobody --output a.xml", USAGE, ".json, .dcm")],
    "session close": [
        ("nobody", USAGE, "--reason"),
        ("nobody --reason=", USAGE, "say why"),
        ("nobody --reason x", USAGE, "no session 'nobody'"),
    ],
    "journal verify": [("nobody", USAGE, "no session 'nobody'"), ("--journal nosuch", FAILED, "no journal")],
    "record check": [
        ("", USAGE, "FILE"),
        ("nosuch", PLAN, "nosuch"),
        ("nosuch --plan PLAN", PLAN, "nosuch"),
        ("PLAN --plan PLAN", PLAN, "no DICOM file"),
    ],
    "dicom receive": [("--port 70000", USAGE, "--port"), ("now", USAGE, "now")],
    "dicom send": [
        ("", USAGE, "FILE"),
        ("PLAN --to nowhere", USAGE, "known: records"),
        ("PLAN", PLAN, "no DICOM file"),
        ("nosuch", PLAN, "nosuch"),
    ],
    "room search": [("now", USAGE, "now"), ("", UNAVAILABLE, "ionctl up")],
    "room door": [("ajar", USAGE, "open"), ("open", UNAVAILABLE, "ionctl up")],
    "room estop": [("reset", USAGE, "release"), ("release", UNAVAILABLE, "ionctl up")],
    "interlocks generate": [("--output away/x.py", USAGE, "no folder 'away'"), ("--room 9", USAGE, "known: 1")],
    "pvs": [("--json --csv", USAGE, "not both"), ("--server moon", USAGE, "--server")],
    "facility list": [("now", USAGE, "now")],
    "facility copy": [
        ("wuwei here", USAGE, "--to"),
        ("wuwai here --to site", USAGE, "did you mean 'wuwei'"),
        ("wuwei Here --to site", CONFIGURATION, "facility.id = 'Here'"),
    ],
    "facility show": [("", USAGE, "NAME"), ("wuwai", CONFIGURATION, "did you mean 'wuwei'")],
}


def test_every_command_is_given_bad_input() -> None:
    assert set(CASES) == set(COMMANDS)


@pytest.mark.parametrize(
    ("command", "rest", "code", "words"),
    [(command, *case) for command, cases in CASES.items() for case in cases],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_refused_in_one_line(
    ionctl: Ionctl, command: str, rest: str, code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.txt").write_text("not a plan")
    outcome = ionctl(*command.split(), *rest.replace("PLAN", "plan.txt").split())
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert words in outcome.err.replace("plan.txt", "not a plan")
    assert outcome.err.startswith("ionctl: ")
    assert outcome.err.count("\n") == 1
    assert not list((tmp_path / "home").glob("run/*/*")), "nothing was begun"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "nonsense"), (["--config-dir", "away", "pvs"], "away"), (["--log-level", "loud", "pvs"], "loud"),
        (["interlocks", "nonsense"], "nonsense"),
    ],
)  # fmt: skip
def test_bad_options_before_the_command(ionctl: Ionctl, arguments: list[str], words: str) -> None:
    outcome = ionctl(*arguments)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert words in outcome.err


def test_a_bad_broker_of_the_environment_is_refused_before_anything_starts(
    ionctl: Ionctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IONCTL_MQTT", "here")
    outcome = ionctl("up")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "$IONCTL_MQTT" in outcome.err
    assert not list((tmp_path / "home").glob("run/*/*"))


def test_a_reader_that_leaves_changes_neither_the_end_nor_the_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "console.main", "--home", str(tmp_path), "status"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (UNAVAILABLE, b"")
