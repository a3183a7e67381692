"""`ionctl machine`: what the physics behind the plant says, in numbers and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from console.options import FACILITY, JSON, FiniteRange, OutputFile, seed_option
from console.settings import Settings

if TYPE_CHECKING:
    from facility.config.models import Facility
    from ioc_sim.extraction.spill import Setting
    from ioc_sim.extraction.study import Study
    from ioc_sim.studies.live_spill import LivePair

PLOT = click.option("--plot", type=OutputFile((".png", ".svg", ".pdf")), help="Draw into this file.")
SPECIES = click.option("--species", help="Species; default the facility's first one.")
TABLE_ENERGY = click.option("--energy", "energy_mev_u", type=FiniteRange(1.0, 500.0),
                            help="MeV/u of the energy table; default the nearest to 250.")  # fmt: skip
MIDDLE_MEV_U = 250.0


@click.group()
def machine() -> None:
    """Physics of the machine, in numbers and pictures; nothing has to run."""


@machine.command()
@FACILITY
@SPECIES
@click.option("--energy", "energy_mev_u", type=float, help="MeV/u; default 250 or the nearest the species has.")
@click.option("--particles", type=click.IntRange(1000, 1_000_000), default=6000, show_default=True)
@click.option("--turns", type=click.IntRange(5000, 10_000_000), default=60_000, show_default=True)
@click.option("--drive", type=FiniteRange(0.0, 1000.0, min_open=True), default=1.0, show_default=True,
              help="Exciter amplitude or core voltage, over that of the ring's file.")  # fmt: skip
@click.option("--ripple", "tune_ripple", type=FiniteRange(0.0, 0.01, min_open=True), default=2e-5,
              show_default=True, help="Amplitude dQ of each line of tune ripple.")  # fmt: skip
@seed_option(1)
@PLOT
@JSON
@click.pass_obj
def spill(
    settings: Settings, facility_name: str, species: str | None, energy_mev_u: float | None, particles: int, turns: int,
    drive: float, tune_ripple: float, seed: int, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Track slow extraction: transit times, stop, restart, ripple. Some 15 s for the default.

    Off line, by particles; beside it the spill of the live plant, whose transit and ripple `machine calibrate` makes
    from such runs: duty factor and spectrum with the intensity loop and without.
    """
    from console.tables import print_or_draw
    from ioc_sim.extraction.spill import setting_of, with_drive
    from ioc_sim.extraction.study import figures, study
    from ioc_sim.studies.live_spill import live_pair

    facility = settings.facility(facility_name)
    name = species or next(iter(facility.species))
    energy = _energy(facility, name) if energy_mev_u is None else energy_mev_u
    made = with_drive(setting_of(facility, name, energy, particles, turns, seed, settings.config_dir), drive)
    found = study(made, tune_ripple)
    live = live_pair(facility, name, energy, seed=seed)

    def draw(path: Path) -> None:
        from console.extraction_picture import draw_spill

        draw_spill(found, live, facility, path)

    def show() -> None:
        _print_study(found, made, f"{facility.id}, {name} of {energy:g} MeV/u, {made.optics.name}")
        _print_live(live)

    known = {"facility": facility.id, "species": name, "energy_mev_u": energy}
    print_or_draw(
        lambda: known | figures(found) | {"live": live.to_data()},
        show,
        draw, as_json=as_json, plot=plot,
    )  # fmt: skip


@machine.command()
@FACILITY
@click.option("--distance", type=FiniteRange(-0.02, 0.02), default=None,
              help="Tune distance dQ; default that of the ring, or 0.001 if it is on the resonance.")  # fmt: skip
@PLOT
@JSON
@click.pass_obj
def separatrix(
    settings: Settings, facility_name: str, distance: float | None, plot: Path | None, as_json: bool
) -> None:
    """Hold tracking against the Kobayashi Hamiltonian: stable area, fixed points, step to the septum."""
    from console.tables import print_or_draw, print_table
    from ioc_sim.extraction.optics import load_optics
    from ioc_sim.extraction.separatrix import compare
    from ioc_sim.extraction.study import OFF_RESONANCE, comparison_figures

    facility = settings.facility(facility_name)
    optics = load_optics(facility.id, settings.config_dir)
    wanted = distance if distance is not None else optics.lattice.distance
    optics = optics.with_distance(wanted if abs(wanted) > 1e-6 else OFF_RESONANCE)
    found = compare(optics)

    def draw(path: Path) -> None:
        from console.extraction_picture import draw_separatrix

        draw_separatrix(optics, found, path)

    rows = [
        ("stable area, mm mrad", found.area * 1e6, found.area_theory * 1e6, f"{found.area_error:+.1%}"),
        ("fixed points, farthest from its place over the radius", "", "", f"{found.corner_error:.1%}"),
        ("step before the septum, mm", _mean(found.step_mm), _mean(found.step_theory_mm),
         f"at most {found.step_error:.1%}") if found.step_mm.size else
        ("step before the septum", "", "", "none: the septum is inside the triangle"),
    ]  # fmt: skip
    title, heads = f"{optics.name}, dQ = {found.distance:g}", ("", "tracked", "Kobayashi", "deviation")
    print_or_draw(
        lambda: {"facility": facility.id, "ring": optics.name} | comparison_figures(found),
        lambda: print_table(title, heads, rows, right=(1, 2)),
        draw, as_json=as_json, plot=plot,
    )  # fmt: skip


@machine.command()
@FACILITY
@click.option("--check", is_flag=True, help="Hold the stored table against its inputs and show it; track nothing.")
@click.option("--output", type=OutputFile((".csv",)), help="Write here instead of into the configuration's tables.")
@click.option("--like", help="Track nothing: take what was found for this facility, whose ring has the same optics.")
@JSON
@click.pass_obj
def calibrate(
    settings: Settings, facility_name: str, check: bool, output: Path | None, like: str | None, as_json: bool
) -> None:
    """Calibrate the rate model of the spill with tracking and store it, hashed, as a table of the facility.

    Some minutes. What it consists of: docs/physics/slow-extraction.md.
    """
    from console.calibration import calibrate_ring, checked_ring, print_ring
    from console.tables import print_json

    if check and like is not None:
        raise click.UsageError("--check makes no table, so there is nothing to take from --like")
    facility = settings.facility(facility_name)
    if check:
        found = checked_ring(facility, settings.config_dir)
    else:
        found = calibrate_ring(facility, settings.config_dir, output, like)
    if as_json:
        print_json(found.to_data())
    else:
        print_ring(found)


REFERENCE = click.option("--reference", type=click.Path(path_type=Path, file_okay=False, exists=True),
                         help="Folder with published tables to draw beside: ICRU 90, matRad.")  # fmt: skip


@machine.command("range")
@FACILITY
@SPECIES
@REFERENCE
@PLOT
@JSON
@click.pass_obj
def range_in_water(
    settings: Settings,
    facility_name: str,
    species: str | None,
    reference: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Ranges in water of the energies of a species, with their straggling and scattering."""
    from console.beam_figures import print_ranges, range_figures
    from console.tables import print_or_draw

    facility = settings.facility(facility_name)
    figures = range_figures(facility, species or next(iter(facility.species)), reference)
    print_or_draw(figures.to_data, lambda: print_ranges(figures), figures.draw, as_json=as_json, plot=plot)


@machine.command()
@FACILITY
@SPECIES
@click.option("--energy", "energy_mev_u", type=float, help="MeV/u; default 250 or the nearest the species has.")
@click.option("--ripple-mm", type=FiniteRange(0.0, 10.0), help="Ripple filter, one sigma; default the facility's.")
@click.option("--before-mm", type=FiniteRange(0.0, 200.0),
              help="Water equivalent in front of the water; default the chambers.")  # fmt: skip
@REFERENCE
@PLOT
@JSON
@click.pass_obj
def bragg(
    settings: Settings, facility_name: str, species: str | None, energy_mev_u: float | None, ripple_mm: float | None,
    before_mm: float | None, reference: Path | None, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Depth dose of one energy in water: peak, widths, tail, and what the dose consists of."""
    from console.beam_figures import bragg_figures, print_bragg
    from console.tables import print_or_draw

    facility = settings.facility(facility_name)
    name = species or next(iter(facility.species))
    energy = _energy(facility, name) if energy_mev_u is None else energy_mev_u
    figures = bragg_figures(facility, name, energy, ripple_mm, before_mm, reference)
    print_or_draw(figures.to_data, lambda: print_bragg(figures), figures.draw, as_json=as_json, plot=plot)


@machine.command()
@FACILITY
@click.option("--room", help="Room; default the first one.")
@SPECIES
@TABLE_ENERGY
@seed_option(1)
@PLOT
@JSON
@click.pass_obj
def cycle(
    settings: Settings, facility_name: str, room: str | None, species: str | None, energy_mev_u: float | None,
    seed: int, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Run one cycle of the ring in the plant: phases, field, stored ions, ions that arrive."""
    from console.tables import print_or_draw, print_table
    from ioc_sim.studies.cycle import cycle_study

    facility, room_id, name, energy = _beam(settings, facility_name, room, species, energy_mev_u)
    found = cycle_study(facility, room_id, name, energy, seed)

    def draw(path: Path) -> None:
        from console.machine_picture import draw_cycle

        draw_cycle(found, path)

    def say() -> None:
        rows = [(phase.lower(), f"{seconds:.3f}") for phase, seconds in found.durations_s().items()]
        which = ", ".join(f"{one:.2f}" for one in found.energies_mev_u)
        print_table(f"{facility.id}, {name} of {which} MeV/u", ("phase", "s"), rows, right=(1,))
        print(f"one cycle of {found.time_s[-1] + 1e-3:.3f} s, {found.captured_ions:.3e} ions stored, "
              f"{found.arriving.sum() * 1e-3:.3e} arrived")  # fmt: skip

    print_or_draw(found.to_data, say, draw, as_json=as_json, plot=plot)


@machine.command()
@FACILITY
@click.option("--room", help="Room; default the first one.")
@SPECIES
@TABLE_ENERGY
@PLOT
@JSON
@click.pass_obj
def scan(
    settings: Settings, facility_name: str, room: str | None, species: str | None, energy_mev_u: float | None,
    plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Steps of the scanning supplies: how long until beam may come, overshoot, speed."""
    from console.tables import print_or_draw, print_table
    from ioc_sim.studies.scan import scan_study

    facility, room_id, name, energy = _beam(settings, facility_name, room, species, energy_mev_u)
    found = scan_study(facility, room_id, name, energy)

    def draw(path: Path) -> None:
        from console.machine_picture import draw_scan

        draw_scan(found, path)

    rows = [
        (step.axis, "upstream" if step.supply == 0 else "downstream", f"{step.distance_mm:g}",
         f"{step.settled_s * 1e6:.0f}", f"{(step.settled_s + found.wait_s) * 1e6:.0f}",
         f"{step.overshoot_mm:.3f}", f"{step.speed_mm_s * 1e-3:.1f}")
        for step in found.steps
    ]  # fmt: skip
    heads = ("axis", "magnet", "step mm", "settled us", "beam after us", "overshoot mm", "m/s")
    title = f"{facility.id}, room {found.room}, {name} of {energy:.2f} MeV/u"
    print_or_draw(
        found.to_data, lambda: print_table(title, heads, rows, right=(2, 3, 4, 5, 6)), draw, as_json=as_json, plot=plot
    )


@machine.command()
@FACILITY
@click.option("--room", help="Room; default the first one.")
@SPECIES
@TABLE_ENERGY
@PLOT
@JSON
@click.pass_obj
def monitors(
    settings: Settings, facility_name: str, room: str | None, species: str | None, energy_mev_u: float | None,
    plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Chambers and strips: when the charge of ions comes, what is lost of it, how well the beam's place is known."""
    from console.tables import print_or_draw, print_table
    from ioc_sim.studies.monitors import monitor_study

    facility, room_id, name, energy = _beam(settings, facility_name, room, species, energy_mev_u)
    found = monitor_study(facility, room_id, name, energy)

    def draw(path: Path) -> None:
        from console.machine_picture import draw_monitors

        draw_monitors(found, path)

    def show() -> None:
        title = f"{facility.id}, room {found.room}, {name} of {energy:.2f} MeV/u, spot {found.sigma_mm:.2f} mm"
        heads = ("chamber at", "charge has come after us", "lost at 1e9/s, %")
        rows = [(f"{volt:g} V", f"{found.late_s(volt) * 1e6:.0f}", f"{100.0 * found.loss_at(volt, 1e9):.3f}")
                for volt in found.collected]  # fmt: skip
        print_table(title, heads, rows, right=(1, 2))
        print(f"centroid of a window of 1e4 ions: {found.centre_at(1e4):.3f} mm, one sigma")

    print_or_draw(found.to_data, show, draw, as_json=as_json, plot=plot)


def _beam(
    settings: Settings, facility_name: str, room: str | None, species: str | None, energy_mev_u: float | None
) -> tuple[Facility, str, str, float]:
    """Facility, room, species and energy (MeV/u) that are meant: the first ones, and one in the middle, by default."""
    facility = settings.facility(facility_name)
    name = species or next(iter(facility.species))
    energy = _table_energy(facility, name, energy_mev_u)
    return facility, room or next(iter(facility.rooms)), name, energy


def _table_energy(facility: Facility, species: str, wanted: float | None) -> float:
    """An energy of the facility's table: the one demanded, or the nearest to the middle."""
    from facility.energy_table import load_energy_table

    facility.species_named(species)
    table = load_energy_table(facility, species)
    code = table.nearest(_energy(facility, species)) if wanted is None else table.code_for(wanted)
    return float(table.energy_mev_u[code])


def _energy(facility: Facility, species: str) -> float:
    ion = facility.species_named(species)
    return min(max(MIDDLE_MEV_U, ion.energy_min_mev_u), ion.energy_max_mev_u)


def _mean(values: Any) -> float:
    return float(values.mean()) if values.size else float("nan")


def _print_live(live: LivePair) -> None:
    from console.tables import print_table

    loop = live.loop
    rows = [(f"duty factor at 10 kHz, {name}", one.duty_factor, one.poisson_limit)
            for name, one in (("intensity loop closed", loop), ("no loop", live.no_loop))]  # fmt: skip
    about = f"{loop.level_ions_per_s:g}/s of {loop.energy_mev_u:.1f} MeV/u, {loop.stored_ions:.3g} ions stored"
    print_table(f"The plant's spill, by truth: {about}", ("", "", "counting alone"), rows, right=(1, 2))
    hz, ratio = live.waterbed.peak
    print(f"noise with the loop over noise without: {live.waterbed.ratio[0]:.2f} at {live.waterbed.hz[0]:.0f} Hz, "
          f"most {ratio:.2f} at {hz:.0f} Hz")  # fmt: skip


def _print_study(found: Study, setting: Setting, title: str) -> None:
    import numpy as np

    from console.tables import print_table

    spill, pause, ripple = found.spill, found.interruption, found.response
    transit = spill.transit_s[np.isfinite(spill.transit_s)] * 1e6
    quantiles = ", ".join(f"{np.quantile(transit, q):.0f}" for q in (0.05, 0.5, 0.95))
    left = ", ".join(f"{t * 1e6:.0f}" for t in pause.left_s.values())
    rows = [
        ("turns, window", f"{setting.turns:,}, {setting.turns / setting.f_rev_hz * 1e3:.1f} ms"),
        *((f"particles {name}", f"{count:,}") for name, count in spill.counts.items()),
        ("extraction efficiency", f"{spill.efficiency():.3f}"),
        ("transit time, 5, 50, 95 %", f"{quantiles} us"),
        ("first start: highest rate over the mean of the second half, less 1",
         f"{found.start.overshoot_rel:+.2f} (+-{found.start.overshoot_error:.2f})"),
        ("first start: until half of that mean", f"{found.start.delay_s * 1e3:.1f} ms"),
        ("after a stop: ions still to come, as time at the rate before", f"{pause.tail_s * 1e6:.0f} us"),
        ("after a stop: until 50, 10, 1 % of these are left", f"{left} us"),
        ("after a restart: until half the rate", f"{pause.delay_s * 1e6:.0f} us"),
        ("after a restart: highest rate over that without a stop, less 1",
         f"{pause.overshoot_rel:+.2f} (counting: {pause.overshoot_error:.2f})"),
    ]  # fmt: skip
    print_table(title, ("", ""), rows)
    lines = [(f, m, g, p) for f, m, g, p in zip(ripple.frequency_hz, ripple.modulation_rel, ripple.gain,
                                                 ripple.phase_rad, strict=True)]  # fmt: skip
    print_table(f"Tune ripple of {ripple.tune_amplitude[0]:g} in each line; not response: {ripple.floor_rel:.3f}",
                ("Hz", "modulation", "gain, 1/dQ", "phase, rad"), [tuple(map(float, line)) for line in lines],
                right=(0, 1, 2, 3))  # fmt: skip
