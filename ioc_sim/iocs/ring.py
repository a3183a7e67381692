"""Synchrotron and spill."""

from __future__ import annotations

import math

from channels.protocol import Severity
from channels.pv_groups import declared
from facility import signals as g
from facility.energy_table import EnergyTable
from facility.states import RingPhase
from facility.timebase import NS_PER_S, Clock
from ioc_sim.iocs.command_desk import CommandDesk, put_command
from ioc_sim.iocs.outlet import SLOW_NS, Outlet, OutletGroup, Packed
from ioc_sim.iocs.view import MAJOR, OK, View


class RingGroup(OutletGroup):
    """Phase, energy, stored ions; commands request_cycle and end_cycle."""

    phase = declared("RING:Phase-Sts")
    status = declared("RING:Status-RB")
    energy = declared("RING:Energy-RB")
    rigidity = declared("RING:Rigidity-RB")
    frequency = declared("RING:Frequency-RB")
    ions = declared("RING:Ions-RB")
    command = declared("RING:Cmd", put_command)
    result = declared("RING:Cmd-Result")

    def __init__(self, prefix: str, clock: Clock, table: EnergyTable, fill_ions: float, desk: CommandDesk) -> None:
        super().__init__(prefix, clock)
        self.desk = desk
        self._table = table
        self._phase = Outlet(self.phase)
        self._status = Packed(self.status)
        self._energy = Outlet(self.energy)
        self._rigidity = Outlet(self.rigidity, deadband=1e-6)  # it is a product: its last bits are no change
        self._frequency = Outlet(self.frequency)
        self._ions = Outlet(self.ions, least_ns=2 * SLOW_NS, deadband=1e-3 * fill_ions)

    def show(self, view: View, fe_code: int) -> None:
        """Publish what has changed; `fe_code` is the energy code of the loaded layer, -1 if none."""
        s, t_ns, event = view.status, view.t_ns, view.event
        severity = MAJOR if s.phase is RingPhase.FAULT else OK
        self._phase.offer(int(s.phase), t_ns, severity=severity, now=event)
        slot = view.slot(1) if s.phase is RingPhase.FLAT_TOP else -1
        self._status.offer(
            [int(s.phase), s.ring_token, s.energy_code, s.cycle, s.stored_ions, s.flat_top_ms],
            t_ns,
            key=(s.phase, s.ring_token, s.energy_code, s.cycle, slot),
            severity=severity,
            now=event,
        )
        if not (event or view.slow):
            return
        code = s.energy_code
        self._energy.offer(float(self._table.energy_mev_u[code]) if code >= 0 else 0.0, t_ns, now=event)
        self._frequency.offer(view.read("RING_HZ", 0), t_ns, now=event)
        self._rigidity.offer(self._brho(view, fe_code), t_ns)
        self._ions.offer(s.stored_ions, t_ns, now=event)

    def _brho(self, view: View, fe_code: int) -> float:
        """Measured rigidity: on the flat top against the table value of the loaded layer, else the programme's."""
        if view.status.phase is not RingPhase.FLAT_TOP or not 0 <= fe_code < len(self._table):
            return view.read("RING_TM", 0)
        return view.signals[g.RING_BRHO_REL] * float(self._table.rigidity_tm[fe_code])


class SpillGroup(OutletGroup):
    """Extraction: what is commanded, what the devices read back, what comes."""

    status = declared("SPILL:Status-RB")
    rate = declared("SPILL:Rate-RB")
    rfko = declared("SPILL:RfKo-Sts")
    quad = declared("SPILL:FastQuad-Sts")
    chopper = declared("SPILL:Chopper-Sts")

    def __init__(self, prefix: str, clock: Clock, lowest_level: float) -> None:
        super().__init__(prefix, clock)
        self._status = Packed(self.status, least_ns=SLOW_NS)
        self._rate = Outlet(self.rate, least_ns=SLOW_NS, deadband=0.01 * lowest_level)
        # between spots these switch hundreds of times a second; what matters is shown at once, on events
        self._rfko = Outlet(self.rfko, least_ns=SLOW_NS)
        self._quad = Outlet(self.quad, least_ns=SLOW_NS)
        self._chopper = Outlet(self.chopper, least_ns=SLOW_NS)
        self._rate_from: tuple[int, float] | None = None

    def show(self, view: View) -> None:
        """Publish what has changed."""
        s, t_ns, event = view.status, view.t_ns, view.event
        cmd, rfko, quad, chopper = (view.on(i) for i in (g.SPILL_CMD, g.RFKO_ON, g.QUAD_BLOCK, g.CHOPPER_BLOCK))
        self._rfko.offer(int(rfko), t_ns, severity=OK, now=event)
        self._quad.offer(int(quad), t_ns, severity=OK, now=event)
        self._chopper.offer(int(chopper), t_ns, severity=OK, now=event)
        self._status.offer(
            [s.rate, s.level, cmd, rfko, quad, chopper],
            t_ns,
            key=(cmd, rfko, quad, chopper, s.level, view.slot(2) if cmd else -1),
            severity=Severity.NO_ALARM,
            now=event,
        )
        if view.slow:
            self._rate.offer(self._mean_rate(t_ns, view.signals[g.IC1_IONS]), t_ns)

    def _mean_rate(self, t_ns: int, ions: float) -> float:
        """Ions of chamber 1 since the last call over the time since, ions/s."""
        before, self._rate_from = self._rate_from, (t_ns, ions)
        if before is None or t_ns <= before[0]:
            return 0.0
        rate = (ions - before[1]) * NS_PER_S / (t_ns - before[0])
        return rate if math.isfinite(rate) else math.nan
