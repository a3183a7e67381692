"""What the machine says, decoded: states of front end and ring, and a load in the dose register."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from control.layer_table import FloatArray
from facility.pv_catalogue import FE_STATUS, RING_STATUS
from facility.states import FrontEndState, HoldReason, RingPhase

_FE = {name: i for i, name in enumerate(FE_STATUS)}
_RING = {name: i for i, name in enumerate(RING_STATUS)}


@dataclass(frozen=True, slots=True)
class FeStatus:
    """FE:Status-RB, decoded."""

    seq: int
    state: FrontEndState
    hold_reason: HoldReason
    token: int
    spots: int
    done_spots: int
    ic1_ions: float
    permit: bool
    beam_us: float
    first_rule: int
    permit_epoch: int
    """Changes of the permit, away or back."""
    backup_ions: float
    """Of a layer that is done, by the backup counter."""
    t_ns: int
    """Facility time the server stamped."""

    @staticmethod
    def of(value: npt.NDArray[Any], t_ns: int) -> FeStatus:
        """From the waveform and its stamp."""
        v = value.tolist()
        return FeStatus(
            seq=int(v[_FE["seq"]]),
            state=FrontEndState(int(v[_FE["state"]])),
            hold_reason=HoldReason(int(v[_FE["hold_reason"]])),
            token=int(v[_FE["token"]]),
            spots=int(v[_FE["spots"]]),
            done_spots=int(v[_FE["done_spots"]]),
            ic1_ions=v[_FE["ic1_ions"]],
            permit=v[_FE["permit"]] == 1.0,
            beam_us=v[_FE["beam_us"]],
            first_rule=int(v[_FE["first_rule"]]),
            permit_epoch=int(v[_FE["permit_epoch"]]),
            backup_ions=v[_FE["backup_ions"]],
            t_ns=t_ns,
        )


@dataclass(frozen=True, eq=False)
class Dose:
    """One load in the front end's dose register."""

    token: int
    field: int
    """`facility.ids.field_number` of the session."""
    plan_hash: str
    table_crc32: int
    """Of the table of that load: it says what counted as delivered before."""
    spot: int
    """The spot under way when it was written last; -1 before the first."""
    uncertain_ions: float
    """Ions at most that came and are in no row: at that spot, or at those right behind it."""
    rows: FloatArray
    """(n, len(REGISTER_COLUMNS)), of that load alone; done is -1 where nothing sure is known of a spot."""
    seq: int
    power_lost: bool = False
    """The power has failed since: what was loaded last may never have reached the disk, and then it had no beam."""


_STRETCHES = (RingPhase.INJECTION, RingPhase.FLAT_TOP, RingPhase.ENERGY_STEP, RingPhase.DUMP, RingPhase.FAULT)
"""First phases of the stretches of a cycle that control tells apart."""


@dataclass(frozen=True, slots=True)
class RingStatus:
    """RING:Status-RB, decoded."""

    phase: RingPhase
    token: int
    energy_code: int
    cycle: int

    @staticmethod
    def of(value: npt.NDArray[Any]) -> RingStatus:
        """From the waveform."""
        v = value.tolist()
        return RingStatus(
            RingPhase(int(v[_RING["phase"]])),
            int(v[_RING["token"]]),
            int(v[_RING["energy_code"]]),
            int(v[_RING["cycle"]]),
        )

    @property
    def decisive(self) -> tuple[int, ...]:
        """What control decides by: whether the ring rests, prepares, has beam to give or comes down, not each phase."""
        return self.token, self.energy_code, self.cycle, sum(self.phase >= first for first in _STRETCHES)
