"""What a run of trials says: a summary with worst and median, JSON, and JUnit XML for a CI."""

from __future__ import annotations

import statistics
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from facility.states import Action
from interlocks.explain import by_dump, dump_us
from rig.trials.bench import Bench
from rig.trials.causes import has_number
from rig.trials.judge import ACTED_DEGRADED_US, ACTED_US, DECISION_H_US
from rig.trials.result import SCHEMA, TrialResult

FAST_ACTUATORS = frozenset({"quadrupole stuck", "chopper stuck"})


class Figure(NamedTuple):
    """One quantity over many trials."""

    name: str
    unit: str
    trials: int
    median: float
    worst: float
    worst_in: str
    """Name of the trial."""
    bound: float | None
    """The worst may be so much at most; None where nothing is promised for all trials alike."""

    @property
    def holds(self) -> bool:
        """The worst keeps the bound, or there is none."""
        return self.bound is None or self.worst <= self.bound

    @property
    def verdict(self) -> str:
        """For people; empty where there is no bound."""
        return "" if self.bound is None else "passed" if self.holds else "FAILED"

    def to_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return self._asdict() | {"verdict": self.verdict}


def figures(bench: Bench, results: Sequence[TrialResult]) -> list[Figure]:
    """Worst and median of what is promised; none for quantities that no trial has.

    What is left when the fast devices have not taken the beam is the ring dump: it stands in a line of its own.
    """
    whole = [r for r in results if not r.variant]
    takes = [r for r in whole if Action[r.action] >= Action.PAUSE]
    dump = [r for r in takes if by_dump(bench.rules.rule(r.rule))]
    fast = [r for r in takes if not by_dump(bench.rules.rule(r.rule))]
    failed = [
        r for r in results
        if r.variant in FAST_ACTUATORS and Action[r.action] >= Action.PAUSE and not by_dump(bench.rules.rule(r.rule))
    ]  # fmt: skip
    off = bench.facility.beam_off
    degraded_us = ACTED_DEGRADED_US if off.fast_quad.present and off.chopper.present else None
    scans_us = 2000.0 * bench.rules.link.scan_ms
    rows = (
        ("condition to decision, tier H", "us", DECISION_H_US, ((r, r.decided_us) for r in whole if r.tier == "H")),
        ("condition to decision, tier P", "us", scans_us, ((r, r.decided_us) for r in whole if r.tier == "P")),
        ("t_off - t_decision, all actuators", "us", ACTED_US, ((r, _positive(r.acted_us)) for r in fast)),
        ("t_off - t_decision, one of quadrupole or chopper failed", "us", degraded_us,
         ((r, _positive(r.acted_us)) for r in failed)),
        ("t_off - t_decision, ring dump after failed actuators", "us", dump_us(bench.facility) + DECISION_H_US,
         ((r, _positive(r.acted_us)) for r in dump)),
        ("cause to beam off over its bound", "%", 100.0, ((r, _share(r.reacted_us, r.bound_us)) for r in whole)),
        ("surplus over its bound", "%", 100.0, ((r, _share(r.surplus_ions, r.surplus_bound_ions)) for r in whole)),
        ("surplus", "% of spot", None, ((r, r.surplus_pct) for r in whole if r.t_off_ns is not None)),
        ("surplus at the peak", "mGy", None, ((r, r.surplus_mgy) for r in whole if r.t_off_ns is not None)),
    )  # fmt: skip
    return [found for name, unit, most, pairs in rows if (found := _figure(name, unit, most, pairs)) is not None]


def _figure(
    name: str, unit: str, most: float | None, pairs: Iterable[tuple[TrialResult, float | None]]
) -> Figure | None:
    known = [(value, result.name) for result, value in pairs if value is not None]
    if not known:
        return None
    worst, where = max(known)
    return Figure(name, unit, len(known), statistics.median(value for value, _ in known), worst, where, most)


def _positive(value: float | None) -> float | None:
    """Beam that another rule has taken before says nothing about this one's decision."""
    return value if value is not None and value > 0.0 else None


def _share(value: float | None, limit: float) -> float | None:
    return None if value is None or limit <= 0.0 else 100.0 * value / limit


def to_data(
    bench: Bench, results: Sequence[TrialResult], wall_s: float, not_near: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """JSON-ready; `not_near`: why nothing was tried near the limit of a rule, where it was asked for."""
    return {
        "schema": SCHEMA,
        "facility": bench.facility.id,
        "facility_hash": bench.facility.hash,
        "rules_hash": bench.rules.hash,
        "room": bench.room,
        "species": bench.species,
        "seed": bench.seed,
        "wall_s": wall_s,
        "trials": len(results),
        "failed": sum(not result.passed for result in results),
        "figures": [figure.to_data() for figure in figures(bench, results)],
        "not_near": dict(not_near or {}),
        "results": [result.to_data() for result in results],
    }


def junit_xml(
    bench: Bench,
    results: Sequence[TrialResult],
    wall_s: float,
    not_near: Mapping[str, str] | None = None,
    took_s: Sequence[float] = (),
) -> bytes:
    """JUnit XML: one suite, one case a trial and one for each line of the summary that has a bound.

    `took_s`: wall time of each trial, s, with the way to its state; 0 where it is not told.

    A rule that has a number as its limit and was not tried near it is a case that was skipped, with the reason.
    """
    skipped = {rule: why for rule, why in (not_near or {}).items() if has_number(bench.rules.rule(rule))}
    summary = [figure for figure in figures(bench, results) if figure.bound is not None]
    failed = sum(not result.passed for result in results) + sum(not figure.holds for figure in summary)
    counts = {
        "tests": str(len(results) + len(summary) + len(skipped)), "failures": str(failed), "errors": "0",
        "skipped": str(len(skipped)),
        "time": f"{wall_s:.3f}",
    }  # fmt: skip
    root = ET.Element("testsuites", {"name": "ionctl interlocks test", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": f"interlocks of {bench.facility.id}", **counts})
    about = {
        "facility": bench.facility.id, "facility_hash": bench.facility.hash, "rules_hash": bench.rules.hash,
        "room": bench.room, "species": bench.species, "seed": str(bench.seed),
    }  # fmt: skip
    properties = ET.SubElement(suite, "properties")
    for name, value in about.items():
        ET.SubElement(properties, "property", {"name": name, "value": value})
    for result, seconds in zip(results, took_s or [0.0] * len(results), strict=True):
        _case(suite, result, seconds)
    for rule, why in skipped.items():
        _skipped_case(suite, rule, why)
    for figure in summary:
        _summary_case(suite, figure)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _case(suite: ET.Element, result: TrialResult, seconds: float) -> None:
    where = result.state if not result.variant else f"{result.state}, {result.variant}"
    about = {"classname": f"interlocks.{result.rule}", "name": f"{result.rule} in {where}", "time": f"{seconds:.3f}"}
    case = ET.SubElement(suite, "testcase", about)
    if not result.passed:
        failure = ET.SubElement(case, "failure", {"message": result.failures[0], "type": "trial"})
        failure.text = "\n".join(result.failures)
    out = ET.SubElement(case, "system-out")
    out.text = times_in_words(result)


def _skipped_case(suite: ET.Element, rule: str, why: str) -> None:
    about = {"classname": f"interlocks.{rule}", "name": f"{rule} near its limit", "time": "0"}
    ET.SubElement(ET.SubElement(suite, "testcase", about), "skipped", {"message": why})


def _summary_case(suite: ET.Element, figure: Figure) -> None:
    case = ET.SubElement(suite, "testcase", {"classname": "interlocks.summary", "name": figure.name, "time": "0"})
    words = f"worst {figure.worst:.4g} {figure.unit} in {figure.worst_in}, at most {figure.bound:.4g} is allowed"
    if not figure.holds:
        ET.SubElement(case, "failure", {"message": words, "type": "summary"})
    out = ET.SubElement(case, "system-out")
    out.text = f"{words}; median {figure.median:.4g} of {figure.trials} trials"


def times_in_words(result: TrialResult) -> str:
    """The four times and the surplus, in one line; near a limit when it tripped, or until when it did not."""

    def after_ms(t_ns: int | None) -> str:
        return "-" if t_ns is None else f"{(t_ns - result.t_cause_ns) / 1e6:.3f} ms"

    if result.near_share is not None:
        begin = f"{result.variant} from {result.t_cause_ns / 1e9:.9f} s on: "
        if not result.tripped:
            return f"{begin}no trip, looked at until +{after_ms(result.t_looked_ns)}"
        off = "no beam after it" if result.t_off_ns is None else f"beam off +{after_ms(result.t_off_ns)}"
        return f"{begin}decision +{after_ms(result.t_decision_ns)}, {off}"
    return (
        f"cause at {result.t_cause_ns / 1e9:.9f} s, condition +{after_ms(result.t_condition_ns)}, decision "
        f"+{after_ms(result.t_decision_ns)}, beam off +{after_ms(result.t_off_ns)} (bound "
        f"{result.bound_us / 1000.0:.3f} ms), surplus {result.surplus_ions:.0f} ions = {result.surplus_pct:.1f} % "
        f"of spot = {result.surplus_mgy:.2f} mGy (bound {result.surplus_bound_mgy:.2f} mGy)"
    )
