"""Beam physics as pure functions over numpy scalars and arrays."""

from facility.physics.chamber import charge_per_ion_fc, drift_time_us
from facility.physics.ranges import energy_for_range_mev_u, range_water_mm
from facility.physics.relativity import (
    CARBON,
    PROTON,
    Ion,
    IonLike,
    beta,
    energy_for_rigidity_mev_u,
    gamma,
    momentum_mev_c,
    revolution_frequency_hz,
    rigidity_tm,
)
from facility.physics.stopping import AIR, NITROGEN, WATER, Material, stopping_power_mev_cm2_g
from facility.physics.transport import deflection_mm, field_integral_tm, spot_sigma_mm

__all__ = [
    "AIR",
    "CARBON",
    "NITROGEN",
    "PROTON",
    "WATER",
    "Ion",
    "IonLike",
    "Material",
    "beta",
    "charge_per_ion_fc",
    "deflection_mm",
    "drift_time_us",
    "energy_for_range_mev_u",
    "energy_for_rigidity_mev_u",
    "field_integral_tm",
    "gamma",
    "momentum_mev_c",
    "range_water_mm",
    "revolution_frequency_hz",
    "rigidity_tm",
    "spot_sigma_mm",
    "stopping_power_mev_cm2_g",
]
