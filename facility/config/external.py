"""Models of what somebody else's hardware stands for: devices behind an external IOC, and digital lines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from facility.config.base import Fraction, Section

PvPart = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:<>\[\]-]{1,60}$")]
Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,60}:[0-9]{1,5}$")]
Mode = Literal["per_spot", "table", "constant", "none"]


class ExternalDevice(Section):
    """A device served by an IOC that is not ours.

    PV names are `prefix` followed by `setpoint`, `readback` and so on; `address` is host:port of its Channel Access
    server. `unit` is that of set point, table and readback.

    - `mode`: how it is set. `per_spot`: the set point is put for each spot. `table`: the set points of a layer are put
      as one waveform (`table`), and for each spot its index, from 0, to `trigger`. `constant`: put once and after each
      reconnection. `none`: read only.
    - `max_age_ms`: the timing contract, A: no reading may be older. `stamp` says from when its age counts: `arrival`
      at the rack, or the time that the `server` wrote on it (both clocks must then be synchronised).
    - `readbacks`: so many readings, taken after the device has acknowledged the set point, must lie within the
      position tolerance, one after the other, before there is beam. `settle_ms`: how long that may take.
    - A device has failed when it is not connected, its reading is older than A, not a number, or in alarm at
      `fail_severity` or above, or when `status` is there and does not read `status_good`.
    - `hazard_share`: the part of a layer's lightest spot that may be delivered wrongly before the beam is off.
    """

    prefix: PvPart
    address: Address
    readback: PvPart
    setpoint: PvPart | None = None
    table: PvPart | None = None
    trigger: PvPart | None = None
    status: PvPart | None = None
    status_good: float = 0.0
    unit: Annotated[str, Field(min_length=1, max_length=8)]
    mode: Mode
    max_age_ms: Annotated[float, Field(ge=5.0, le=10_000.0)]
    stamp: Literal["arrival", "server"] = "arrival"
    readbacks: Annotated[int, Field(ge=1, le=100)] = 2
    settle_ms: Annotated[float, Field(gt=0.0, le=2000.0)] = 1000.0
    fail_severity: Literal["MINOR", "MAJOR", "INVALID"] = "INVALID"
    hazard_share: Fraction = 0.5


class DigitalLines(Section):
    """Permit, trip and gate lines of a digital I/O card, apart from Channel Access (`channels.io_lines`).

    `driver`: `udp` sends to `peer` and listens at `listen`, both host:port; `fd` writes to the file `output_path` and
    reads from `input_path` (a device file, a serial line, a pipe). `inputs` are the lines that are wired; `max_age_ms`
    is how old what they say may be. A line that is not wired is not judged.
    """

    driver: Literal["udp", "fd"]
    inputs: tuple[Literal["permit", "trip", "gate"], ...] = ()
    max_age_ms: Annotated[float, Field(ge=5.0, le=1000.0)]
    listen: Address | None = None
    peer: Address | None = None
    input_path: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    output_path: Annotated[str, Field(min_length=1, max_length=200)] | None = None
