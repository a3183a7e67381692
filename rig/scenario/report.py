"""What a run of scenarios says: JSON, JUnit XML for a CI, and the table hazard, rule, scenario, result."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rig.scenario.result import SCHEMA, ScenarioResult

UNKNOWN = "not known"


class Trace(NamedTuple):
    """One line of the table of traceability."""

    hazard: str
    rule: str
    """Empty where the hazard is no rule's."""
    scenario: str
    verdict: str


def traceability(results: Sequence[ScenarioResult]) -> list[Trace]:
    """Hazard, rule, scenario, result; sorted by rule as the scenarios name them first."""
    found = [
        Trace(hazard, rule, result.id, result.verdict) for result in results for rule, hazard in result.hazards.items()
    ]
    order = {rule: k for k, rule in enumerate(dict.fromkeys(line.rule for line in found))}
    return sorted(found, key=lambda line: (line.rule == "", order[line.rule], line.hazard, line.scenario))


def commit() -> str:
    """The commit of the sources, with '+' where they have been changed since; 'not known' outside of a checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        found = git("rev-parse", "--short=12", "HEAD") if (root / ".git").exists() else ""
        return found + ("+" if found and git("status", "--porcelain", "-uno") else "") or UNKNOWN
    except OSError:
        return UNKNOWN


def counts(results: Sequence[ScenarioResult]) -> dict[str, int]:
    """By verdict."""
    return {word: sum(r.verdict == word for r in results) for word in ("passed", "failed", "skipped")}


def to_data(results: Sequence[ScenarioResult], target: str, wall_s: float) -> dict[str, Any]:
    """JSON-ready."""
    return {
        "schema": SCHEMA,
        "target": target,
        "commit": commit(),
        "wall_s": wall_s,
        "scenarios": len(results),
        **counts(results),
        "traceability": [line._asdict() for line in traceability(results)],
        "results": [result.to_data() for result in results],
    }


def junit_xml(results: Sequence[ScenarioResult], target: str, wall_s: float) -> bytes:
    """JUnit XML: one suite, one case a scenario with its wall time, s; rules and hazards are the case's properties."""
    found = counts(results)
    totals = {
        "tests": str(len(results)), "failures": str(found["failed"]), "errors": "0", "skipped": str(found["skipped"]),
        "time": f"{wall_s:.3f}",
    }  # fmt: skip
    root = ET.Element("testsuites", {"name": "ionctl scenario run", **totals})
    suite = ET.SubElement(root, "testsuite", {"name": f"scenarios on {target}", **totals})
    _properties(suite, {"target": target, "commit": commit()})
    for result in results:
        about = {"classname": f"scenarios.{_file(result)}", "name": result.id, "time": f"{result.wall_s or 0.0:.3f}"}
        case = ET.SubElement(suite, "testcase", about)
        facts = {"title": result.title, "seed": str(result.seed), "facility_hash": result.facility_hash,
                 "rules_hash": result.rules_hash}  # fmt: skip
        facts |= {f"hazard of {rule}" if rule else "hazard": hazard for rule, hazard in result.hazards.items()}
        _properties(case, facts)
        if result.verdict == "skipped":
            ET.SubElement(case, "skipped", {"message": result.reason})
        elif result.failures:
            failure = ET.SubElement(case, "failure", {"message": result.failures[0], "type": "scenario"})
            failure.text = "\n".join(result.failures)
        ET.SubElement(case, "system-out").text = in_words(result)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _properties(parent: ET.Element, facts: dict[str, str]) -> None:
    properties = ET.SubElement(parent, "properties")
    for name, value in facts.items():
        ET.SubElement(properties, "property", {"name": name, "value": value})


def _file(result: ScenarioResult) -> str:
    return Path(result.source).stem or "made"


def in_words(result: ScenarioResult) -> str:
    """What happened, in one line."""
    if result.verdict == "skipped":
        return f"skipped: {result.reason}"
    if result.t_cause_ns is None:
        return "not carried out"
    off = (
        "no beam after the cause" if result.off_us is None else f"beam off {result.off_us / 1e3:.3f} ms after the cause"
    )
    bound = "" if result.bound_us is None else f" (bound {result.bound_us / 1e3:.3f} ms)"
    first = result.first or "nothing tripped"
    final = result.final
    dose = "" if final is None else f", {final.spots - final.beyond} of {final.spots} spots in tolerance"
    return (
        f"cause at {result.t_cause_ns / 1e9:.6f} s, {first}, {off}{bound}, {result.surplus_ions:.0f} ions after the "
        f"cause, then {result.state}, at the end {result.end}{dose}"
    )
