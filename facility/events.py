"""Events: what happened, when in facility time, because of what; JSON lines, byte for byte reproducible."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from facility.errors import InternalError
from facility.timebase import Clock

EVENT_SCHEMA = "ionctl.event/1"
_MEMORY_LIMIT = 1_000_000


def canonical_json(obj: object) -> bytes:
    """The one canonical form: UTF-8, sorted keys, no blanks, round-trip floats, no NaN or infinity.

    Hashes and signatures are taken over these bytes. NumPy scalars count as the Python numbers they hold.
    Raises InternalError for what JSON cannot hold.
    """
    try:
        return _ENCODER.encode(obj).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as problem:
        raise InternalError(
            code="json.not-canonical", what=str(problem), where="facility.events.canonical_json"
        ) from problem


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no canonical form")


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    run: str
    """Id of the run."""
    seq: int
    """0-based, rising by one within a log."""
    t_ns: int
    """Facility time, ns."""
    source: str
    """Who says so: 'plant', 'safety', 'control', ..."""
    kind: str
    """What it is, dotted: 'layer.armed', 'interlock.trip', ..."""
    cause_seq: int | None = None
    """Sequence number of the event that caused this one; None where there is none."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What belongs to it; JSON values, units in the key names."""
    schema: str = EVENT_SCHEMA

    def line(self) -> bytes:
        """Canonical JSON with a newline."""
        return (
            canonical_json(
                {
                    "schema": self.schema,
                    "run": self.run,
                    "seq": self.seq,
                    "t_ns": self.t_ns,
                    "source": self.source,
                    "kind": self.kind,
                    "cause_seq": self.cause_seq,
                    "data": self.data,
                }
            )
            + b"\n"
        )


class ByteSink(Protocol):
    """Where lines go: an open binary file, usually."""

    def write(self, data: bytes, /) -> object:
        """Append."""
        ...


class EventLog:
    """Writes events in order. In memory, and to a sink where there is one; the sink is not closed here.

    With a sink, memory keeps the last `memory_limit` events; without one a full memory raises InternalError,
    since events would be lost unseen.
    """

    def __init__(self, run: str, clock: Clock, sink: ByteSink | None = None, memory_limit: int = _MEMORY_LIMIT) -> None:
        self._run = run
        self._clock = clock
        self._sink = sink
        self._memory_limit = memory_limit
        self._events: deque[Event] = deque(maxlen=memory_limit)
        self._next_seq = 0

    def emit(
        self,
        source: str,
        kind: str,
        data: Mapping[str, Any] | None = None,
        *,
        cause_seq: int | None = None,
        t_ns: int | None = None,
    ) -> Event:
        """Log an event at `t_ns` (ns; default: now) and return it; `data` must be JSON values.

        Raises InternalError if `cause_seq` is not the number of an earlier event.
        """
        if cause_seq is not None and not 0 <= cause_seq < self._next_seq:
            raise InternalError(
                code="event.cause",
                what=f"{kind} names event {cause_seq} as its cause",
                where="facility.events",
            )
        when = self._clock.now_ns() if t_ns is None else t_ns
        event = Event(self._run, self._next_seq, when, source, kind, cause_seq, dict(data or {}))
        self._store(event)
        return event

    def _store(self, event: Event) -> None:
        if self._sink is None:
            if len(self._events) >= self._memory_limit:
                raise InternalError(
                    code="event.memory-full", what=f"{self._memory_limit} events", fix="give the log a sink"
                )
        else:
            self._sink.write(event.line())
        self._events.append(event)
        self._next_seq += 1

    @property
    def events(self) -> tuple[Event, ...]:
        """What memory holds, oldest first."""
        return tuple(self._events)

    @property
    def next_seq(self) -> int:
        """Sequence number of the next event."""
        return self._next_seq

    def since(self, seq: int) -> tuple[Event, ...]:
        """Events from sequence number `seq` on."""
        return tuple(event for event in self._events if event.seq >= seq)

    def to_bytes(self) -> bytes:
        """All of memory as JSON lines."""
        return b"".join(event.line() for event in self._events)
