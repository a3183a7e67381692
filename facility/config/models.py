"""The whole facility as one frozen model, with the checks that span its sections."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from math import ceil
from typing import Annotated, Literal

from pydantic import Field, model_validator

from facility.config.base import Name, RoomName, Section
from facility.config.checks import CrossCheckError, find_contradictions
from facility.config.delivery import (
    Air,
    Chambers,
    FrontEnd,
    Gate,
    RangeShifter,
    RippleFilter,
    Room,
    RoomSearch,
    Scanning,
    Strip,
)
from facility.config.external import DigitalLines, ExternalDevice
from facility.config.machine import BeamOff, BeamQuality, Extraction, FacilityInfo, Ring, Species
from facility.constants import TICK_S
from facility.errors import no_such
from facility.external import LINES, SCANNERS, SPOT_AGES, VOLTAGES
from facility.physics.chamber import LONGEST_DRIFT_US, charge_per_ion_fc
from facility.physics.relativity import rigidity_tm


class Facility(Section):
    """A facility file (`schema = "ionctl.facility/1"`), validated. Sections keep the names of the file."""

    schema_: Annotated[Literal["ionctl.facility/1"], Field(alias="schema")]
    facility: FacilityInfo
    species: Annotated[dict[Name, Species], Field(min_length=1)]
    ring: Ring
    extraction: Extraction
    beam_off: BeamOff
    beam_quality: BeamQuality
    rooms: Annotated[dict[RoomName, Room], Field(min_length=1)]
    room_search: RoomSearch
    air: Air
    scanning: Scanning
    chambers: Chambers
    strip: Strip
    front_end: FrontEnd
    range_shifters: tuple[RangeShifter, ...]
    ripple_filter: RippleFilter
    gate: Gate
    external: dict[Name, ExternalDevice] = Field(default_factory=dict)
    lines: DigitalLines | None = None

    @model_validator(mode="after")
    def _no_contradictions(self) -> Facility:
        problems = find_contradictions(self)
        if problems:
            raise CrossCheckError(problems)
        return self

    def confirm_after_us(self) -> float:
        """How long after a stop chambers may still see charge: the gated spill's end and the longest ion drift, us."""
        return self.stop_us() + LONGEST_DRIFT_US

    def stop_us(self) -> float:
        """From the end of the demand to the end of the beam, us: the gated spill's end."""
        if self.beam_off.spill_gate == "chopper":
            return self.beam_off.chopper.delay_us + self.beam_off.chopper.fall_us
        return self.beam_off.rfko.delay_us + self.extraction.tail_us()

    @property
    def gated(self) -> bool:
        """A scanning supply is external: every move is without beam, and beam waits for fresh readings."""
        return any(name in self.external for name in SCANNERS)

    @property
    def beam_off_move_mm(self) -> float:
        """Moves that are longer are made without beam, mm; negative where all are."""
        return -1.0 if self.gated else self.front_end.beam_off_move_mm

    @property
    def external_move_s(self) -> float:
        """Time that is reckoned for a move of an external supply: so many readings, each as old as it may be, s."""
        devices = [self.external[name] for name in SCANNERS if name in self.external]
        return max((device.readbacks * device.max_age_ms * 1e-3 for device in devices), default=0.0)

    @property
    def min_spot_ticks(self) -> int:
        """Fewest ticks of beam in a spot: the front end's, or 5 A of the external devices that work spot by spot."""
        ages_ms = [self.external[name].max_age_ms for name in (*SCANNERS, *VOLTAGES) if name in self.external]
        return max(self.front_end.min_spot_ticks, ceil(SPOT_AGES * max(ages_ms, default=0.0) * 1e-3 / TICK_S - 1e-6))

    def max_age_us(self, device: str) -> float:
        """Maximum age of a reading of an external device, or of the digital lines, us."""
        if device == LINES and self.lines is not None:
            return self.lines.max_age_ms * 1e3
        return self.external[device].max_age_ms * 1e3

    @property
    def fitted(self) -> tuple[str, ...]:
        """External devices, and the digital lines where there are any."""
        return (*self.external, *([LINES] if self.lines is not None else []))

    @property
    def id(self) -> str:
        """Identifier of the facility, the stem of its file."""
        return self.facility.id

    @property
    def pv_prefix(self) -> str:
        """First part of every PV name."""
        return self.facility.pv_prefix

    def canonical_json(self) -> str:
        """The resolved model as JSON with sorted keys and no spaces: what is hashed and handed on."""
        data = self.model_dump(mode="json", by_alias=True)
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of `canonical_json()`, hexadecimal."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def species_named(self, name: str) -> Species:
        """The species, or UsageError with the names this facility has."""
        try:
            return self.species[name]
        except KeyError:
            raise no_such("config.no-species", "species", name, sorted(self.species), self.id) from None

    def room_named(self, name: str) -> Room:
        """The room, or UsageError with the rooms this facility has."""
        try:
            return self.rooms[name]
        except KeyError:
            raise no_such("config.no-room", "room", name, self.rooms, self.id) from None

    def ions_per_count(self, species: str, energy_mev_u: float, chamber: Literal["ic1", "ic2"] = "ic1") -> float:
        """Ions behind one count of a chamber at full collection, nominal gain and reference conditions."""
        quantum_fc = (self.chambers.ic1 if chamber == "ic1" else self.chambers.ic2).count_quantum_fc
        return quantum_fc / self.charge_per_ion_fc(species, energy_mev_u, chamber)

    def charge_per_ion_fc(self, species: str, energy_mev_u: float, chamber: Literal["ic1", "ic2"] = "ic1") -> float:
        """Charge that control believes an ion frees in a chamber at reference conditions, calibration in it, fC."""
        ic = self.chambers.ic1 if chamber == "ic1" else self.chambers.ic2
        computed = charge_per_ion_fc(energy_mev_u, self.species_named(species), ic)
        return float(computed * ic.calibrated(energy_mev_u))

    def bending_field_t(self, species: str, energy_mev_u: float) -> float:
        """Dipole field of the ring at this energy, T."""
        return float(rigidity_tm(energy_mev_u, self.species_named(species))) / self.ring.bending_radius_m

    def ramp_ms(self, species: str, energy_mev_u: float) -> float:
        """Time of the ramp from injection to this flat top, ms."""
        low = self.bending_field_t(species, self.ring.injection_energy_mev_u)
        return abs(self.bending_field_t(species, energy_mev_u) - low) / self.ring.phases.ramp_t_per_s * 1e3

    def water_equivalent_upstream_mm(self) -> float:
        """Water equivalent of both integral chambers: what the beam has lost of its range when it leaves them."""
        return self.chambers.ic1.water_equivalent_mm + self.chambers.ic2.water_equivalent_mm
