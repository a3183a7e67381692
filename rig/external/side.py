"""The rack's side of everything external: hands readings to the plant, set points to devices, lines to the card.

Called by the rack's thread before and after each slice of time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from channels.io_lines import GATE, LINE_BITS, PERMIT, TRIP, FdLines, LineDriver, UdpLines
from channels.libca import libca
from channels.libca_settings import configure_libca
from facility.config import Facility
from facility.config.external import DigitalLines
from facility.errors import ConfigError
from facility.external import LINES, SCANNERS, SLOW, VOLTAGES
from ioc_sim.plant import Plant
from ioc_sim.plant_types import ExternalState, ExternalWanted
from rig.external.device import ExternalLink, Wish
from rig.wall_clock import monotonic_ns


def open_lines(lines: DigitalLines) -> LineDriver:
    """The driver that the facility file names; ChannelError if it cannot be opened."""
    if lines.driver == "udp" and lines.listen is not None and lines.peer is not None:
        return UdpLines(_address(lines.listen), _address(lines.peer), monotonic_ns)
    if lines.driver == "fd" and lines.input_path is not None and lines.output_path is not None:
        return FdLines(lines.input_path, lines.output_path, monotonic_ns)
    raise ConfigError("lines.driver", f"driver {lines.driver!r} without its ends", "lines", "see the facility file")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


class ExternalSide:
    """All external devices of a facility.

    Args:
        facility: with at least one of them.
        plant: that they belong to.
        speed: facility s per wall s.
    """

    def __init__(self, facility: Facility, plant: Plant, speed: float) -> None:
        self._plant = plant
        self._speed = speed
        self._links: list[ExternalLink] = []
        if facility.external:
            configure_libca(sorted({device.address for device in facility.external.values()}))
            ca = libca()
            self._links = [ExternalLink(name, device, ca) for name, device in facility.external.items()]
        self._inputs = 0
        self._lines: LineDriver | None = None
        if facility.lines is not None:
            self._lines = open_lines(facility.lines)
            self._inputs = sum(LINE_BITS[name] for name in facility.lines.inputs)
        self._line_t_ns = 0
        self._shown: dict[str, bool] = {}

    def before(self, target_ns: int, wall_ns: int, slip_ns: int) -> None:
        """Hand over what was read, before the plant is run to `target_ns`, the facility time of `wall_ns`.

        `slip_ns`: facility time by which the pace has slipped since the last call.
        """
        if slip_ns > 0:
            self._plant.external_slip(slip_ns)
        for link in self._links:
            lost, readings = link.take()
            if lost:
                self._plant.external_lost(link.name)
            for one in readings:
                t_ns = target_ns - round((wall_ns - one.wall_ns) * self._speed)
                self._plant.external_reading(link.name, one.value, t_ns, one.good, one.acknowledged)
        self._read_lines(target_ns, wall_ns)

    def _read_lines(self, target_ns: int, wall_ns: int) -> None:
        said = None if self._lines is None else self._lines.read()
        if said is None or said.t_ns == self._line_t_ns:
            return
        self._line_t_ns = said.t_ns
        needed = self._inputs & (PERMIT | TRIP)
        t_ns = target_ns - round((wall_ns - said.t_ns) * self._speed)
        gate = 1.0 if said.bits & GATE else 0.0
        self._plant.external_reading(LINES, gate, t_ns, said.bits & needed == needed, math.nan)

    def after(self) -> None:
        """Tell devices and card what the plant wants now."""
        wanted = self._plant.external_wanted() if self._links else None
        for link in self._links:
            if wanted is not None and link.name not in SLOW:
                link.want(self._wish(link.name, wanted))
        if self._lines is not None:
            permit, no_trip, demand = self._plant.output_lines()
            self._lines.write(PERMIT * permit | TRIP * no_trip | GATE * demand)

    def _wish(self, name: str, wanted: ExternalWanted) -> Wish:
        value = wanted.setpoints[(*SCANNERS, *VOLTAGES).index(name)]
        if name in SCANNERS and wanted.spot >= 0:
            table = self._plant.layer_set_points_a(name)
            if wanted.spot < len(table) and table[wanted.spot] == value:
                return Wish(value, wanted.token, table, wanted.spot)
        return Wish(value)

    def changes(self) -> Iterator[ExternalState]:
        """Devices that have been lost or have come back since the last call."""
        for state in self._plant.external_states():
            ok = state.good and state.in_time
            if self._shown.get(state.device) is not ok:
                self._shown[state.device] = ok
                yield state

    def close(self) -> None:
        """Let go of the card and of libca's channels; the lines are not renewed any more."""
        for link in self._links:
            link.close()
        if self._lines is not None:
            self._lines.close()
