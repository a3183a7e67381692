"""The plant: the simulated machine behind one synchronous object.

``Plant`` owns the records of the rack, calls the kernel and keeps commands in order of facility time.  It knows neither
sockets nor asyncio; the soft IOCs and the safety link are built around it.
"""

from __future__ import annotations

import numpy as np

from facility.errors import CommandRefused
from ioc_sim.faults import F_KIND, Fault, fault_row
from ioc_sim.plant_core import TRACE_RECORDS, check_ring
from ioc_sim.plant_delivery import DeliveryCommands
from ioc_sim.plant_external import ExternalDevices
from ioc_sim.plant_lines import PlantLines
from ioc_sim.plant_types import FastRules, PlantEvent, PlantStatus
from ioc_sim.plant_view import PlantView

__all__ = ["TRACE_RECORDS", "FastRules", "Plant", "PlantEvent", "PlantStatus", "check_ring"]


class Plant(DeliveryCommands, PlantLines, ExternalDevices, PlantView):
    """One ring, one beamline, one room at a time."""

    def inject(self, fault: Fault) -> None:
        """Let a device fail; refused unless faults are allowed."""
        if not self.allow_faults:
            raise CommandRefused(
                "fault.forbidden", "faults are not allowed in this run", "inject", "use --allow-faults"
            )
        self._note(self._now_ns, self.inject, fault)
        i = fault.index()
        self._faults[i] = fault_row(fault, int(self._parameters[0].seed) & 0xFFFFFFFF)
        self._state[0].faults = np.count_nonzero(self._faults[:, F_KIND])

    def clear_faults(self) -> None:
        """Mend every device."""
        self._note(self._now_ns, self.clear_faults)
        self._faults[:] = 0.0
        self._state[0].faults = 0
