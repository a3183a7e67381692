"""Each kind of fault happens in a scenario or in the trial of a rule, or it is said here where else it happens.

A kind is an entry of `ionctl fault list`; of devices, each point in some way, and each way at some point.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.report import ROOT
from facility.config import load_facility
from interlocks.rules import load_rules
from ioc_sim.faults import FaultKind
from rig.scenario.faults import CATALOGUE, MODES, Family, plant_faults
from rig.scenario.loader import load_all
from rig.trials.causes import Act, load_trials

ELSEWHERE = {
    "process/control/hang": ("tests/rig/test_processes.py", "the real process is stopped with beam on, and woken"),
    "process/plant/hang": ("benchmarks/soak_link.py", "real attacks: the plant is stopped with beam on, and woken"),
    "rogue/signed-writes": (
        "rig/rogue_trial.py",
        "a client of each trial signs commands in every role",
    ),
    "rogue/deaf": ("configs/scenarios/processes.toml", "ca-deaf-client is the same client twenty times over"),
}
"""By fault: the file that lets it happen, and how. All four need real processes."""
TRIED_AS = {
    Act.RELAY_PAUSE: "link/relays/pause", Act.RELAY_ABORT: "link/relays/abort", Act.RELAY_HOLD: "link/relays/hold",
    Act.CUT_TO_RACK: "link/to-rack/drop", Act.CUT_FROM_RACK: "link/from-rack/drop",
    Act.CONSOLE_SILENT: "operator/console-silent", Act.COPY_FLIPPED: "process/safety/memory",
    Act.CONTROL_SILENT: "process/control/silent", Act.PLAN_ALTERED: "process/control/memory",
    Act.READBACK_WRONG: "process/control/readback", Act.AUTHORITY_LOST: "process/control/authority",
    Act.PLANT_LATE: "process/plant/slow",
}  # fmt: skip


def in_scenarios() -> set[str]:
    """Faults of the scenarios that come with the project."""
    found = [one.scenario for one in load_all()]
    return {act.fault for one in found for act in (*one.before, *one.acts, *one.then) if act.fault is not None}


def in_trials() -> Iterator[tuple[str, FaultKind] | str]:
    """Point and kind, or name, of what the trials of the rules let fail."""
    facility = load_facility("wuwei")
    for trial in load_trials(load_rules(facility, "1", "carbon")).values():
        yield from ((fault.point, FaultKind[fault.kind]) for fault in trial.faults)
        if trial.act is not None and Act(trial.act) in TRIED_AS:
            yield TRIED_AS[Act(trial.act)]


def test_each_kind_of_fault_happens_somewhere() -> None:
    scenarios, trials = in_scenarios(), list(in_trials())
    pairs = {(fault.device, fault.kind) for name in scenarios if CATALOGUE[name].parts
             for fault in plant_faults(CATALOGUE[name], None, 0)}  # fmt: skip
    pairs |= {one for one in trials if not isinstance(one, str)}
    named = scenarios | {one for one in trials if isinstance(one, str)} | set(ELSEWHERE)
    devices = {name for name, entry in CATALOGUE.items() if entry.family is Family.DEVICE}
    points = {name.rpartition("/")[0] for name in devices}
    assert points - {point for point, _ in pairs} == set()
    assert {way for way, mode in MODES.items() if mode.kind not in {kind for _, kind in pairs}} == set()
    assert set(CATALOGUE) - devices - named == set()


def test_what_happens_elsewhere_has_a_file_and_no_scenario() -> None:
    scenarios = in_scenarios()
    for name, (file, _) in ELSEWHERE.items():
        assert (ROOT / file).is_file(), name
        assert name in CATALOGUE, name
        assert name not in scenarios, f"{name} has a scenario now: take its reason out"
