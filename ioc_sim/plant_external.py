"""Devices of a plant that stand behind somebody else's IOC."""

from __future__ import annotations

import numpy as np

from facility.external import SLOT
from ioc_sim import commands
from ioc_sim import layout as at
from ioc_sim.external import mark_bad, take_reading
from ioc_sim.plant_core import PlantCore
from ioc_sim.plant_types import ExternalState, ExternalWanted
from ioc_sim.spot_book import C_XSET


class ExternalDevices(PlantCore):
    """Readings in, set points out."""

    def external_reading(self, device: str, value: float, t_ns: int, good: bool, acknowledged: float) -> None:
        """A reading of an external device (a name of ``facility.external.SLOTS``), in the unit of the rack.

        ``t_ns``: when it was taken; ``good``: what the device says of itself; ``acknowledged``: the set point that the
        device had acknowledged by then, NaN for none.  A bad one counts for a while, even if good ones come with it.
        """
        self._later(self._reading_now, SLOT[device], float(value), float(t_ns), good, float(acknowledged))

    def _reading_now(self, slot: int, value: float, t_ns: float, good: bool, acknowledged: float) -> None:
        reading = value, t_ns, good, acknowledged
        take_reading(self._parameters[0], self._q, self._v, slot, reading, self.t_ns)

    def external_lost(self, device: str) -> None:
        """What has been read of an external device is void from now on: its connection is gone."""
        self._later(self._lost_now, SLOT[device])

    def _lost_now(self, slot: int) -> None:
        mark_bad(self._v, slot, self.t_ns)

    def external_slip(self, slip_ns: int) -> None:
        """Facility time has stood still for so long while the devices' time went on: their readings are older."""
        self._later(self._slip_now, float(slip_ns))

    def _slip_now(self, slip_ns: float) -> None:
        self._v[at.EXT_T_NS : at.EXT_T_NS + at.N_EXT] -= slip_ns

    def external_wanted(self) -> ExternalWanted:
        """What the external devices should be set to."""
        v, s = self._v, self._state[0]
        volts = v[at.IC_VOLT_TEST : at.IC_VOLT_TEST + 2] * self._q[at.IC_VOLT_SET : at.IC_VOLT_SET + 2]
        setpoints = (float(v[at.SET_A]), float(v[at.SET_A + 1]), float(volts[0]), float(volts[1]))
        return ExternalWanted(int(s.fe_token), int(s.spot) if commands.is_active(s) else -1, setpoints)

    def external_states(self) -> tuple[ExternalState, ...]:
        """How each external device stands, in the order of ``Facility.fitted``."""
        t_ns = self.t_ns
        states = []
        for name in self.facility.fitted:
            slot = SLOT[name]
            age_ms = (t_ns - float(self._v[at.EXT_T_NS + slot])) * 1e-6
            said = bool(self._v[at.EXT_GOOD + slot] == 1.0)
            in_time = abs(age_ms) <= float(self._q[at.EXT_AGE_NS + slot]) * 1e-6
            states.append(ExternalState(name, said, in_time, max(0.0, age_ms), float(self._v[at.EXT_VALUE + slot])))
        return tuple(states)

    def layer_set_points_a(self, device: str) -> np.ndarray:
        """Set points of a scanning supply for each spot of the loaded layer, A, shape (n,)."""
        return self._spots[:, C_XSET + SLOT[device]].copy()
