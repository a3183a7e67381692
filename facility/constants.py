"""Physical constants (CODATA 2018) and the few numbers that are part of every contract."""

from __future__ import annotations

from typing import Final

SPEED_OF_LIGHT_M_S: Final = 299_792_458.0
ATOMIC_MASS_MEV: Final = 931.494_102_42
ELECTRON_MASS_MEV: Final = 0.510_998_950_00
FINE_STRUCTURE: Final = 7.297_352_5693e-3
AVOGADRO_PER_MOL: Final = 6.022_140_76e23
ELEMENTARY_CHARGE_FC: Final = 1.602_176_634e-4
MEV_PER_G_TO_GY: Final = 1.602_176_634e-10
"""1 MeV/g in Gy (J/kg)."""
BETHE_K_MEV_CM2_MOL: Final = 0.307_075
"""4 pi N_A r_e^2 m_e c^2 (Particle Data Group, Passage of particles through matter)."""

TICK_NS: Final = 10_000
"""Length of one plant tick with beam possible, facility time."""
TICK_S: Final = 1e-5
IDLE_STEP_NS: Final = 1_000_000
"""Step of the plant when no beam is possible."""

FACILITY_SCHEMA: Final = "ionctl.facility/1"
ENERGY_TABLE_SCHEMA: Final = "ionctl.energy-table/3"
BREATHING_SCHEMA: Final = "ionctl.breathing/1"
