"""Reports of scenarios, the command line, and the pytest plugin."""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from console.main import run
from console.scenario_page import _number, page
from facility.errors import ConfigError
from ioc_sim.faults import Fault, FaultKind, fault_from_line, fault_line
from rig.scenario.loader import load_all
from rig.scenario.model import Target
from rig.scenario.pytest_plugin import ScenarioFile, ScenarioItem
from rig.scenario.report import junit_xml, to_data
from rig.scenario.run import run_on

FILE = """
schema = "ionctl.scenarios/1"
[defaults]
not_on = { hil = "no device" }

[[scenario]]
id = "chamber-dies"
title = "Chamber 2 <dies>"
rules = ["chamber-disagreement"]
targets = ["virtual"]
not_on = { ca = "a tick", hil = "no device" }
at = { spot = 12 }
acts = [{ fault = "ic2.gain/dead" }]
expect = { first = "chamber-disagreement", also = ["chamber-drift"], off_within_ms = 0.1 }

[[scenario]]
id = "control-dies"
title = "Control dies"
rules = ["control-heartbeat"]
targets = ["ca"]
not_on = { virtual = "there are no processes", hil = "no device" }
at = { beam_ms = 5.0 }
acts = [{ fault = "process/control/crash" }]
expect = { first = "control-heartbeat" }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_the_command_writes_every_report_and_says_why_it_skips(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html, junit = tmp_path / "s.html", tmp_path / "s.xml"
    code = run(["scenario", "run", str(file), "--jobs", "1", "--html", str(html), "--junit", str(junit), "--json"])
    assert code == 7  # it was expected off sooner than it can be
    data = json.loads(capsys.readouterr().out)
    assert (data["passed"], data["failed"], data["skipped"]) == (0, 1, 1)
    failed, skipped = data["results"]
    assert "beam off" in failed["failures"][0]
    assert skipped["reason"] == "there are no processes"
    assert {line["rule"] for line in data["traceability"]} == {"chamber-disagreement", "control-heartbeat"}
    suite = ET.parse(junit).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "1")
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert cases["control-dies"].find("skipped").get("message") == "there are no processes"  # type: ignore[union-attr]
    text = html.read_text(encoding="utf-8")
    assert "Chamber 2 &lt;dies&gt;" in text
    assert "Beam by truth" in text
    assert "Dose of the spot" in text
    assert "Chambers disagree (chamber-disagreement)" in text
    assert failed["facility_hash"][:16] in text
    assert '<a href="#chamber-dies">chamber-dies</a></p><h2>' in text  # where to look first
    assert re.search(r'<details[^>]*><summary>[^\n]*?</summary><div class="at" id="chamber-dies">', text)
    assert re.search(r"┆ beam off [\d,]+\.\d</tspan>", text)
    assert data["commit"] in text
    assert not any(word in text for word in ("http://", "https://", "src=", "<script", "@import", "url("))


def test_a_ci_is_told_how_long_each_scenario_took_and_nobody_else_is(file: Path) -> None:
    times = itertools.count(100.0, 0.25)
    loaded = load_all([str(file)])
    results = list(run_on(Target.VIRTUAL, loaded, clock=lambda: next(times)))
    suite = ET.fromstring(junit_xml(results, "virtual", 1.0))[0]
    assert [case.get("time") for case in suite.iter("testcase")] == ["0.250", "0.250"]
    again = list(run_on(Target.VIRTUAL, loaded, clock=lambda: 5.0 * next(times)))
    assert again == results
    assert to_data(again, "virtual", 1.0) == to_data(results, "virtual", 1.0)
    assert page(again, "virtual", 1.0) == page(results, "virtual", 1.0)


@pytest.mark.parametrize(
    ("value", "words"),
    [(267.5e6, "267.5 M"), (566_756.0, "566.8 k"), (4086.0, "4086"), (-6.2451, "-6.245"), (-2e9, "-2 G"), (0.0, "0")],
)
def test_an_axis_has_short_numbers(value: float, words: str) -> None:
    assert _number(value) == words


def test_what_nobody_began_is_not_told_as_spots_that_are_wrong(file: Path) -> None:
    (result, _) = run_on(Target.VIRTUAL, load_all([str(file)]))
    assert result.final is not None
    never = replace(result, final=replace(result.final, beyond=216, total_error_pct=-100.0, worst_pct=100.0))
    assert "nothing was given" in page([never], "virtual", 1.0)
    assert "216 spots in tolerance" in page([result], "virtual", 1.0)


def test_the_workers_take_the_time_of_each_scenario(file: Path) -> None:
    (failed, skipped) = run_on(Target.VIRTUAL, load_all([str(file)]), jobs=2)
    assert failed.wall_s is not None
    assert failed.wall_s > (skipped.wall_s or 0.0) > 0.0


def test_each_rule_has_a_scenario_and_each_target_a_reason() -> None:
    found = [one.scenario for one in load_all()]
    assert len(found) >= 60
    assert len({one.id for one in found}) == len(found)
    from facility.config import load_facility
    from interlocks.rules import load_rules

    rules = load_rules(load_facility("wuwei"), "1", "carbon").rules
    missing = {rule.id for rule in rules} - {rule for one in found for rule in one.rules}
    assert missing == set()


@pytest.mark.parametrize("node", [ScenarioFile, ScenarioItem])
def test_pytest_says_what_is_wrong_with_a_file_or_its_facility_without_a_traceback(node: Any) -> None:
    problem = ConfigError("scenario.facility", "no facility 'hree'", "a.toml, key facility", "here")
    itself = SimpleNamespace(loaded=SimpleNamespace(scenario=SimpleNamespace(title="Here")))
    assert node.repr_failure(itself, SimpleNamespace(value=problem)).removeprefix("Here\n") == str(problem)


def test_a_list_without_devices_says_nothing_about_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fault", "list", "--family", "link"]) == 0
    assert "Each device" not in capsys.readouterr().out
    assert run(["fault", "list", "--family", "link", "--family", "device"]) == 0
    assert "Each device fails in 12 ways" in capsys.readouterr().out


def test_a_fault_goes_to_another_process_as_a_line() -> None:
    sent = Fault("ic2.gain", FaultKind.SCALE, 0.9, at_ns=5, until_ns=25)
    assert fault_from_line(fault_line(sent), 100) == Fault("ic2.gain", FaultKind.SCALE, 0.9, 100, 120)
