"""The virtual target: wall time for a whole plan, and how much of the facility's time is beam.

The plan is the reference plan (sphere of 60 mm at 150 mm, 2 Gy, carbon), made for each facility. Everything that a
delivery has runs: plant, all soft IOCs, both interlock tiers, control, operator. Compiling, or loading the kernel from
the cache, is timed apart, and so are the files that are written when the delivery has ended; the wall time is the one
that `ionctl deliver --json` tells, without a journal: what one costs with its disk stands beside it, from runs in turn.
The wall time from START to the end stands beside it: what comes before (PVs,
search, proof tests, loading the plan) costs the same however short the beam is. The best of several runs counts; CPU
time beside it says how busy the machine was otherwise. The kernel's share is taken from a run of its own, since looking
at the clock at each call costs time, too.

Delivery efficiency is the least facility time over the time taken. The least is: prescribed ions over the layer's
intensity, magnet moves too long to be made with beam, and machine cycles as the facility file gives them, without what
the ring does after the last layer.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.bench_kernel import Stopwatch
from benchmarks.report import save
from control.plan.dicom_writer import write_dicom_plan
from control.plan.maker import make_plan
from control.plan.program import MachineProgram
from facility.config import Facility, load_facility
from ioc_sim import rack
from rig.deliver import DeliveryRequest, checked_program
from rig.deliver_virtual import deliver_virtual
from rig.home import Home
from rig.operator_client import OperatorClient
from rig.result import DeliveryResult

FACILITIES = ("wuwei", "pimms", "himm-mee")
SPECIES = "carbon"
TARGET = ("sphere", 60.0, 150.0, 2.0)
"""Shape, size and depth in mm, dose in Gy."""
RUNS = 5
WALL_MS_PER_BEAM_S_ALLOWED = 20.0
WALL_S_ALLOWED = 2.0
EFFICIENCY_WANTED = 0.80
NS_PER_S = 1e9


@dataclass(frozen=True)
class Timed:
    """One delivery and what it cost."""

    result: DeliveryResult
    total_s: float
    """With the files."""
    cpu_s: float
    started_s: float
    """From START to the end of the session."""

    @property
    def wall_s(self) -> float:
        """The delivery."""
        return self.result.wall_s


def deliver(request: DeliveryRequest, program: MachineProgram, *, journal: bool = False) -> Timed:
    """Deliver once."""
    marks: list[float] = []
    original = OperatorClient.ended

    async def ended(operator: OperatorClient, *arguments: Any) -> dict[str, Any]:
        marks.append(time.perf_counter())
        summary = await original(operator, *arguments)
        marks.append(time.perf_counter())
        return summary

    OperatorClient.ended = ended  # type: ignore[method-assign]
    try:
        wall, cpu = time.perf_counter(), time.thread_time()
        result = deliver_virtual(request, program, journal=journal)
        total, used = time.perf_counter() - wall, time.thread_time() - cpu
    finally:
        OperatorClient.ended = original  # type: ignore[method-assign]
    return Timed(result, total, used, marks[-1] - marks[0])


def kernel_time(request: DeliveryRequest, program: MachineProgram) -> float:
    """CPU time of the kernel in one more delivery, s."""
    stopwatch = Stopwatch(rack.run)
    stopwatch.running = True
    original, rack.run = rack.run, stopwatch  # type: ignore[assignment]
    try:
        deliver_virtual(request, program, journal=False)
        return stopwatch.seconds
    finally:
        rack.run = original


def least_times(program: MachineProgram, facility: Facility) -> dict[str, float]:
    """Lower bound of the facility time, by what it is made of, s."""
    phases = facility.ring.phases
    after_s = (phases.dump_ms + phases.ramp_down_ms + phases.standardise_ms) * 1e-3
    return {
        "beam_s": sum(layer.time.beam_s for layer in program.layers),
        "moves_s": sum(layer.time.move_s for layer in program.layers),
        "cycles_s": sum(layer.time.cycle_s for layer in program.layers) - after_s,
    }


def taken_times(result: DeliveryResult, least: dict[str, float]) -> dict[str, float]:
    """Where the facility time from START to the end went, s; waits are what nothing else accounts for."""
    lines = Path(result.files["events"]).read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    begin, end = result.summary["t_started_ns"], result.summary["t_ended_ns"]
    phases = [(0, "STANDBY"), *((e["t_ns"], e["data"]["phase"]) for e in events if e["kind"] == "phase"), (end, "END")]
    spent: dict[str, float] = {}
    for (start, name), (stop, _) in pairwise(phases):
        inside = min(stop, end) - max(start, begin)
        spent[name] = spent.get(name, 0.0) + max(inside, 0) / NS_PER_S
    flat_top, standby, step = (spent.pop(name, 0.0) for name in ("FLAT_TOP", "STANDBY", "ENERGY_STEP"))
    beam = float(result.summary["beam_on_s"])
    return {
        "taken_s": (end - begin) / NS_PER_S,
        "beam_on_s": beam,
        "moves_s": least["moves_s"],
        "energy_steps_s": step,
        "cycles_s": sum(spent.values()),
        "waits_s": flat_top - beam - least["moves_s"] + standby,
    }


def measure(name: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """One facility: a row of cost and a row of efficiency."""
    facility = load_facility(name)
    path = folder / f"{name}.dcm"
    write_dicom_plan(make_plan(*TARGET, SPECIES, facility), path)
    request = DeliveryRequest(path, facility, next(iter(facility.rooms)), Home(folder / "home"))
    begin = time.perf_counter()
    program = checked_program(request)
    compile_s = time.perf_counter() - begin
    first = deliver(request, program)
    pairs = [(deliver(request, program), deliver(request, program, journal=True)) for _ in range(RUNS)]
    best, booked = (min(runs, key=lambda timed: timed.wall_s) for runs in zip(*pairs, strict=True))
    data = best.result.to_data()
    if data["status"] != "completed":
        raise RuntimeError(f"{name}: {data['status']}, {data['reason']}")
    beam_s = data["beam_on_s"]
    cost = {
        "facility": name, "spots": data["spots"], "layers": data["layers"], "beam_on_s": beam_s, "wall_s": best.wall_s,
        "cpu_s": best.cpu_s, "kernel_s": kernel_time(request, program),
        "journal_s": booked.wall_s - best.wall_s, "files_s": best.total_s - best.wall_s,
        "wall_ms_per_beam_s": best.wall_s / beam_s * 1e3,
        "start_to_end_ms_per_beam_s": best.started_s / beam_s * 1e3,
        "us_per_spot": best.wall_s / data["spots"] * 1e6, "times_real_time": data["facility_s"] / best.wall_s,
        "first_run_s": first.wall_s, "plan_to_program_s": compile_s,
    }  # fmt: skip
    least = least_times(program, facility)
    taken = taken_times(best.result, least)
    efficiency = {
        "facility": name,
        "efficiency": sum(least.values()) / taken["taken_s"],
        "least_s": sum(least.values()),
    }
    return cost, efficiency | taken


def main() -> int:
    """Measure, print, save."""
    costs, efficiencies = [], []
    with tempfile.TemporaryDirectory(prefix="ionctl-bench-") as folder:
        for name in FACILITIES:
            cost, efficiency = measure(name, Path(folder))
            costs.append(cost)
            efficiencies.append(efficiency)
    allowed = {
        "wall_ms_per_beam_s_allowed": WALL_MS_PER_BEAM_S_ALLOWED,
        "wall_s_allowed": WALL_S_ALLOWED,
        "efficiency_wanted": EFFICIENCY_WANTED,
    }
    save("virtual", {"virtual target, reference plan": costs, "delivery efficiency": efficiencies}, **allowed)
    print(f"  at most {WALL_MS_PER_BEAM_S_ALLOWED:g} ms a beam second and {WALL_S_ALLOWED:g} s a plan;", end=" ")
    print(f"efficiency at least {EFFICIENCY_WANTED:g}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
