"""Several energies a flat top against one energy a cycle: the reference plan at `himm-mee`, facility time in parts.

``python -m benchmarks.several_energies`` delivers it four times in virtual time and writes the table of
docs/physics/cycle-and-scanning.md (a minute of one core). Ring, fill, plan, seed and intensity are the same in each
pair; one energy a cycle is the same facility with `ring.energies_per_flat_top = 1`. The first pair takes the levels
that the facility's file gives; there the beam is on for most of the time, which no ring can shorten. The second takes
higher ones, `front_end.min_percent_share` lowered for both as far as is needed and no further: less dose lies in spots
held to 1 %, each spot is still judged by truth and positions stay within what is asked for at the usual levels.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench_virtual import SPECIES, TARGET, least_times, taken_times
from benchmarks.report import ROOT, write_part
from control.plan.dicom_writer import write_dicom_plan
from control.plan.maker import make_plan
from facility.config import Facility, change_facility, load_facility
from rig.deliver import DeliveryRequest, checked_program
from rig.deliver_virtual import deliver_virtual
from rig.home import Home

FACILITY = "himm-mee"
PAGE = ROOT / "docs" / "physics" / "cycle-and-scanning.md"
HIGHER_SHARE = 0.55
WANTED_SAVING, MOST_P99_MM = 0.40, 0.3


@dataclass(frozen=True)
class Delivered:
    """One delivery: facility time by what it was spent on (s), and what truth says of the spots."""

    energies: int
    percent_share: float
    parts: dict[str, float]
    cycles: int
    spots: int
    within: int
    worst_pct: float
    p99_mm: float

    @property
    def total_s(self) -> float:
        """From START to the end."""
        return self.parts["taken_s"]


def pair(facility: Facility, plan: Path, home: Home) -> tuple[Delivered, Delivered]:
    """One energy a cycle, then as many as the facility has."""
    single = change_facility(facility, {"ring.energies_per_flat_top": 1})
    return delivered(single, plan, home), delivered(facility, plan, home)


def delivered(facility: Facility, plan: Path, home: Home) -> Delivered:
    """Deliver once; RuntimeError where it does not complete."""
    request = DeliveryRequest(plan, facility, next(iter(facility.rooms)), home)
    program = checked_program(request)
    result = deliver_virtual(request, program, journal=False)
    truth = result.truth
    if not result.completed or truth is None:
        raise RuntimeError(f"{result.summary['status']}, {result.summary['reason']}")
    return Delivered(
        facility.ring.energies_per_flat_top,
        sum(layer.total_ions * layer.percent_share for layer in program.layers) / program.total_ions,
        taken_times(result, least_times(program, facility)),
        sum(layer.time.cycles for layer in program.layers),
        truth.spots,
        truth.spots_within,
        truth.worst_spot_error_pct,
        truth.p99_position_error_mm,
    )


def rows(pairs: list[tuple[Delivered, Delivered]]) -> list[str]:
    """Markdown."""
    lines = [
        "| energies a flat top | dose held to 1 % | cycles | beam on, s | moves, s | energy changes, s | cycles, s | "
        "waits, s | facility time, s | saved | spots within tolerance | worst spot, of the heaviest | "
        "p99 position, mm |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one, several in pairs:
        for each in (one, several):
            part = each.parts
            saved = f"{1.0 - each.total_s / one.total_s:.1%}" if each is several else "-"
            lines.append(
                f"| {each.energies} | {each.percent_share:.1%} | {each.cycles} | {part['beam_on_s']:.1f} | "
                f"{part['moves_s']:.2f} | {part['energy_steps_s']:.1f} | {part['cycles_s']:.1f} | "
                f"{part['waits_s']:.1f} | {each.total_s:.1f} | {saved} | {each.within:,} of {each.spots:,} | "
                f"{each.worst_pct:.2f} % | {each.p99_mm:.3f} |"
            )
    return lines


def main() -> int:
    """Deliver, print, write; exit code 1 if the second pair saves too little or misses its places."""
    facility = load_facility(FACILITY)
    higher = change_facility(facility, {"front_end.min_percent_share": HIGHER_SHARE})
    with tempfile.TemporaryDirectory(prefix="ionctl-bench-") as folder:
        plan, home = Path(folder) / "plan.dcm", Home(Path(folder) / "home")
        write_dicom_plan(make_plan(*TARGET, SPECIES, facility), plan)
        pairs = [pair(each, plan, home) for each in (facility, higher)]
    write_part(PAGE, "several_energies", "energies", rows(pairs))
    one, several = pairs[-1]
    saved = several.total_s <= (1.0 - WANTED_SAVING) * one.total_s
    return 0 if saved and max(one.p99_mm, several.p99_mm) <= MOST_P99_MM else 1


if __name__ == "__main__":
    raise SystemExit(main())
