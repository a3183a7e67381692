"""What the soft IOCs need of a plant; `ioc_sim.plant.Plant` has it, and so do fakes in tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from facility.config import Facility
from facility.energy_table import EnergyTable
from facility.states import FrontEndState, HoldReason, RingPhase

if TYPE_CHECKING:
    from ioc_sim.register_store import DoseRecord


class StatusPort(Protocol):
    """`ioc_sim.plant.PlantStatus`, as far as it is published."""

    @property
    def phase(self) -> RingPhase:
        """Phase of the ring."""

    @property
    def ring_token(self) -> int:
        """Layer token of the cycle in the ring."""

    @property
    def energy_code(self) -> int:
        """Energy of the cycle in the ring, -1 if none."""

    @property
    def cycle(self) -> int:
        """Cycles begun."""

    @property
    def stored_ions(self) -> float:
        """Ions in the ring."""

    @property
    def flat_top_ms(self) -> float:
        """What is left of the flat top, ms."""

    @property
    def state(self) -> FrontEndState:
        """State of the front end."""

    @property
    def hold_reason(self) -> HoldReason:
        """Why an armed layer has no beam."""

    @property
    def token(self) -> int:
        """Token of the loaded layer, 0 if none."""

    @property
    def spot(self) -> int:
        """Spot being delivered, -1 if none."""

    @property
    def spots(self) -> int:
        """Spots of the loaded layer."""

    @property
    def done_spots(self) -> int:
        """Spots that are done."""

    @property
    def ic1_ions(self) -> float:
        """Ions by chamber 1 since the layer was loaded."""

    @property
    def ic2_ions(self) -> float:
        """Ions by chamber 2 since the layer was loaded."""

    @property
    def demand(self) -> bool:
        """The front end asks for beam."""

    @property
    def permit(self) -> bool:
        """The permit line of the rack."""

    @property
    def permit_epoch(self) -> int:
        """Changes of the permit line so far."""

    @property
    def beam_us(self) -> float:
        """Beam-demanded time of the layer, us."""

    @property
    def level(self) -> float:
        """Intensity of the loaded layer, ions/s."""

    @property
    def rate(self) -> float:
        """Rate as the front end measures it, ions/s."""

    @property
    def first_rule(self) -> int:
        """First fast rule that latched, -1 if none."""


class EventPort(Protocol):
    """`ioc_sim.plant.PlantEvent`."""

    @property
    def t_ns(self) -> int:
        """Facility time, ns."""

    @property
    def kind(self) -> str:
        """PHASE, LAYER_DONE, HELD, ..."""

    @property
    def data(self) -> Mapping[str, Any]:
        """What belongs to it."""


class PlantPort(Protocol):
    """The plant's commands and what it lets others see.  Commands raise CommandRefused."""

    facility: Facility
    table: EnergyTable
    signals: NDArray[np.float64]
    """See `facility.signals`."""

    @property
    def t_ns(self) -> int:
        """Facility time reached."""

    @property
    def status(self) -> StatusPort:
        """State of ring and front end."""

    def read(self, name: str, index: int = 0) -> float:
        """A raw quantity of the hardware by its name in `ioc_sim.layout`."""

    @property
    def range_shifter_asked(self) -> int:
        """Range shifters that the drive was told to bring in, bit mask."""

    def backup_layer_ions(self) -> float:
        """Ions by the backup counter since the layer was loaded; NaN where nothing is loaded."""

    def register(self) -> NDArray[np.float64]:
        """Per-spot register, (n, len(REGISTER_COLUMNS))."""

    def request_cycle(self, token: int, energy_code: int, transport_set: int) -> None:
        """Queue the next machine cycle, with the transport's set points of this number."""

    def end_cycle(self) -> None:
        """End the flat top."""

    def dose_records(self) -> Sequence[DoseRecord]:
        """The dose register: the present load, then the one before."""

    def open_field(self, field: int, preset_ions: float, expected_ms: float, plan_hash: str = "") -> float:
        """What a field should get over all its layers; the hash of its plan, 64 hex digits. Gives what it has had, ions
        by the backup counter; NaN where nobody knows."""

    def load_layer(
        self,
        token: int,
        energy_code: int,
        level_ions_per_s: float,
        spots: NDArray[np.float64],
        range_shifter_code: int,
        transport_set: int,
    ) -> None:
        """Load a layer table, (n, len(SPOT_COLUMNS)), which range shifters and which set of the transport it wants."""

    def arm(self, token: int, permit_epoch: int) -> None:
        """Arm the loaded layer under the permit of this epoch."""

    def disarm(self) -> None:
        """Take the layer out of action."""

    def pause(self) -> None:
        """Beam off until `resume`."""

    def resume(self, permit_epoch: int) -> None:
        """End a pause under the permit of this epoch."""

    def insert_range_shifters(self, code: int) -> None:
        """Move range shifters, bit mask."""

    def press_search(self, button: str) -> None:
        """Press the search button 'far' or 'exit'."""

    def set_door(self, a_closed: bool, b_closed: bool) -> None:
        """Move the door: both contacts."""

    def press_estop(self) -> None:
        """Press the emergency stop of the room."""

    def release_estop(self) -> None:
        """Let the emergency stop go, at the button."""

    def turn_key(self, position: int) -> None:
        """Turn the mode key switch: 1 clinical, 2 QA, 3 service."""
