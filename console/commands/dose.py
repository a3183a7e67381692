"""`ionctl dose`: dose in water of a plan, or of what a session delivered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from console.options import FACILITY, JSON, FiniteRange, OutputFile
from console.settings import Settings

if TYPE_CHECKING:
    from rig.dose_desk import Doses


@click.command()
@click.argument("what", metavar="SESSION|PLAN")
@FACILITY
@click.option("--room", help="Room of a plan; default the first one.")
@click.option("--beam", type=click.IntRange(min=0), help="Number of the beam; default the first one.")
@click.option("--step-mm", type=FiniteRange(0.5, 10.0), default=2.0, show_default=True, help="Of the grid.")
@click.option("--dose-pct", type=FiniteRange(0.1, 20.0), default=2.0, show_default=True, help="Of gamma.")
@click.option("--distance-mm", type=FiniteRange(0.1, 20.0), default=2.0, show_default=True, help="Of gamma.")
@click.option("--local", is_flag=True, help="Per cent of the dose at the point, not of the highest.")
@click.option("--plot", type=OutputFile((".png", ".svg", ".pdf")), help="Draw into this file.")
@JSON
@click.pass_obj
def dose(
    settings: Settings, what: str, facility_name: str, room: str | None, beam: int | None, step_mm: float,
    dose_pct: float, distance_mm: float, local: bool, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Compute the dose in water of a plan; of a session: prescribed, delivered by truth, and gamma between them.

    Seconds on a grid of 2 mm. Water is homogeneous and begins at the isocentre's side of the air gap.
    """
    from console.tables import print_or_draw
    from dose.gamma import Criteria
    from rig.dose_desk import plan_dose, session_dose

    facility = settings.facility(facility_name)
    if Path(what).is_file():
        from control.plan.load import load_plan

        found = plan_dose(load_plan(Path(what)), facility, room, beam, step_mm)
    else:
        criteria = Criteria(dose_pct=dose_pct, distance_mm=distance_mm, local=local)
        found = session_dose(what, settings.home(), facility, beam, step_mm, criteria)

    def draw(path: Path) -> None:
        from console.dose_picture import draw_doses

        draw_doses(found, path)

    print_or_draw(found.to_data, lambda: _print(found), draw, as_json=as_json, plot=plot)


def _print(found: Doses) -> None:
    from console.tables import print_table

    data = found.to_data()
    columns = ["planned"] if found.delivered is None else ["planned", "delivered"]
    words = {
        "ions": "ions", "highest_gy": "highest dose, Gy", "mean_of_upper_half_gy": "mean where above half of it, Gy",
        "surface_on_axis_gy": "at the surface on the axis, Gy", "distal_half_on_axis_mm": "distal half of the axis, mm",
    }  # fmt: skip
    rows = [(title, *(_text(data[column][key]) for column in columns)) for key, title in words.items()]
    title = f"{found.source}: {found.species}, beam {found.beam}, {'x'.join(map(str, found.grid.shape))} voxels"
    heads = ("", "planned") if found.delivered is None else ("", "prescribed", "delivered by truth")
    print_table(title, heads, rows, right=(1, 2))
    if found.index is not None and found.criteria is not None:
        of = "local" if found.criteria.local else "of the highest"
        rule = f"{found.criteria.dose_pct:g} % {of}, {found.criteria.distance_mm:g} mm"
        print(f"gamma {rule}: {found.index.pass_pct:.3f} % of {found.index.judged:,} "
              f"voxels pass, mean {found.index.mean:.3f}, worst {found.index.worst:.2f}")  # fmt: skip


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"
