"""Nuclear reactions of protons and light nuclei in water: how often, and what flies on.

How often: total reaction cross sections by R. K. Tripathi, F. A. Cucinotta, J. W. Wilson, Nucl. Instrum. Methods B 117
(1996) 347, for pairs with a proton the form of the same authors for light systems (B 155 (1999) 349):

    sigma = pi r0^2 (Ap^1/3 + At^1/3 + delta)^2 (1 - B / Ecm),   r0 = 1.1 fm

What flies on: numbers of projectile fragments per reaction (`YIELDS`) with the velocity of their parent, spread by the
nucleons' motion (A. S. Goldhaber, Phys. Lett. B 53 (1974) 306), and the struck nucleons (`PARTICIPANTS`), whose
protons have a flat spectrum from zero to the energy per nucleon of the parent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facility.constants import AVOGADRO_PER_MOL
from facility.physics.relativity import CARBON, PROTON, FloatArray, Ion

MB_TO_CM2 = 1e-27
WATER_G_MOL = 18.0153
GOLDHABER_MEV_C = 90.0
"""Reduced width of a nucleon's momentum in light nuclei (Goldhaber 1974; 90 MeV/c is his value for Fermi motion)."""
CHARGE_LOSS_CM = 25.5
"""Mean free path of carbon for losing charge in water (E. Haettner et al., Radiat. Prot. Dosim. 122 (2006) 485)."""
LOCAL_MEV = {"p": 12.0, "ion": 24.0}
"""What the target's own fragments (recoil, evaporated alphas and protons) leave where the reaction was, MeV per
reaction. Protons: some 5 % of 150 MeV to recoils and alphas (ICRU Report 63, 2000) and as much to slow protons; ions:
twice that (design value)."""
SECONDARY_PROTONS = 1.14
"""Protons of a flat spectrum per reaction of a proton: they carry 57 % of its energy (ICRU Report 63: p on oxygen at
150 MeV)."""


@dataclass(frozen=True)
class Nuclide:
    """A nucleus that flies on. `radius_fm`: root mean square charge radius."""

    name: str
    ion: Ion
    radius_fm: float


def _nuclide(name: str, a: int, z: int, mass_u: float, radius_fm: float) -> Nuclide:
    electron_u = 5.485_799e-4
    return Nuclide(name, Ion(a, z, mass_u - z * electron_u), radius_fm)


# masses of neutral atoms: AME 2020; radii: I. Angeli, K. P. Marinova, At. Data Nucl. Data Tables 99 (2013) 69
C12 = Nuclide("12C", CARBON, 2.470)
P = Nuclide("p", PROTON, 0.85)
FRAGMENTS: tuple[Nuclide, ...] = (
    _nuclide("11C", 11, 6, 11.011433, 2.46),
    _nuclide("11B", 11, 5, 11.009305, 2.406),
    _nuclide("10B", 10, 5, 10.012937, 2.428),
    _nuclide("9Be", 9, 4, 9.012183, 2.519),
    _nuclide("7Be", 7, 4, 7.016929, 2.646),
    _nuclide("7Li", 7, 3, 7.016003, 2.444),
    _nuclide("6Li", 6, 3, 6.015123, 2.589),
    _nuclide("4He", 4, 2, 4.002603, 1.676),
    _nuclide("3He", 3, 2, 3.016029, 1.966),
    _nuclide("t", 3, 1, 3.016049, 1.759),
    _nuclide("d", 2, 1, 2.014102, 2.142),
    P,
)
_O16, _O_RADIUS_FM = (16, 8), 2.699
_CARBON_A, _CARBON_RADIUS_FM = 12, 2.470

YIELDS: dict[str, dict[str, float]] = {
    # Shares of the reaction cross section in water. Carbon to lithium: production cross sections of 12C on hydrogen
    # and carbon near 300 MeV/u (W. R. Webber, J. C. Kish, D. A. Schrier, Phys. Rev. C 41 (1990) 547; C. Zeitlin et
    # al., Phys. Rev. C 76 (2007) 014911), two of hydrogen and one of oxygen (that of carbon, geometrically scaled),
    # over the total. Helium: 0.85 a reaction, as the yields behind thick water say (K. Gunzert-Marx et al., New J.
    # Phys. 10 (2008) 075003; E. Haettner et al., Phys. Med. Biol. 58 (2013) 8265). Hydrogen of beam velocity: what
    # charge conservation leaves beside the participants. Rounded, as generally quoted, not re-checked against the
    # papers: see docs/physics/dose.md.
    "12C": {"11C": 0.080, "11B": 0.095, "10B": 0.060, "9Be": 0.022, "7Be": 0.038, "7Li": 0.038, "6Li": 0.044,
            "4He": 0.72, "3He": 0.13, "t": 0.10, "d": 0.22, "p": 0.68},
    "11C": {"10B": 0.10, "7Be": 0.08, "6Li": 0.08, "4He": 0.8, "3He": 0.2, "t": 0.05, "d": 0.2, "p": 1.0},
    "11B": {"10B": 0.10, "9Be": 0.06, "7Li": 0.10, "6Li": 0.04, "4He": 0.75, "3He": 0.06, "t": 0.2, "d": 0.25,
            "p": 0.6},
    "10B": {"9Be": 0.06, "7Be": 0.04, "7Li": 0.04, "6Li": 0.08, "4He": 0.8, "3He": 0.1, "t": 0.1, "d": 0.3, "p": 0.6},
    "9Be": {"7Li": 0.12, "6Li": 0.05, "4He": 0.9, "3He": 0.05, "t": 0.15, "d": 0.2, "p": 0.3},
    "7Be": {"6Li": 0.12, "4He": 0.55, "3He": 0.45, "d": 0.15, "p": 0.5},
    "7Li": {"6Li": 0.08, "4He": 0.6, "t": 0.35, "d": 0.2, "p": 0.2},
    "6Li": {"4He": 0.6, "3He": 0.1, "t": 0.1, "d": 0.4, "p": 0.3},
    "4He": {"3He": 0.25, "t": 0.20, "d": 0.25, "p": 0.35},
    "3He": {"d": 0.35, "p": 0.6},
    "t": {"d": 0.3, "p": 0.2},
    "d": {"p": 0.5},
    "p": {},
}  # fmt: skip
PARTICIPANTS: dict[str, float] = {
    # nucleons of the projectile that are struck per reaction, A sigma(nucleon) / sigma(nucleus): 3.7 on oxygen, 1.7 on
    # hydrogen; the charged half of them and of their partners, at half the energy each
    "12C": 3.1, "11C": 3.0, "11B": 3.0, "10B": 2.8, "9Be": 2.6, "7Be": 2.3, "7Li": 2.3, "6Li": 2.1, "4He": 1.7,
    "3He": 1.5, "t": 1.5, "d": 1.3, "p": SECONDARY_PROTONS,
}  # fmt: skip


def reaction_mb(
    ion: Ion, radius_fm: float, target: tuple[int, int], target_fm: float, energy: FloatArray
) -> FloatArray:
    """Total reaction cross section in mb at these energies (MeV/u) of an ion on a nucleus (A, Z)."""
    ap, zp, (at, zt) = ion.mass_number, ion.charge, target
    e = np.maximum(np.asarray(energy, dtype=np.float64), 1.0)
    m = 931.494
    total = ap * (e + m) + at * m
    momentum2 = (ap * (e + m)) ** 2 - (ap * m) ** 2
    e_cm = np.sqrt(total**2 - momentum2) - (ap + at) * m
    a3, b3 = ap ** (1.0 / 3.0), at ** (1.0 / 3.0)
    s = a3 * b3 / (a3 + b3)
    d, t1 = _transparency(ion, radius_fm, target, target_fm, e)
    c = d * (1.0 - np.exp(-e / t1)) - 0.292 * np.exp(-e / 792.0) * np.cos(0.229 * e**0.453)
    asymmetry = 0.91 * (at - 2 * zt) * zp / (at * ap) if at > 1 else 0.0
    delta = 1.85 * s + 0.16 * s / e_cm ** (1.0 / 3.0) - c + asymmetry
    radius = 1.29 * (radius_fm + target_fm) + 1.2 * (a3 + b3) / e_cm ** (1.0 / 3.0)
    barrier = 1.44 * zp * zt / radius
    area = np.pi * 1.1**2 * 10.0 * (a3 + b3 + delta) ** 2
    return np.asarray(area * np.maximum(1.0 - barrier / e_cm, 0.0), dtype=np.float64)


def _transparency(
    ion: Ion, radius_fm: float, target: tuple[int, int], target_fm: float, e: FloatArray
) -> tuple[FloatArray, float]:
    """D (overlap of densities, Pauli blocking) and the energy it saturates with."""
    ap, at = ion.mass_number, target[0]
    if min(ap, at) == 1:
        return np.full_like(e, 2.05), 40.0
    if (ion.mass_number, ion.charge) == (4, 2):
        return 2.77 - 8.0e-3 * at + 1.8e-5 * at**2 - 0.8 / (1.0 + np.exp((250.0 - e) / 75.0)), 40.0
    density = (ap / radius_fm**3 + at / target_fm**3) / (2.0 * _CARBON_A / _CARBON_RADIUS_FM**3)
    d = 1.75 * density / (3.0 if ion.charge == 3 else 1.0)
    if ap in (2, 3):
        d = min(d, 1.65)
    return np.full_like(e, d), 40.0


def _scale() -> float:
    """Of all cross sections of nuclei with each other: carbon loses charge with `CHARGE_LOSS_CM` at 250 MeV/u."""
    raw = float(_raw_per_cm(C12, np.array([250.0]))[0])
    return 1.0 / (CHARGE_LOSS_CM * (1.0 - YIELDS["12C"]["11C"])) / raw


def per_cm(nuclide: Nuclide, energy_mev_u: FloatArray) -> FloatArray:
    """Reactions per cm of water at these energies; protons on hydrogen scatter elastically and count as none."""
    raw = _raw_per_cm(nuclide, energy_mev_u)
    return raw if nuclide.ion.mass_number == 1 else raw * _scale()


def _raw_per_cm(nuclide: Nuclide, energy_mev_u: FloatArray) -> FloatArray:
    """By the formula alone."""
    on_oxygen = reaction_mb(nuclide.ion, nuclide.radius_fm, _O16, _O_RADIUS_FM, energy_mev_u)
    on_hydrogen = np.zeros_like(on_oxygen)
    if (
        nuclide.ion.mass_number > 1
    ):  # the proton as projectile at the same velocity: its formula takes the nucleus at rest
        target = (nuclide.ion.mass_number, nuclide.ion.charge)
        on_hydrogen = reaction_mb(P.ion, P.radius_fm, target, nuclide.radius_fm, energy_mev_u)
    return np.asarray((on_oxygen + 2.0 * on_hydrogen) * (MB_TO_CM2 * AVOGADRO_PER_MOL / WATER_G_MOL), dtype=np.float64)
