"""First starts: an exciter's edge fills with the ions that leave, a core's spill goes by its stack, the layer behind
the full drive is that of the calibrated response."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from facility.config import load_facility
from facility.errors import ConfigError
from ioc_sim.extraction.first_start import expected, first_start, layer_left, stack_share
from ioc_sim.extraction.optics import load_optics
from ioc_sim.extraction.points import START_FILL, Effort
from ioc_sim.extraction.rate_model import drive_shape
from ioc_sim.extraction.table import load_spill_table
from tests.extraction.settings import setting


def test_a_first_start_rises_until_the_edge_is_filled() -> None:
    """Soon after the first ions the layer at the edge is still thin; a quarter of the beam later it is not."""
    effort = Effort(1500, 6, 24_000, 1)
    thin, full = (first_start(setting(), 1.0, share, effort) for share in (0.002, 0.25))
    assert thin.level_rel[0] < 0.5
    assert full.level_rel[0] > 0.7
    assert thin.fill_turns < 0.3 * full.fill_turns
    assert thin.turns[0] < thin.turns[1]
    assert full.out[0] > full.begun_out > 0.25
    assert thin.out[1] > thin.out[0] > thin.begun_out > 0.002
    with pytest.raises(ConfigError, match="no ions after the start"):
        first_start(setting(), 1e-3, 0.002, Effort(1000, 1, 800, 1))


def test_the_calibrated_edge_is_that_of_tracking() -> None:
    """From the first ions on, over the same ring's level once it is full; at an energy that is no calibration's."""
    model = load_spill_table(load_facility("wuwei"))
    found = first_start(setting(), 1.0, 0.05, Effort(2000, 10, 40_000, 1))
    law = np.array([model.edge_level(float(out)) for out in found.out])
    assert found.level_rel[:3] == pytest.approx(law[:3] / law[4:].mean(), abs=0.25)
    assert START_FILL["rfko"] < model.fill_share < 1.3 * START_FILL["rfko"], "the wires take some"


def test_a_core_needs_no_number_of_its_own() -> None:
    optics, model = load_optics("pimms"), load_spill_table(load_facility("pimms"))
    one = setting("pimms")
    found = first_start(one, 1.0, model.fill_share, Effort(3000, 4, 8000, 1))
    said = expected(model, optics, one.beta_gamma, found, 1.0)
    assert found.share_per_turn / said == pytest.approx(np.ones(8), abs=0.2)
    assert said[-1] > 1.3 * said[0], "ions of a stack come faster and faster"
    assert (model.edge_share, model.edge_level(0.0)) == (0.0, 1.0)
    with pytest.raises(ConfigError, match="only a core"):
        stack_share(load_optics("wuwei"), 0.8, 0.5)


def test_the_layer_behind_the_full_drive_is_the_response_to_a_step() -> None:
    """What `layer_left` leaves, as a sum over a sinusoid, is 1 / (1 + (i omega tau)^1/2)."""
    omega, tau = 2.0 * np.pi * 1e-4, 471.0
    turns = np.linspace(0.0, 2e6, 400_001)
    fading = np.exp(-turns / 4e5)
    s = 1j * omega + 1.0 / 4e5
    left = np.interp(turns, grid := np.geomspace(1.0, 2e6, 600), layer_left(grid, tau))
    answer = 1.0 - s * np.trapezoid(left * fading * np.exp(-1j * omega * turns), turns)
    assert answer == pytest.approx(1.0 / (1.0 + np.sqrt(s * tau)), abs=0.02)
    model = replace(load_spill_table(load_facility("wuwei")), drive_lag_turns=0.0)
    whole = drive_shape(np.array([1e-4]), 0.0, 0.0, model.drive_edge_turns)[0]
    assert whole == pytest.approx(1.0 + 1.0 / (1.0 + np.sqrt(1j * omega * model.drive_edge_turns)))
