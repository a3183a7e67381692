"""What the amplitude of exciter and core does to the plant's spill: the calibrated response, and nothing where it is
what it is meant to be."""

from __future__ import annotations

import numpy as np
import pytest

from facility.config import change_facility, load_facility
from facility.physics import beta, gamma
from facility.physics.relativity import revolution_frequency_hz
from ioc_sim.extraction.table import load_spill_table
from ioc_sim.faults import Fault, FaultKind
from ioc_sim.studies.live_drive import QUIET, drive_response, level_of, restart_at, tune_response
from ioc_sim.studies.live_spill import beam_on, ions_of, live_spill


@pytest.mark.parametrize(
    ("name", "energy", "drive", "hz", "allowed"),
    [("wuwei", 250.0, 0.1, 300.0, 0.03), ("wuwei", 250.0, 0.1, 2954.0, 0.06), ("himm-mee", 330.0, 0.35, 5000.0, 0.08),
     ("lanzhou", 150.0, 0.2, 1200.0, 0.04), ("pimms", 250.0, 0.001, 490.0, 0.04), ("pimms", 250.0, 0.001, 2206.0, 0.1)],
)  # fmt: skip
def test_ripple_of_the_drive_is_answered_as_calibrated(
    name: str, energy: float, drive: float, hz: float, allowed: float
) -> None:
    """Transit alone would be a quarter to a half off with an exciter."""
    facility = load_facility(name)
    ion = facility.species_named("carbon")
    per_turn = np.array([hz / float(revolution_frequency_hz(energy, ion, facility.ring.circumference_m))])
    momentum = float(beta(energy, ion) * gamma(energy, ion))
    model = load_spill_table(facility).drive_ripple(per_turn, drive, momentum)[0]
    found = drive_response(facility, "carbon", energy, drive, hz)
    assert abs(found) == pytest.approx(abs(model), rel=allowed)
    assert np.angle(found / model) == pytest.approx(0.0, abs=0.2)


def test_ripple_of_the_tune_is_answered_as_calibrated_at_the_drive_of_tracking() -> None:
    facility = load_facility("wuwei")
    ion = facility.species_named("carbon")
    per_turn = np.array([656.0 / float(revolution_frequency_hz(250.0, ion, facility.ring.circumference_m))])
    model = abs(load_spill_table(facility).ripple(per_turn, 0.1, 0.78)[0])
    assert tune_response(facility, "carbon", 250.0, 0.1, 656.0) == pytest.approx(model, rel=0.05)


def test_a_stronger_exciter_brings_its_factor_at_once_and_the_square_of_it_when_the_layer_has_followed() -> None:
    rate = restart_at(load_facility("wuwei"), "carbon", 250.0, 0.1, 0.15, 1.2e-3, 30e-3)
    assert rate[40:60].mean() == pytest.approx(1.5 * 1.27, rel=0.08)
    assert rate[-300:].mean() == pytest.approx(1.5**2, rel=0.05)
    core = restart_at(load_facility("pimms"), "carbon", 250.0, 0.001, 0.0015, 1.2e-3, 10e-3)
    assert core[-300:].mean() == pytest.approx(1.5, rel=0.05), "the fill varies"


def test_behind_a_pause_nobody_comes_by_the_amplitude_before_it() -> None:
    """The first ions of a third of the drive are a third of those of the whole, and fewer as the layer follows;
    with those of the amplitude before they would be half."""
    whole, third = (
        restart_at(load_facility("wuwei"), "carbon", 250.0, 0.1, then, 1.2e-3, 2e-4) for then in (0.1, 0.03)
    )
    assert 0.22 < third[5:12].sum() / whole[5:12].sum() < 0.3


def test_the_layer_stands_still_while_the_exciter_is_off() -> None:
    """As long as the pause may be, a restart is the same."""
    short, long = (restart_at(load_facility("wuwei"), "carbon", 250.0, 0.1, 0.05, pause_s, 2e-3)
                   for pause_s in (0.8e-3, 8e-3))  # fmt: skip
    assert short[50:].sum() == pytest.approx(long[50:].sum(), rel=0.02)


def test_an_amplitude_that_is_what_it_is_meant_to_be_is_not_computed() -> None:
    plant, _ = beam_on(change_facility(load_facility("pimms"), QUIET), "carbon", 250.0, 1e8)
    ions_of(plant, 2e-3)
    assert plant._state[0].answering == 0
    plant.inject(Fault("rfko.on", FaultKind.SCALE, 1.2))
    ions_of(plant, 2e-3)
    assert plant._state[0].answering > 0
    plant.clear_faults()
    ions_of(plant, 20e-3)
    assert plant._state[0].answering == 0


def test_a_generator_without_lead_leaves_the_layer_in_what_the_loop_drives() -> None:
    facility = load_facility("wuwei")
    level = level_of(facility, "carbon", 250.0, 0.1)
    plain = change_facility(facility, QUIET | {"extraction.exciter_lead": False})
    assert live_spill(plain, "carbon", 250.0, level, 0.05).ions.mean() * 1e5 == pytest.approx(level, rel=0.05)
    noisy = change_facility(facility, {"extraction.exciter_lead": False})
    led, left = (live_spill(one, "carbon", 250.0, 1e8, 0.3).duty_factor for one in (facility, noisy))
    assert led > left + 0.005
