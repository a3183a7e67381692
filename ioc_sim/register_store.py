"""Where the dose register lies: words of memory that outlive the plant's process, and how they are read afterwards.

One image of int64 words, in pages of 4096 bytes so that no two records share one: a header, two layer records (the
present load's and the one before, with the plan's hash), two slots, two banks of rows, the table of the fields.

What is safe when:

- **The process dies** (kill -9, a crash, at any instruction): everything that was written.  The mapped file lies in the
  memory of the operating system; nothing has to be synchronised for that.
- **The power fails**: what had been synchronised.  The points are named in `SyncPoint`: a layer is loaded, it is armed,
  it ends or stops, a lease is renewed.  Between them beam is only delivered within the lease: the ions up to which the
  front end goes on without a new synchronisation.  Whoever reads a register after a loss of power counts the rest of
  the lease as delivered.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from facility.errors import ConfigError
from facility.pv_catalogue import MAX_SPOTS_PER_LAYER
from facility.states import FrontEndState
from ioc_sim import dose_register as reg
from ioc_sim.field_table import FIELD_ROW_WORDS, MOST_FIELDS, PLACE_WORDS

Words = NDArray[np.int64]

PAGE_WORDS = 512
MAGIC = 0x494F4E52454749  # "IONREGI"
VERSION = 2
HEADER, LAYERS, SLOTS, ROWS = 0, PAGE_WORDS, 3 * PAGE_WORDS, 5 * PAGE_WORDS
BANK_WORDS = MAX_SPOTS_PER_LAYER * reg.ROW_WORDS
FIELDS = ROWS + 2 * BANK_WORDS
IMAGE_WORDS = FIELDS + MOST_FIELDS * FIELD_ROW_WORDS
# words of the header
H_MAGIC, H_VERSION, H_BOOT, H_CHECK = range(4)
# words of a layer record
(L_LOAD, L_TOKEN, L_FIELD, L_ENERGY, L_LEVEL, L_SPOTS, L_TABLE_CRC, L_T_NS, L_HASH0, L_HASH1, L_HASH2, L_HASH3,
 L_FIELD_END, L_CHECK) = range(14)  # fmt: skip


class SyncPoint(Enum):
    """When the register is synchronised with what survives a loss of power."""

    LOADED = "loaded"
    ARMED = "armed"
    STOPPED = "stopped"
    """Layer done, held, paused, aborted or disarmed, or a fast rule has tripped."""
    LEASE = "lease"
    CLOSED = "closed"


class RegisterStore(Protocol):
    """Memory for the image."""

    @property
    def words(self) -> Words:
        """The image, int64, shape (IMAGE_WORDS,), writable."""

    @property
    def power_lost(self) -> bool:
        """The power has failed since the image was last written: it may be older than what was delivered."""

    @property
    def durable(self) -> bool:
        """Whether a loss of power is survived at all; without it there is no lease."""

    def sync(self, point: SyncPoint) -> None:
        """Bring the image to where a loss of power spares it.  OSError if that fails, or if the system has failed at
        it on its own since the last time."""

    def touch(self) -> None:
        """Have the next `sync` write the whole image: after a failed one nobody knows what the medium has, and the
        system takes pages that it could not write for written.  Nobody may write in the meantime."""


class MemoryStore:
    """For virtual time: the same words in plain memory, that a next plant can be given; the power never fails.

    Args:
        words: what an earlier process has left.
        durable: a twin of a plant with a durable register holds the beam where that one does.
    """

    power_lost = False

    def __init__(self, words: Words | None = None, durable: bool = False) -> None:
        self.words: Words = np.zeros(IMAGE_WORDS, dtype=np.int64) if words is None else words
        self.durable = durable

    def sync(self, point: SyncPoint) -> None:
        """Nothing to do."""

    def touch(self) -> None:
        """Nothing to do."""

    def copy(self) -> MemoryStore:
        """What a next process finds if this one dies now."""
        return MemoryStore(self.words.copy())


def is_sound(words: Words, k: int, n: int) -> bool:
    """Whether record k is whole; its checksum is word n."""
    with np.errstate(over="ignore"):
        return int(words[k, n]) == int(reg.checksum(words, k, n))


class Banks:
    """The image as the kernel takes it."""

    def __init__(self, store: RegisterStore) -> None:
        self.store = store
        words = store.words
        self.layers = words[LAYERS:SLOTS].reshape(2, PAGE_WORDS)
        self.slots = words[SLOTS:ROWS].reshape(2, PAGE_WORDS)
        self.fields = words[FIELDS:].reshape(MOST_FIELDS, 2, PLACE_WORDS)
        self._rows = words[ROWS:FIELDS].reshape(2, MAX_SPOTS_PER_LAYER, reg.ROW_WORDS)

    def rows(self, load: int) -> Words:
        """Rows of a load, int64 (MAX_SPOTS_PER_LAYER, ROW_WORDS)."""
        rows: Words = self._rows[load & 1]
        return rows

    def begin(self, load: int, layer: LoadedLayer) -> None:
        """A layer has been loaded: its record, and rows that are nobody's."""
        self.rows(load)[: layer.spots] = 0
        record, k = self.layers, load & 1
        record[k, :L_CHECK] = (
            load, layer.token, layer.field, layer.energy_code, round(layer.level_ions_per_s * 1e3), layer.spots,
            layer.table_crc32, layer.t_ns, *(int(word) for word in _hash_words(layer.plan_hash)),
            reg.thousandths(layer.field_end_ions),
        )  # fmt: skip
        with np.errstate(over="ignore"):
            record[k, L_CHECK] = reg.checksum(record, k, L_CHECK)


def is_plan_hash(text: str) -> bool:
    """64 hex digits, lower case."""
    return len(text) == 64 and all(digit in "0123456789abcdef" for digit in text)


def _hash_words(plan_hash: str) -> NDArray[np.int64]:
    """64 hex digits as 4 words; zeros where there is no hash."""
    return np.frombuffer(bytes.fromhex(plan_hash.rjust(64, "0")), dtype=">i8")


@dataclass(frozen=True)
class LoadedLayer:
    """What a layer record says."""

    token: int
    plan_hash: str
    """64 hex digits, or empty."""
    field: int
    energy_code: int
    level_ions_per_s: float
    spots: int
    table_crc32: int
    """Of the layer table, float64, little-endian: it says what was delivered before this load, too."""
    t_ns: int
    field_end_ions: float
    """Counter of the field where the layer is complete."""


@dataclass(frozen=True)
class DoseRecord:
    """What a register says of one load of a layer.  Ions are of this load alone."""

    seq: int
    t_ns: int
    load: int
    layer: LoadedLayer
    state: FrontEndState
    spot: int
    """The open spot, or the last one; -1 before the first."""
    counts: tuple[float, float]
    """Cumulative counts of both chambers; NaN where unknown."""
    backup_counts: float
    field: int
    """The field that was open, be it that of the layer or not; 0: none."""
    timer_s: float
    """Its own timer; NaN where unknown."""
    field_ions: float
    """Its ions by the backup counter, at most 1 ms old; NaN where unknown."""
    beam_s: float
    ions: NDArray[np.float64]
    """By spot and chamber, (n, 2); NaN where unknown."""
    centre_mm: NDArray[np.float64]
    """By the strip chamber, (n, 2); zeros where it saw nothing."""
    beam_us: NDArray[np.float64]
    t_end_ns: NDArray[np.float64]
    done: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    """Spots of which nothing sure is known: a torn row; all of them must count as delivered."""
    uncertain_ions: float
    """Ions at most that crossed and are not in `ions`; they came at the open spot or right after it."""
    previous: bool
    """It is that of the load before the present one."""
    power_lost: bool
    """The power has failed since it was written."""


def read_records(store: RegisterStore) -> tuple[DoseRecord, ...]:
    """What the image says of the present load and, behind it, of the one before; empty if nothing was ever loaded.

    A torn slot is passed over for the other one, which is whole.  ConfigError 'register.torn' if neither is: then
    the medium itself has failed, and nothing in it is believed.
    """
    banks = Banks(store)
    slots = [k for k in range(2) if banks.slots[k].any()]
    whole = [k for k in slots if is_sound(banks.slots, k, reg.CHECK)]
    if not slots:
        return ()
    if not whole:
        raise ConfigError("register.torn", "both slots of the dose register are damaged", "dose register",
                          "count the whole layer as delivered; find out what has become of the medium")  # fmt: skip
    slot = banks.slots[max(whole, key=lambda k: int(banks.slots[k, reg.SEQ]))]
    load = int(slot[reg.LOAD])
    found = [_record(banks, slot, load, store.power_lost), _earlier(banks, slot, load - 1, store.power_lost)]
    return tuple(record for record in found if record is not None)


def _layer(banks: Banks, load: int) -> LoadedLayer | None:
    k = load & 1
    words = banks.layers[k]
    if load <= 0 or int(words[L_LOAD]) != load or not is_sound(banks.layers, k, L_CHECK):
        return None
    plan_hash = words[L_HASH0 : L_HASH3 + 1].astype(">i8").tobytes().hex()
    return LoadedLayer(
        token=int(words[L_TOKEN]), plan_hash=plan_hash if plan_hash.strip("0") else "", field=int(words[L_FIELD]),
        energy_code=int(words[L_ENERGY]), level_ions_per_s=int(words[L_LEVEL]) * 1e-3, spots=int(words[L_SPOTS]),
        table_crc32=int(words[L_TABLE_CRC]), t_ns=int(words[L_T_NS]),
        field_end_ions=float(reg.thousandths_read(words[[L_FIELD_END]])[0]),
    )  # fmt: skip


def _record(banks: Banks, slot: Words, load: int, power_lost: bool) -> DoseRecord | None:
    layer = _layer(banks, load)
    if layer is None and power_lost:
        return None  # it was never synchronised, so it had no lease: nothing of it was delivered
    if layer is None:
        raise ConfigError("register.torn", f"the layer record of load {load} is damaged", "dose register",
                          "count the whole layer as delivered")  # fmt: skip
    spots = _Spots.read(banks, load, layer.spots)
    open_spot, state = int(slot[reg.SPOT]), FrontEndState(int(slot[reg.STATE]) & (1 << reg.FIELD_BITS) - 1)
    if 0 <= open_spot < layer.spots and not spots.done[open_spot]:
        extra = reg.thousandths_read(slot[[reg.IC1, reg.IC2]])
        cut = state == FrontEndState.ABORTED
        if cut or FrontEndState.ARMED <= state <= FrontEndState.PAUSED:
            # the slot has all of it; a row of the spot comes when it ends, and may be older after an ABORT
            spots.ions[open_spot] = extra
            spots.unknown[open_spot] = bool(np.isnan(extra).any())
        else:
            spots.ions[open_spot] += extra
    uncertain = float(reg.thousandths_read(slot[[reg.UNCERTAIN]])[0])
    lease = int(slot[reg.LEASE])
    if power_lost:  # the slot may have reached the disk before rows of spots that it has left behind
        behind = layer.spots if state == FrontEndState.DONE else max(open_spot, 0)
        spots.unknown[:behind] |= ~spots.done[:behind]
    if power_lost and lease != reg.NO_LEASE and state not in (FrontEndState.DONE, FrontEndState.ABORTED):
        uncertain += max(lease, 0) * 1e-3
    return _made(slot, load, layer, spots, state, open_spot, uncertain, power_lost, previous=False)


def _earlier(banks: Banks, slot: Words, load: int, power_lost: bool) -> DoseRecord | None:
    """The load before: a layer is loaded only after the one before has come to rest, so that its rows are final; after
    a loss of power those that say that a spot is done are."""
    layer = _layer(banks, load)
    if layer is None:
        return None
    spots = _Spots.read(banks, load, layer.spots)
    if power_lost:
        spots.unknown |= ~spots.done
    state = FrontEndState.DONE if bool(spots.done.all()) else FrontEndState.ABORTED
    return _made(slot, load, layer, spots, state, -1, 0.0, power_lost, previous=True)


@dataclass
class _Spots:
    ions: NDArray[np.float64]
    centre_mm: NDArray[np.float64]
    beam_us: NDArray[np.float64]
    t_end_ns: NDArray[np.float64]
    done: NDArray[np.bool_]
    unknown: NDArray[np.bool_]

    @staticmethod
    def read(banks: Banks, load: int, n: int) -> _Spots:
        rows = banks.rows(load)[:n]
        written: NDArray[np.bool_] = np.asarray(rows.any(axis=1), dtype=np.bool_)
        sound = np.array([written[i] and is_sound(rows, i, reg.ROW_CHECK) for i in range(n)], dtype=np.bool_)
        mine = sound & (rows[:, reg.ROW_LOAD] >> 1 == load)
        kept = np.where(mine[:, None], rows, 0)
        ions = reg.thousandths_read(kept[:, [reg.ROW_IC1, reg.ROW_IC2]])
        return _Spots(
            ions=ions,
            centre_mm=reg.thousandths_read(kept[:, [reg.ROW_X_NM, reg.ROW_Y_NM]]) * 1e-3,
            beam_us=kept[:, reg.ROW_BEAM_TICKS] * 10.0,
            t_end_ns=kept[:, reg.ROW_END_NS].astype(np.float64),
            done=(kept[:, reg.ROW_LOAD] & 1).astype(bool),
            unknown=(written & ~mine) | np.isnan(ions).any(axis=1),
        )


def _made(
    slot: Words, load: int, layer: LoadedLayer, spots: _Spots, state: FrontEndState, spot: int, uncertain: float,
    power_lost: bool, *, previous: bool,
) -> DoseRecord:  # fmt: skip
    counts = [float("nan") if int(word) == reg.UNKNOWN else float(word) for word in
              slot[[reg.COUNTS1, reg.COUNTS2, reg.BACKUP]]]  # fmt: skip
    field_ions, timer_ms = (float(one) for one in reg.thousandths_read(slot[[reg.FIELD_IONS, reg.TIMER_US]]))
    return DoseRecord(
        seq=int(slot[reg.SEQ]), t_ns=int(slot[reg.T_NS]), load=load, layer=layer, state=state, spot=spot,
        counts=(counts[0], counts[1]), backup_counts=counts[2], field=int(slot[reg.STATE]) >> reg.FIELD_BITS,
        timer_s=timer_ms * 1e-3, field_ions=field_ions,
        beam_s=int(slot[reg.BEAM_TICKS]) * 1e-5, ions=spots.ions, centre_mm=spots.centre_mm, beam_us=spots.beam_us,
        t_end_ns=spots.t_end_ns, done=spots.done, unknown=spots.unknown, uncertain_ions=uncertain, previous=previous,
        power_lost=power_lost,
    )  # fmt: skip
