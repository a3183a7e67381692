"""Dose in water against published curves, and the pictures of docs/physics/dose.md.

``python -m benchmarks.dose_tables`` rewrites tables and pictures of that page (two minutes of one core);
``... carbon``, ``... proton``, ``... plans``, ``... speed`` or ``... pictures`` only that part. The reference files lie
beside the repository, in ``../shared/data``; nothing of the product is fitted to them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import reference_files
from benchmarks.matrad_dose import CALIBRATED_AT_MEV_U, TABLES, axis_dose, beam_line, nearest
from benchmarks.report import write_part
from console.beam_figures import bragg_figures, range_figures
from console.dose_picture import draw_doses
from control.plan.load import load_plan
from control.plan.maker import make_plan
from control.plan.model import Plan
from dose.curves import depth_dose
from dose.features import crossing, peak_of, plateau_of
from dose.field import Field, Grid, dose_on_grid
from dose.gamma import gamma
from dose.reference import trip98_depth_curve
from dose.straggling import scattering_sigma_mm
from dose.tables import load
from facility.config import Facility, load_facility
from facility.constants import MEV_PER_G_TO_GY
from facility.physics import CARBON, PROTON
from facility.physics.ranges import range_water_mm
from facility.physics.relativity import FloatArray
from facility.physics.stopping import stopping_power_mev_cm2_g
from rig.dose_desk import field_of_beam, plan_dose

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "physics" / "dose.md"
IMAGES = ROOT / "docs" / "images"
PLANS = TABLES.parent / "plans"
ENERGIES = (115.23, 157.12, 192.43, 223.96, 252.84, 279.97, 305.63, 330.15, 353.80, 376.70, 398.84)
MADE = (("wuwei", "carbon", "sphere", 60.0, 150.0, 2.0), ("wuwei", "carbon", "cube", 40.0, 100.0, 1.0),
        ("wuwei", "carbon", "sphere", 36.0, 240.0, 5.0), ("pimms", "proton", "sphere", 60.0, 150.0, 2.0),
        ("pimms", "proton", "cube", 40.0, 200.0, 1.0))  # fmt: skip
TRIP_RASTER_CM2 = 0.09
TRIP_WATER_MM = 1.709
TRIP_PLATEAU_MM = (110.0, 150.0)
BORTFELD_PER_MM, BORTFELD_STAYS = 0.0012, 0.6


def carbon_rows() -> list[str]:
    """Peak, ratio and tail by energy beside matRad's, Markdown."""
    line = beam_line()
    lines = ["| MeV/u | range, mm | offset, mm | peak, mm | matRad | off, mm | peak over entrance | matRad | off | "
             "20 mm behind, MeV cm2/g | matRad | off | across at the peak, mm | matRad |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for energy in ENERGIES:
        reference = nearest(energy)
        depth = np.arange(0.0, float(reference.depth_mm[-1]), 0.05)
        theirs = peak_of(depth, reference.at(depth))
        curve = depth_dose(reference.energy_mev_u, CARBON, line.sigma_mm)
        ours = peak_of(depth, curve.at(depth + line.before_mm))
        across = float(scattering_sigma_mm(reference.energy_mev_u, ours.depth_mm, CARBON))
        beside = float(np.interp(theirs.depth_mm, reference.depth_mm, reference.sigma_mm))
        offset = curve.range_mm - line.before_mm - ours.depth_mm
        lines.append(
            f"| {energy:.2f} | {curve.range_mm:.2f} | {offset:.2f} | {ours.depth_mm:.2f} | {theirs.depth_mm:.2f} | "
            f"{ours.depth_mm - theirs.depth_mm:+.2f} | {ours.ratio:.2f} | {theirs.ratio:.2f} | "
            f"{ours.ratio / theirs.ratio - 1.0:+.1%} | {ours.tail:.1f} | {theirs.tail:.1f} | "
            f"{ours.tail / theirs.tail - 1.0:+.1%} | {across:.2f} | {beside:.2f} |"
        )
    lines.append("")
    lines.append(f"Beam line of their data, from the curve at {CALIBRATED_AT_MEV_U:g} MeV/u: {line.before_mm:.2f} mm "
                 f"of water, {line.sigma_mm:.2f} mm of width.")  # fmt: skip
    return lines


def trip_field() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Depth in water (mm), dose in Gy of the TRiP98 field by our curves, and TRiP98's own, without lateral spread."""
    beam = load_plan(PLANS / "tst003001.rst").beams[0]
    depth = np.arange(0.0, 200.0, 0.1)
    ours = np.zeros_like(depth)
    for layer in beam.layers:
        per_cm2 = float(layer.weight.mean()) / TRIP_RASTER_CM2
        ours += per_cm2 * MEV_PER_G_TO_GY * depth_dose(layer.energy_mev_u, PROTON).at(depth)
    at, theirs = trip98_depth_curve(PLANS / "tst003001.bev.gd")
    return depth, ours, np.interp(depth, at + TRIP_WATER_MM, theirs)


def trip_over_stopping() -> dict[float, float]:
    """By depth (mm): TRiP98's dose over what its ions would give if none ever reacted, fluence times stopping power."""
    beam = load_plan(PLANS / "tst003001.rst").beams[0]
    depth, _, theirs = trip_field()
    bare = np.zeros_like(depth)
    for layer in beam.layers:
        curve = depth_dose(layer.energy_mev_u, PROTON)
        at, survival, _ = load("proton").at(curve.range_mm)
        per_cm2 = float(layer.weight.mean()) / TRIP_RASTER_CM2
        alive = np.interp(depth, at, survival)
        bare += per_cm2 * MEV_PER_G_TO_GY * np.interp(depth, curve.depth_mm, curve.primary) / alive
    shown = depth <= 110.0
    share = theirs[shown] / bare[shown]
    return {z: float(np.interp(z, depth[shown], share)) for z in (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)}


def trip_unreacted() -> tuple[FloatArray, float]:
    """Dose of the TRiP98 field by protons that have not reacted, Gy over the depths of `trip_field`; by our tables, and
    the share of its protons that react in the first cm of water."""
    depth = np.arange(0.0, 200.0, 0.1)
    dose = np.zeros_like(depth)
    protons = reacted = 0.0
    for layer in load_plan(PLANS / "tst003001.rst").beams[0].layers:
        curve = depth_dose(layer.energy_mev_u, PROTON)
        at, survival, _ = load("proton").at(curve.range_mm)
        per_cm2 = float(layer.weight.mean()) / TRIP_RASTER_CM2
        dose += per_cm2 * MEV_PER_G_TO_GY * np.interp(depth, curve.depth_mm, curve.primary, right=0.0)
        protons += per_cm2
        reacted += per_cm2 * (1.0 - float(np.interp(10.0, at, survival)))
    return dose, reacted / protons


def trip_bortfeld() -> FloatArray:
    """The TRiP98 field by the model of T. Bortfeld, Med. Phys. 24 (1997) 2024, Gy over the depths of `trip_field`.

    Of the protons 1.2 % react in each cm of range; 60 % of their energy stays where they do. Stopping power, range and
    straggling are ours.
    """
    depth = np.arange(0.0, 200.0, 0.1)
    at_mev = np.geomspace(0.5, 200.0, 600)
    ranges, stopping = range_water_mm(at_mev, PROTON), stopping_power_mev_cm2_g(at_mev, PROTON)
    dose = np.zeros_like(depth)
    for layer in load_plan(PLANS / "tst003001.rst").beams[0].layers:
        curve = depth_dose(layer.energy_mev_u, PROTON)
        left = curve.range_mm - depth
        inside = left > ranges[0]
        slowed, reacted = np.interp(left, ranges, stopping), np.interp(left, ranges, at_mev)
        per_ion = (1.0 + BORTFELD_PER_MM * left) * slowed + BORTFELD_STAYS * BORTFELD_PER_MM * 10.0 * reacted
        bare = np.where(inside, per_ion / (1.0 + BORTFELD_PER_MM * curve.range_mm), 0.0)
        reach = np.arange(-80, 81) * 0.1 / curve.sigma_mm
        smear = np.exp(-0.5 * reach * reach)
        padded = np.concatenate([np.full(80, bare[0]), bare, np.zeros(80)])
        per_cm2 = float(layer.weight.mean()) / TRIP_RASTER_CM2
        dose += per_cm2 * MEV_PER_G_TO_GY * np.convolve(padded, smear / smear.sum(), "valid")
    return dose


def trip_energy_share(depth: FloatArray, dose: FloatArray) -> float:
    """Energy that a dose over the depth (mm, Gy) of the TRiP98 field stands for, over that of its ions."""
    layers = load_plan(PLANS / "tst003001.rst").beams[0].layers
    brought = sum(float(one.weight.mean()) / TRIP_RASTER_CM2 * one.energy_mev_u for one in layers)
    return float(np.trapezoid(dose, 0.1 * depth)) / MEV_PER_G_TO_GY / brought


def proton_rows() -> list[str]:
    """The TRiP98 field, Markdown."""
    depth, ours, theirs = trip_field()
    flat = (depth >= TRIP_PLATEAU_MM[0]) & (depth <= TRIP_PLATEAU_MM[1])
    levels = float(ours[flat].mean()), float(theirs[flat].mean())
    shape = (ours[flat] / levels[0]) / (theirs[flat] / levels[1]) - 1.0
    front = (depth >= 10.0) & (depth <= 100.0)
    entrance = (ours[front] / levels[0]) / (theirs[front] / levels[1]) - 1.0
    absolute = ours[flat] / theirs[flat] - 1.0
    halves = [crossing(depth, np.minimum(dose, level), 0.5 * level, behind=True)
              for dose, level in zip((ours, theirs), levels, strict=True)]  # fmt: skip
    bortfeld = trip_bortfeld()
    middle = float(bortfeld[flat].mean())
    shares = [trip_energy_share(depth, dose) for dose in (ours, theirs, bortfeld)]
    unreacted, per_cm = trip_unreacted()
    alone = float(unreacted[flat].mean())
    over = trip_over_stopping()
    lost_per_cm = 0.5 * float(np.log(over[0.0] / over[20.0]))
    return [
        "| figure | ours | TRiP98 | deviation |", "|---|---|---|---|",
        f"| dose at the surface, Gy | {ours[0]:.4f} | {theirs[0]:.4f} | {ours[0] / theirs[0] - 1.0:+.1%} |",
        f"| mean of the plateau, {TRIP_PLATEAU_MM[0]:g} to {TRIP_PLATEAU_MM[1]:g} mm, Gy | {levels[0]:.3f} | "
        f"{levels[1]:.3f} | {levels[0] / levels[1] - 1.0:+.1%} |",
        f"| plateau, absolute, worst | | | {absolute[np.argmax(np.abs(absolute))]:+.1%} |",
        f"| plateau, each over its own mean, worst | | | {shape[np.argmax(np.abs(shape))]:+.1%} |",
        f"| 10 to 100 mm, over the plateau's mean, worst | | | {entrance[np.argmax(np.abs(entrance))]:+.1%} |",
        f"| mean of the plateau by Bortfeld's model, Gy | {middle:.3f} | {levels[1]:.3f} | "
        f"{middle / levels[1] - 1.0:+.1%} |",
        f"| dose of protons that have not reacted: at the surface, Gy | {unreacted[0]:.4f} | {theirs[0]:.4f} | "
        f"{unreacted[0] / theirs[0] - 1.0:+.1%} |",
        f"| the same, mean of the plateau, Gy | {alone:.3f} | {levels[1]:.3f} | {alone / levels[1] - 1.0:+.1%} |",
        f"| reactions in the first cm; TRiP98: what its dose loses | {per_cm:.2%} | {lost_per_cm:.2%} | |",
        f"| energy in the curve over energy of the protons (Bortfeld: {shares[2]:.1%}) | {shares[0]:.1%} | "
        f"{shares[1]:.1%} | |",
        *(f"| TRiP98 over fluence times stopping power at {z:g} mm; exp(-z / 76 cm) | {np.exp(-z / 760.0):.3f} | "
          f"{share:.3f} | |" for z, share in over.items()),
        f"| distal half, mm | {halves[0]:.2f} | {halves[1]:.2f} | {halves[0] - halves[1]:+.2f} mm |",
    ]  # fmt: skip


def made_field(facility: Facility, plan: Plan) -> Field:
    """The one beam of a made plan."""
    return field_of_beam(plan.beams[0], facility, next(iter(facility.rooms.values())))


def plan_rows() -> list[str]:
    """Made plans on their axis, by our engine and by matRad's data, Markdown."""
    lines = ["| plan | dose by | mean, Gy | half span | slope | 95 % behind the far edge, mm | 50 % behind "
             "it, mm | 95 % before the near edge, mm |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    depth = np.arange(0.0, 320.0, 0.5)
    grid = Grid(np.array([0.0, 1.0]), np.array([0.0, 1.0]), depth)
    for name, species, shape, size, centre, gy in MADE:
        facility = load_facility(name)
        field = made_field(facility, make_plan(shape, size, centre, gy, species, facility))
        doses = {"ours": dose_on_grid(field, grid)[:, 0, 0]}
        if species == "carbon":
            doses["matRad"] = axis_dose(field, depth)
        for by, dose in doses.items():
            found = plateau_of(depth, dose, centre, 0.5 * size)
            lines.append(
                f"| {species}, {shape} {size:g} mm at {centre:g} mm, {gy:g} Gy | {by} | {found.mean:.3f} | "
                f"{found.flatness:.1%} | {found.slope:+.1%} | {found.distal_95_mm - centre - 0.5 * size:+.2f} | "
                f"{found.distal_mm - centre - 0.5 * size:+.2f} | {centre - 0.5 * size - found.proximal_mm:+.2f} |"
            )
    return lines


def speed_rows() -> list[str]:
    """Processor seconds on one core for the reference plan, after compiling, Markdown."""
    facility = load_facility("wuwei")
    field = made_field(facility, make_plan("sphere", 60.0, 150.0, 2.0, "carbon", facility))
    lines = ["| grid | voxels | dose, s | gamma 2 %, 2 mm against 1 % more, s |", "|---|---|---|---|"]
    for step in (2.0, 1.0):
        grid = Grid.around(field, step)
        dose_on_grid(field, Grid.around(field, 5.0))
        begun = time.process_time()
        dose = dose_on_grid(field, grid)
        took = time.process_time() - begun
        gamma(dose[:3, :3, :3] + 1.0, dose[:3, :3, :3] + 1.0, (step, step, step))
        begun = time.process_time()
        gamma(dose, 1.01 * dose, (step, step, step))
        lines.append(f"| {step:g} mm | {dose.size:,} | {took:.1f} | {time.process_time() - begun:.1f} |")
    return lines


def pictures() -> None:
    """Draw the pictures of the page."""
    wuwei, pimms = load_facility("wuwei"), load_facility("pimms")
    line = beam_line()
    range_figures(wuwei, "carbon", TABLES).draw(IMAGES / "range-carbon.png")
    range_figures(pimms, "proton", TABLES).draw(IMAGES / "range-proton.png")
    bragg_figures(wuwei, "carbon", 279.97, line.sigma_mm, line.before_mm, TABLES).draw(IMAGES / "bragg-carbon.png")
    bragg_figures(pimms, "proton", 150.0, None, None, None).draw(IMAGES / "bragg-proton.png")
    plan = make_plan("sphere", 60.0, 150.0, 2.0, "carbon", wuwei)
    draw_doses(plan_dose(plan, wuwei, None, None, 2.0), IMAGES / "dose-sphere.png")


def main() -> None:
    """All parts, or those named."""
    parts = {"carbon": carbon_rows, "proton": proton_rows, "plans": plan_rows, "speed": speed_rows}
    wanted = sys.argv[1:] or [*parts, "pictures"]
    reference_files.require()
    for part in wanted:
        if part == "pictures":
            pictures()
        else:
            write_part(PAGE, "dose_tables", part, parts[part]())


if __name__ == "__main__":
    main()
