"""Dose monitors: two integral chambers and the strip chamber."""

from __future__ import annotations

from channels.pv_groups import declared
from facility import signals as g
from facility.config.delivery import Chamber
from facility.states import FrontEndState
from facility.timebase import Clock
from ioc_sim.iocs.outlet import SLOW_NS, Outlet, OutletGroup, Packed
from ioc_sim.iocs.view import INVALID, MAJOR, OK, View

LEAKAGE_S = 60.0
"""At rest counts of leakage charge are worth an update once in this time, s; with beam every one is."""
HV_DEADBAND_V = 0.5

_SIGNALS = ((g.IC1_IONS, g.IC1_HV_REL, g.IC1_OK), (g.IC2_IONS, g.IC2_HV_REL, g.IC2_OK))


class ChamberGroup(OutletGroup):
    """One integral chamber: base of both."""

    def bind(self, index: int, chamber: Chamber) -> None:
        """Make the outlets for chamber 0 or 1."""
        prefix = f"DOSE:IC{index + 1}"
        leakage = LEAKAGE_S * chamber.leakage_fc_per_s / chamber.count_quantum_fc
        self._index = index
        self._voltage_v = chamber.voltage_v
        self._ions_signal, self._hv_signal, self._ok_signal = _SIGNALS[index]
        self._counts = Outlet(self.channel(f"{prefix}:Counts-RB"), least_ns=SLOW_NS, deadband=leakage)
        self._ions = Outlet(self.channel(f"{prefix}:Ions-RB"), least_ns=SLOW_NS, deadband=leakage)
        self._hv = Outlet(self.channel(f"{prefix}:HV-RB"), deadband=HV_DEADBAND_V)
        self._ok = Outlet(self.channel(f"{prefix}:Electronics-Sts"))

    def show(self, view: View) -> None:
        """Publish what has changed."""
        t_ns = view.t_ns
        fault = not view.on(self._ok_signal)
        self._ok.offer(int(fault), t_ns, severity=MAJOR if fault else OK, now=view.event)
        self._hv.offer(view.signals[self._hv_signal] * self._voltage_v, t_ns)
        if view.slow or view.exact:
            counts = view.read("IC_READ", self._index)
            severity = OK if counts == counts else INVALID
            self._counts.offer(counts, t_ns, severity=severity, now=view.exact)
            # ions a count stands for change with the energy: counts say whether there is anything new
            self._ions.offer(view.signals[self._ions_signal], t_ns, key=counts, severity=severity, now=view.exact)


class Chamber1Group(ChamberGroup):
    """Chamber 1."""

    counts = declared("DOSE:IC1:Counts-RB")
    ions = declared("DOSE:IC1:Ions-RB")
    hv = declared("DOSE:IC1:HV-RB")
    electronics = declared("DOSE:IC1:Electronics-Sts")


class Chamber2Group(ChamberGroup):
    """Chamber 2."""

    counts = declared("DOSE:IC2:Counts-RB")
    ions = declared("DOSE:IC2:Ions-RB")
    hv = declared("DOSE:IC2:HV-RB")
    electronics = declared("DOSE:IC2:Electronics-Sts")


class StripGroup(OutletGroup):
    """Strip chamber."""

    centroid = declared("DOSE:STRIP:Centroid-RB")
    electronics = declared("DOSE:STRIP:Electronics-Sts")

    def __init__(self, prefix: str, clock: Clock) -> None:
        super().__init__(prefix, clock)
        self._centroid = Packed(self.centroid, least_ns=SLOW_NS)
        self._ok = Outlet(self.electronics)

    def show(self, view: View) -> None:
        """Publish what has changed; the centroid only from valid windows, while beam is on."""
        t_ns = view.t_ns
        fault = not view.on(g.STRIP_OK)
        self._ok.offer(int(fault), t_ns, severity=MAJOR if fault else OK, now=view.event)
        beam = view.status.state is FrontEndState.IRRADIATING and view.on(g.STRIP_VALID)
        if (view.slow and beam) or not self._centroid.writes:
            values = [view.read("STRIP_MM", 0), view.read("STRIP_MM", 1),
                      view.signals[g.STRIP_ERR_X_MM], view.signals[g.STRIP_ERR_Y_MM]]  # fmt: skip
            bad = any(value != value for value in values)
            self._centroid.offer(values, t_ns, key=repr(values), severity=INVALID if bad else OK)
