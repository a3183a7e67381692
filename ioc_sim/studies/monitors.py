"""The monitors looked at: charge of a chamber after a burst, losses by recombination, what strips find of a spot."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from facility.config import Facility
from facility.energy_table import EnergyTable, load_energy_table
from facility.physics.relativity import FloatArray
from ioc_sim import commands
from ioc_sim import layout as at
from ioc_sim.extraction.rate_model import RateModel
from ioc_sim.extraction.table import load_spill_table
from ioc_sim.faults import F_COLUMNS, N_FAULT_POINTS
from ioc_sim.layout import PARAM_DTYPE, STATE_DTYPE
from ioc_sim.params import as_argument, energy_columns, pack_parameters, record
from ioc_sim.physics.chambers import chamber_tick, free_charge, spot_constants
from ioc_sim.physics.strip_profile import Strips, expected, live_variance, measured, resolution_mm

SCHEMA = "ionctl.monitors/1"
VOLTAGES_V = (400.0, 800.0, 1500.0)
_TICKS = 60
_SETTLE_TICKS = 400
RATES = np.geomspace(1e7, 1e10, 25)
IONS = np.geomspace(2e2, 1e6, 25)
_SEED = 1


@dataclass(frozen=True, eq=False)
class MonitorStudy:
    """Of chamber 1, and of the strips, at one energy in one room.

    Attributes:
        time_s: after the tick in which ions came, (n,).
        collected: share of their charge that has come by then, by voltage, (n,) each.
        rates: ions a second; losses: share of charge lost at them in a steady beam, by voltage.
        ions: in a window of the strips; centre_mm: standard deviation of a centroid by the tick's formula,
            best_mm: by the information in the strips, beside_dead_mm: over two dead strips either side of a living one.
        profile: ions on each strip of one window of `profile_ions`, `expected` those that should be.
    """

    facility: str
    room: str
    species: str
    energy_mev_u: float
    sigma_mm: float
    time_s: FloatArray
    collected: dict[float, FloatArray]
    rates: FloatArray
    losses: dict[float, FloatArray]
    ions: FloatArray
    centre_mm: FloatArray
    best_mm: FloatArray
    beside_dead_mm: FloatArray
    strip_mm: FloatArray
    profile: FloatArray
    expected: FloatArray
    profile_ions: float

    def late_s(self, volt: float) -> float:
        """When all but a thousandth of the charge has come."""
        return float(self.time_s[np.argmax(self.collected[volt] > 0.999)])

    def loss_at(self, volt: float, rate: float) -> float:
        """Share of the charge that is lost in a steady beam of this rate."""
        return float(np.interp(np.log(rate), np.log(self.rates), self.losses[volt]))

    def centre_at(self, ions: float) -> float:
        """One sigma of a centroid of so many ions, mm."""
        return float(np.interp(np.log(ions), np.log(self.ions), self.centre_mm))

    def to_data(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "schema": SCHEMA, "facility": self.facility, "room": self.room, "species": self.species,
            "energy_mev_u": self.energy_mev_u, "sigma_mm": self.sigma_mm,
            "charge": {"time_s": self.time_s.tolist(),
                       "collected": {f"{volt:g}": share.tolist() for volt, share in self.collected.items()}},
            "recombination": {"ions_per_s": self.rates.tolist(),
                              "lost": {f"{volt:g}": share.tolist() for volt, share in self.losses.items()}},
            "centroid": {"ions": self.ions.tolist(), "sd_mm": self.centre_mm.tolist(), "best_mm": self.best_mm.tolist(),
                         "beside_dead_mm": self.beside_dead_mm.tolist()},
            "profile": {"at_mm": self.strip_mm.tolist(), "ions": self.profile.tolist(),
                        "expected": self.expected.tolist(), "of_ions": self.profile_ions},
        }  # fmt: skip


class _Chamber:
    """Chamber 1 of the plant by itself: its tick, with nothing random in it. `table`: of the species."""

    def __init__(self, facility: Facility, room: str, table: EnergyTable, spill: RateModel, code: int,
                 volt: float) -> None:  # fmt: skip
        parameters, self.q = pack_parameters(facility, room, table.species, spill, _SEED, 1, 1)
        self.p = as_argument(parameters, PARAM_DTYPE)[0]
        state = record(STATE_DTYPE)
        self.v = np.zeros(at.N_V)
        commands.initial_state(state[0], self.v)
        state[0].ring_code = code
        self.s = as_argument(state, STATE_DTYPE)[0]
        self.q[at.IC_LEAK_FC_PER_TICK] = 0.0
        self.v[at.IC_VOLT_SUPPLY] = volt
        self.v[at.IC_VOLT_TEST] = 1.0
        etab = energy_columns(facility, room, table.species, table, spill)
        free_charge(self.q, self.s, self.v, etab)
        spot_constants(self.p, self.q, self.v, etab[code, at.E_SIGMA])
        self._faults = np.zeros((N_FAULT_POINTS, F_COLUMNS))

    def tick(self, ions: float) -> float:
        """Charge that a tick with so many ions collects, fC."""
        before = float(self.v[at.IC_CHARGE_FC])
        chamber_tick(self.p, self.q, self.s, self.v, self._faults, 0, ions, 0)
        self.s["ring_pos"] = (int(self.s["ring_pos"]) + 1) & (at.DRIFT_RING - 1)
        return float(self.v[at.IC_CHARGE_FC]) - before


def monitor_study(facility: Facility, room: str, species: str, energy_mev_u: float) -> MonitorStudy:
    """All of it; ConfigError for an energy that the table does not have, UsageError for another room or species."""
    table, spill = load_energy_table(facility, species), load_spill_table(facility)
    code = table.code_for(energy_mev_u)
    own = table.room(room)
    sigma = float(own.spot_sigma_mm[code])
    collected, losses = {}, {}
    for volt in VOLTAGES_V:
        chamber = _Chamber(facility, room, table, spill, code, volt)
        burst = np.array([chamber.tick(1000.0), *(chamber.tick(0.0) for _ in range(_TICKS - 1))])
        collected[volt] = np.asarray(np.cumsum(burst) / burst.sum(), dtype=np.float64)
        losses[volt] = np.array(
            [_loss(_Chamber(facility, room, table, spill, code, volt), float(rate)) for rate in RATES]
        )
    strip = facility.strip
    noise = strip.noise_fc_rms / float(own.charge_per_ion_ic2_fc[code])
    whole = Strips.of(strip.strips, strip.pitch_mm, (), noise)
    middle = strip.strips // 2
    holes = Strips.of(strip.strips, strip.pitch_mm, (middle - 1, middle + 1), noise)
    centre = float(whole.centres_mm[middle])
    counting, electronics = live_variance(strip.pitch_mm, sigma, noise)
    rng = np.random.default_rng(_SEED)
    many = 3000.0
    return MonitorStudy(
        facility.id, room, species, float(table.energy_mev_u[code]), sigma,
        np.asarray(np.arange(1, _TICKS + 1) * 1e-5, dtype=np.float64), collected, RATES, losses, IONS,
        np.sqrt(counting / IONS + electronics / IONS**2 + strip.noise_mm**2),
        np.array([sqrt(resolution_mm(whole, float(n), centre, sigma)[0] ** 2 + strip.noise_mm**2) for n in IONS]),
        np.array([sqrt(resolution_mm(holes, float(n), centre, sigma)[0] ** 2 + strip.noise_mm**2) for n in IONS]),
        whole.centres_mm, measured(holes, many, centre + 0.4, sigma, np.ones(strip.strips), rng),
        expected(whole, many, centre + 0.4, sigma), many,
    )  # fmt: skip


def _loss(chamber: _Chamber, rate: float) -> float:
    """Share of the freed charge that is lost in a steady beam on a chamber that had none before."""
    ions, last = rate * 1e-5, 0.0
    for _ in range(_SETTLE_TICKS):
        last = chamber.tick(ions)
    return 1.0 - last / (ions * float(chamber.v[at.IC_FC_PER_ION]) * float(chamber.q[at.IC_GAIN]))
