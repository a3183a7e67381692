"""`ionctl plan`: make, show and check treatment plans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.options import FACILITY, JSON, OutputFile
from console.settings import Settings
from facility.errors import InternalError

if TYPE_CHECKING:
    from control.plan.model import Plan
    from control.plan.program import MachineProgram

PLAN_FILE = click.Path(path_type=Path, dir_okay=False)
_RIGHT = (0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11)
_COLUMNS = ("beam", "layer", "species", "MeV/u", "range mm", "ions/s", "spots", "ions", "lightest", "heaviest",
            "cycles", "time s")  # fmt: skip
_KEYS = ("beam", "layer", "species", "energy_mev_u", "range_mm", "intensity_ions_per_s", "spots", "ions",
         "lightest_ions", "heaviest_ions", "cycles", "expected_s")  # fmt: skip


@click.group()
def plan() -> None:
    """Make, show and check plans."""


@plan.command()
@click.option("--shape", type=click.Choice(["sphere", "cube"]), default="sphere", show_default=True)
@click.option("--size-mm", type=float, default=60.0, show_default=True, help="Diameter or edge of the target.")
@click.option("--depth-mm", type=float, default=150.0, show_default=True, help="Depth of the target's centre in water.")
@click.option("--dose-gy", type=float, default=2.0, show_default=True, help="Absorbed dose in water.")
@click.option("--species", default="carbon", show_default=True)
@FACILITY
@click.option("--spacing-mm", type=float, default=2.2, show_default=True, help="Between spots.")
@click.option("--layer-mm", type=float, default=2.0, show_default=True, help="Between layers, in water.")
@click.option("--output", type=OutputFile(), required=True, help="DICOM file to write.")
@click.pass_obj
def make(
    settings: Settings, shape: str, size_mm: float, depth_mm: float, dose_gy: float, species: str, facility_name: str,
    spacing_mm: float, layer_mm: float, output: Path,
) -> None:  # fmt: skip
    """Make a QA plan for a target in water: a spread-out Bragg peak as a DICOM RT Ion Plan."""
    from control.plan.dicom_writer import write_dicom_plan
    from control.plan.maker import make_plan

    made = make_plan(
        shape, size_mm, depth_mm, dose_gy, species, settings.facility(facility_name),
        lateral_spacing_mm=spacing_mm, layer_spacing_mm=layer_mm,
    )  # fmt: skip
    write_dicom_plan(made, output)
    print(f"{output}: {made.n_spots} spots in {made.n_layers} layers, {dose_gy:g} Gy in water")


@plan.command()
@click.argument("file", type=PLAN_FILE)
@JSON
@click.pass_obj
def show(settings: Settings, file: Path, as_json: bool) -> None:
    """Show what a plan holds, whether or not a facility can deliver it."""
    from console.tables import print_json, print_table
    from control.plan.load import load_plan

    read = load_plan(file)
    described = describe(read)
    if as_json:
        print_json(described)
        return
    print(
        f"{file.name}: plan {read.label!r}, patient {read.patient_id!r}, {read.n_spots} spots in {read.n_layers} layers"
    )
    for beam in described["beams"]:
        layers = beam["layers"]
        title = (
            f"Beam {beam['number']} {beam['name']!r}: {beam['species']}, gantry {beam['gantry_angle_deg']:g}, "
            f"support {beam['support_angle_deg']:g} degrees, {beam['meterset']:.6g} {beam['unit']}"
        )
        rows = [(i, x["energy_mev_u"], x["spots"], x["weight"], x["lightest"], x["heaviest"], x["paintings"])
                for i, x in enumerate(layers)]  # fmt: skip
        columns = ("layer", "MeV/u", "spots", beam["unit"], "lightest", "heaviest", "paintings")
        print_table(title, columns, rows, right=range(7), spare=("paintings",))


@plan.command()
@click.argument("file", type=PLAN_FILE)
@FACILITY
@click.option("--room", help="Room; default the first one.")
@click.option("--qa", is_flag=True, help="Deliver every beam at the room's fixed angle.")
@JSON
@click.pass_obj
def check(settings: Settings, file: Path, facility_name: str, room: str | None, qa: bool, as_json: bool) -> None:
    """Check that a facility can deliver a plan, and show how: energies, levels, spots, expected time."""
    from console.tables import print_json, print_table
    from control.plan.check import check_plan, examine_plan
    from control.plan.load import load_plan
    from control.plan.program import compile_program, summary

    found = settings.facility(facility_name)
    where = room or next(iter(found.rooms))
    read = load_plan(file)
    checked, problems = examine_plan(read, found, where, qa=qa)
    if checked is None:
        if as_json or len(problems) > 1:
            _print_problems(problems, as_json)
        check_plan(read, found, where, qa=qa)  # raises: the first problem in one line, and how many more there are
        raise InternalError("plan.check", "the same plan was refused and accepted", file.name)
    program = compile_program(read, found, where, qa=qa)
    if as_json:
        print_json(_program(program))
        return
    rows = [tuple(row[key] for key in _KEYS) for row in summary(program)]
    title = f"{file.name} at {found.id}, room {where}: {program.n_spots} spots, {program.expected_s:.1f} s expected"
    print_table(title, _COLUMNS, rows, right=_RIGHT, spare=("species", "lightest", "cycles", "heaviest", "beam"))
    for note in program.notes:
        print(f"note: {note}")


def describe(read: Plan) -> dict[str, Any]:
    """A plan as plain data, without its spots."""
    from control.plan.model import plan_hash

    return {
        "label": read.label,
        "patient_id": read.patient_id,
        "plan_uid": read.plan_uid,
        "plan_hash": plan_hash(read),
        "source": read.source,
        "unit": read.unit,
        "spots": read.n_spots,
        "fractions": read.fractions,
        "prescribed_dose_gy": read.prescribed_dose_gy,
        "dropped_zero_weight_spots": read.dropped_zero,
        "skipped_setup_beams": list(read.skipped_setup_beams),
        "beams": [
            {
                "number": beam.number,
                "name": beam.name,
                "species": beam.species,
                "gantry_angle_deg": beam.gantry_angle_deg,
                "support_angle_deg": beam.support_angle_deg,
                "range_shifters": [shifter.shifter_id for shifter in beam.range_shifters],
                "accessories": list(beam.accessories),
                "meterset": beam.meterset,
                "unit": beam.meterset_unit,
                "layers": [
                    {
                        "energy_mev_u": layer.energy_mev_u,
                        "spots": layer.n_spots,
                        "weight": float(layer.weight.sum()),
                        "lightest": float(layer.weight.min()),
                        "heaviest": float(layer.weight.max()),
                        "paintings": layer.paintings,
                    }
                    for layer in beam.layers
                ],
            }
            for beam in read.beams
        ],
    }


def _program(program: MachineProgram) -> dict[str, Any]:
    from control.plan.program import summary

    return {
        "deliverable": True,
        "plan_hash": program.plan_hash,
        "facility": program.facility_id,
        "room": program.room_id,
        "qa": program.qa,
        "spots": program.n_spots,
        "ions": program.total_ions,
        "expected_s": program.expected_s,
        "notes": list(program.notes),
        "layers": summary(program),
    }


def _print_problems(problems: Any, as_json: bool) -> None:
    from console.tables import print_json, print_table

    if as_json:
        print_json({"deliverable": False, "problems": [vars(problem) for problem in problems]})
        return
    rows = [(p.where, p.what, p.count, p.fix) for p in problems]
    print_table("This plan cannot be delivered here", ("where", "what", "times", "what to do"), rows, right=(2,))
