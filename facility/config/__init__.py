"""Facility files: typed, validated, hashed. `load_facility("wuwei")` is the way in."""

from facility.config.delivery import (
    Chamber,
    Chambers,
    FrontEnd,
    Gate,
    RangeShifter,
    RippleFilter,
    Room,
    Scanning,
    ScanningAxis,
    Strip,
)
from facility.config.loader import (
    change_facility,
    config_roots,
    facility_from_dict,
    facility_from_json,
    find_config,
    list_facilities,
    load_facility,
)
from facility.config.machine import (
    BeamOff,
    BeamOffDevice,
    BeamQuality,
    Extraction,
    FacilityInfo,
    Ring,
    RingPhases,
    Species,
)
from facility.config.models import Facility

__all__ = [
    "BeamOff",
    "BeamOffDevice",
    "BeamQuality",
    "Chamber",
    "Chambers",
    "Extraction",
    "Facility",
    "FacilityInfo",
    "FrontEnd",
    "Gate",
    "RangeShifter",
    "Ring",
    "RingPhases",
    "RippleFilter",
    "Room",
    "Scanning",
    "ScanningAxis",
    "Species",
    "Strip",
    "change_facility",
    "config_roots",
    "facility_from_dict",
    "facility_from_json",
    "find_config",
    "list_facilities",
    "load_facility",
]
