"""Signals of a parallel-plate ionisation chamber: charge per ion, drift time of the slow carriers."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from facility.constants import ELEMENTARY_CHARGE_FC
from facility.physics.relativity import ArrayLike, FloatArray, IonLike
from facility.physics.stopping import AIR, NITROGEN, Material, stopping_power_mev_cm2_g

GASES: dict[str, Material] = {"N2": NITROGEN, "air": AIR}

LONGEST_DRIFT_US = 640.0
"""Longest ion drift that front end and interlocks can follow: about 230 V over 5 mm."""


class GasGap(Protocol):
    """What the charge of an ion depends on; the configuration's `Chamber` and `BackupCounter` fit."""

    @property
    def gap_mm(self) -> float: ...
    @property
    def gas(self) -> str: ...
    @property
    def w_ev(self) -> float: ...
    @property
    def density_g_cm3(self) -> float: ...


class ChamberLike(Protocol):
    """What drift depends on; the configuration's `Chamber` fits."""

    @property
    def gap_mm(self) -> float: ...
    @property
    def mobility_cm2_v_s(self) -> float: ...


def charge_per_ion_fc(energy_mev_u: ArrayLike, species: IonLike, chamber: GasGap) -> FloatArray:
    """Charge that one ion frees in the gas gap at full collection, fC: S(gas) x density x gap / W.

    Same shape as the energy. About 0.53, 0.37, 0.25 fC for carbon at 120, 200, 400 MeV/u in 5 mm.
    """
    stopping = stopping_power_mev_cm2_g(energy_mev_u, species, GASES[chamber.gas])
    deposit_ev = stopping * (chamber.density_g_cm3 * chamber.gap_mm * 0.1) * 1e6
    return np.asarray(deposit_ev / chamber.w_ev * ELEMENTARY_CHARGE_FC, dtype=np.float64)


def drift_time_us(chamber: ChamberLike, voltage_v: float) -> float:
    """Time a positive ion needs across the whole gap, gap^2 / (mobility x voltage), us.

    Carriers start evenly spread over the gap, so the slow half of the charge arrives at a constant rate
    over this time. ValueError when the voltage is not positive: without field nothing drifts.
    """
    if not voltage_v > 0.0:
        raise ValueError(f"drift time needs a positive voltage, got {voltage_v} V")
    gap_cm = chamber.gap_mm * 0.1
    return gap_cm * gap_cm / (chamber.mobility_cm2_v_s * voltage_v) * 1e6
