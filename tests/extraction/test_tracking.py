"""The tracking by itself: linear motion, fates, core, determinism, compiled against plain."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facility.errors import ConfigError
from ioc_sim.extraction import kernel as k
from ioc_sim.extraction.optics import Core, Optics
from ioc_sim.extraction.separatrix import bare, turn_by_turn
from ioc_sim.extraction.spill import run_spill
from ioc_sim.extraction.tracking import BLOCK_TURNS, Line, Particles, Programme, Tracker, gaussian_beam
from tests.extraction.settings import setting

ROOT = Path(__file__).resolve().parents[2]


def still(optics: Optics) -> Optics:
    """A ring of integer tune without sextupoles that act: every particle comes back to where it was."""
    weak = tuple(s.model_copy(update={"k2l_per_m2": s.k2l_per_m2 * 1e-9}) for s in optics.sextupoles)
    lattice = optics.with_distance(1.0 / 3.0).lattice.model_copy(update={"chromaticity": 0.0})
    return optics.model_copy(update={"lattice": lattice, "sextupoles": weak})


def test_every_particle_is_accounted_for_once() -> None:
    spill = run_spill(setting(turns=20_000, drive=3.0))
    assert sum(spill.counts.values()) == spill.setting.particles
    assert spill.counts["extracted"] > 1000
    assert spill.counts["lost on wires"] > 10
    assert spill.time_s.size == spill.counts["extracted"]
    assert np.all(np.diff(spill.time_s) >= 0.0)
    left = spill.beam.status != k.STORED
    assert np.all(spill.beam.end_turn[left] >= 0)
    assert np.all(spill.beam.end_turn[~left] == -1)


def test_where_a_particle_meets_the_septum_decides_its_fate() -> None:
    optics = still(setting().optics)
    septum = optics.septum
    at_mm = np.array([0.0, septum.position_mm - 0.01, septum.position_mm + 0.5 * septum.wire_mm,
                      septum.position_mm + septum.wire_mm + 0.5 * septum.gap_mm,
                      septum.position_mm + septum.wire_mm + septum.gap_mm + 0.1,
                      -septum.aperture_mm + 0.1, -septum.aperture_mm - 0.1])  # fmt: skip
    beam = Particles(at_mm * 1e-3 / np.sqrt(optics.lattice.beta_m), np.zeros(7), np.zeros(7))
    Tracker(optics, beam, Programme(drive_off=0), 1).advance(5)
    assert beam.status.tolist() == [k.STORED, k.STORED, k.WIRE, k.EXTRACTED, k.CATHODE, k.STORED, k.APERTURE]
    assert beam.end_turn.tolist() == [-1, -1, 0, 0, 0, -1, 0]


def test_a_septum_on_the_other_side_takes_the_other_particles() -> None:
    optics = still(setting().optics)
    optics = optics.model_copy(update={"septum": optics.septum.model_copy(update={"side": -1})})
    x = np.array([40e-3, -40e-3]) / np.sqrt(optics.lattice.beta_m)
    beam = Particles(x, np.zeros(2), np.zeros(2))
    Tracker(optics, beam, Programme(drive_off=0), 1).advance(1)
    assert beam.status.tolist() == [k.STORED, k.EXTRACTED]


def test_small_amplitudes_turn_with_the_tune_and_its_chromaticity() -> None:
    optics = bare(setting("pimms").optics.with_distance(0.01))
    delta = np.array([0.0, 1e-3, -2e-3])
    z = turn_by_turn(optics, np.full(1, 1e-9 + 0j), 1)[:, 0]
    assert -np.angle(z[1] / z[0]) % (2.0 * np.pi) == pytest.approx(2.0 * np.pi * (optics.lattice.tune % 1.0), abs=1e-6)
    beam = Particles(np.full(3, 1e-9), np.zeros(3), delta)
    Tracker(optics, beam, Programme(drive_off=0), 1).advance(1)
    turned = -np.angle((beam.x + 1j * beam.p) / 1e-9) / (2.0 * np.pi) % 1.0
    assert turned == pytest.approx((optics.lattice.tune + optics.lattice.chromaticity * delta) % 1.0, abs=1e-6)


def test_ripple_moves_the_tune_of_a_turn() -> None:
    optics = bare(setting().optics)
    beam = Particles(np.full(1, 1e-9), np.zeros(1), np.zeros(1))
    Tracker(optics, beam, Programme(drive_off=0, ripple=(Line(2e-3, 0.0, 0.5 * np.pi),)), 1).advance(1)
    turned = -np.angle((beam.x + 1j * beam.p) / 1e-9) / (2.0 * np.pi) % 1.0
    assert turned == pytest.approx([(optics.lattice.tune + 2e-3) % 1.0], abs=1e-6)


def test_the_core_gives_every_ion_the_same_each_turn_while_it_is_on() -> None:
    made = setting("pimms", particles=200, turns=100)
    drive = made.optics.drive
    assert isinstance(drive, Core)
    beam = gaussian_beam(made.optics, 200, made.beta_gamma, 1)
    tracker = Tracker(made.optics, beam, Programme(drive_on=10, drive_off=60), 1)
    core, kick = tracker._drive(np.array([9, 10, 59, 60, 99]))
    assert core / drive.delta_per_turn == pytest.approx([0, 1, 50, 50, 50])
    assert not kick.any()


def test_the_beam_has_the_emittance_and_momentum_that_were_asked_for() -> None:
    made = setting("pimms")
    beam = gaussian_beam(made.optics, 20_000, made.beta_gamma, 3)
    wanted = made.optics.beam.emittance_um * 1e-6 / made.beta_gamma
    assert np.mean(beam.x**2 + beam.p**2) / 2.0 == pytest.approx(wanted, rel=0.03)
    assert np.mean(beam.x * beam.p) == pytest.approx(0.0, abs=0.03 * wanted)
    assert beam.delta.mean() == pytest.approx(made.optics.beam.momentum_offset, rel=0.01)
    assert beam.delta.std() == pytest.approx(made.optics.beam.momentum_spread, rel=0.03)


def all_of(beam: Particles) -> bytes:
    arrays = (beam.x, beam.p, beam.delta, beam.status, beam.end_turn, beam.inside_turn, beam.end)
    return b"".join(array.tobytes() for array in arrays)


@pytest.mark.parametrize("name", ["wuwei", "pimms"])
def test_a_run_is_a_function_of_its_inputs_however_it_is_sliced(name: str) -> None:
    made = setting(name, particles=700, drive=4.0)
    runs = []
    for pieces in ([5000], [5000], [1, 1699, BLOCK_TURNS, 2276]):
        beam = gaussian_beam(made.optics, 700, made.beta_gamma, 1)
        tracker = Tracker(made.optics, beam, Programme(), 1, watch=3)
        for piece in pieces:
            tracker.advance(piece)
        runs.append(all_of(beam))
    assert runs[0] == runs[1] == runs[2]
    other = gaussian_beam(made.optics, 700, made.beta_gamma, 2)
    assert all_of(Tracker(made.optics, other, Programme(), 2, watch=3).advance(5000)) != runs[0]


@pytest.mark.parametrize("name", ["wuwei", "pimms"])
def test_a_branch_with_the_same_drive_goes_on_as_the_run_does(name: str) -> None:
    made = setting(name, particles=700, drive=4.0)
    beam = gaussian_beam(made.optics, 700, made.beta_gamma, 1)
    main = Tracker(made.optics, beam, Programme(), 1)
    main.advance(3000)
    stored = np.flatnonzero(beam.status == k.STORED)
    branch = main.branch(Programme())
    main.advance(2000)
    assert branch.advance(2000).status.tolist() == beam.status[stored].tolist()


def test_compiled_and_plain_runs_agree_bit_for_bit() -> None:
    lines = {}
    for plain in ("", "1"):
        environment = {key: value for key, value in os.environ.items() if key != "NUMBA_DISABLE_JIT"}
        if plain:
            environment["NUMBA_DISABLE_JIT"] = plain
        done = subprocess.run([sys.executable, "-m", "tests.extraction.digest_run"], cwd=ROOT, env=environment,
                              capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        kind, left, digest = done.stdout.split()
        lines[kind] = (left, digest)
    assert lines["COMPILED"] == lines["PLAIN"]
    assert int(lines["PLAIN"][0]) > 20, "somebody left, or the end of a particle was not compared"


def test_compiled_code_stands_in_one_file_of_the_folder() -> None:
    """numba looks for edits in the file of the outermost function alone, and the folder is not in the rack's key."""
    folder = ROOT / "ioc_sim" / "extraction"
    assert [path.name for path in folder.glob("*.py") if re.search(r"^@kernel", path.read_text(), re.M)] == [
        "kernel.py"
    ]
    assert re.findall(r"^from (\S+) import", (folder / "kernel.py").read_text(), re.M) == [
        "__future__", "facility.jit", "facility.rng"
    ]  # fmt: skip


@pytest.mark.parametrize("particles", [0, 10_000_001])
def test_a_beam_has_particles_within_bounds(particles: int) -> None:
    with pytest.raises(ConfigError, match=f"{particles} particles: 1 to"):
        gaussian_beam(setting().optics, particles, 1.0, 1)
