"""libca, as pyepics ships it, on a thread of its own.

Every call that may block is made there, one after the other; libca's own threads deliver connections, monitor
updates and answers to the functions given here. pyepics' PV objects are not used: they wait inside, answer a
put that the server refused with success, keep the channel of a PV that is disconnected, and cost twice as much.
"""

from __future__ import annotations

import ctypes
import functools
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from channels.protocol import Value
from facility.errors import ChannelError
from facility.timebase import from_epics_stamp

_log = structlog.get_logger(__name__)

STRING, SHORT, FLOAT, ENUM, CHAR, LONG, DOUBLE = range(7)
"""Native DBR types."""
_TIME = 14
"""TIME types are the native ones plus this."""
_CTRL_ENUM = 31
_DBE_VALUE_OR_ALARM = 1 | 4
_NORMAL = 1
_OP_CONN_UP = 6
_STRING_SIZE = 40
_ENUM_STRING_SIZE = 26
_JOBS_MAX = 100_000
ECA_NOWTACCESS = 376
_CONNECTED = 2
ECA_DISCONN = 192

DTYPES: dict[int, np.dtype[Any]] = {
    SHORT: np.dtype(np.int16),
    FLOAT: np.dtype(np.float32),
    ENUM: np.dtype(np.uint16),
    CHAR: np.dtype(np.uint8),
    LONG: np.dtype(np.int32),
    DOUBLE: np.dtype(np.float64),
}


@dataclass(frozen=True, slots=True)
class Received:
    """A value as it came: facility time (ns) from the server's stamp."""

    value: Value
    t_ns: int
    severity: int
    status: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What a connected PV is: native DBR type and number of elements."""

    kind: int
    count: int


ConnectionHandler = Callable[[Shape | None], None]
"""Called with the PV's shape when it connects, None when it is lost; on a thread of libca."""
ValueHandler = Callable[[Received], None]
AnswerHandler = Callable[[int, Any], None]
"""Called with the ECA status and what was read; on a thread of libca or of this module."""


class _ConnectionArgs(ctypes.Structure):
    _fields_ = (("chid", ctypes.c_void_p), ("op", ctypes.c_long))


class _EventArgs(ctypes.Structure):
    # pyepics' own has a Python object as `usr`; a number cannot dangle
    _fields_ = (
        ("usr", ctypes.c_void_p),
        ("chid", ctypes.c_void_p),
        ("type", ctypes.c_long),
        ("count", ctypes.c_long),
        ("dbr", ctypes.c_void_p),
        ("status", ctypes.c_int),
    )


class _TimeHead(ctypes.Structure):
    _fields_ = (
        ("status", ctypes.c_int16),
        ("severity", ctypes.c_int16),
        ("seconds", ctypes.c_uint32),
        ("ns", ctypes.c_uint32),
    )


class CaChannel:
    """One channel of libca; its fields belong to the module."""

    def __init__(self, name: str, on_connection: ConnectionHandler, on_value: ValueHandler) -> None:
        self.name = name
        self.on_connection = on_connection
        self.on_value = on_value
        self.token = 0
        self.chid: ctypes.c_void_p | None = None
        self.subscribed = False
        self.count = 1


class LibCa:
    """The process's libca; get it with `libca()`."""

    def __init__(self) -> None:
        self._jobs: queue.Queue[Callable[[], None]] = queue.Queue(_JOBS_MAX)
        self._channels: dict[int, CaChannel] = {}
        self._answers: dict[int, tuple[AnswerHandler, CaChannel, object]] = {}
        self._last_token = 0
        self._lib: Any = None
        self._value_offset: Any = None
        # ctypes callbacks must live as long as libca may call them: for ever
        self._connection_callback = ctypes.CFUNCTYPE(None, _ConnectionArgs)(self._on_connection)
        self._event_callback = ctypes.CFUNCTYPE(None, _EventArgs)(self._on_event)
        self._answer_callback = ctypes.CFUNCTYPE(None, _EventArgs)(self._on_answer)
        threading.Thread(target=self._work, name="libca", daemon=True).start()

    def run(self, job: Callable[[], None]) -> None:
        """Do a job on the libca thread; ChannelError 'channel.busy' if far too many wait."""
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise ChannelError(
                code="channel.busy", what=f"{_JOBS_MAX} requests wait for libca", fix="ask for less at a time"
            ) from None

    def _work(self) -> None:
        from epics import ca, dbr  # loads libca, which reads its environment now

        if ca.libca is None:
            ca.initialize_libca()
        ca.use_initial_context()
        self._lib = ca.libca
        self._lib.ca_puser.restype = ctypes.c_void_p
        self._value_offset = dbr.value_offset
        while True:
            self._do(self._jobs.get())
            for _ in range(self._jobs.qsize()):
                self._do(self._jobs.get())
            self._lib.ca_flush_io()

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:  # noqa: BLE001 - the thread serves every channel and must go on
            _log.exception("libca job failed")

    # what is called from other threads

    def open(self, channel: CaChannel) -> None:
        """Create the channel; its handlers are called from then on, until `close`."""
        channel.token = self._next_token()
        self._channels[channel.token] = channel
        self.run(functools.partial(self._create, channel))

    def subscribe(self, channel: CaChannel, shape: Shape) -> None:
        """Monitor value and alarm; libca itself renews the subscription after a reconnection."""
        self.run(functools.partial(self._subscribe, channel, shape))

    def close(self, channels: list[CaChannel], done: Callable[[], None]) -> None:
        """Clear channels: a PV that is only disconnected stays in libca and delays its next connection."""
        for channel in channels:
            self._channels.pop(channel.token, None)
        self.run(functools.partial(self._clear, list(channels), done))

    def get(self, channel: CaChannel, shape: Shape, answer: AnswerHandler) -> int:
        """Read; the answer is a Received. Returns the request's token, for `forget`."""
        return self._ask(channel, answer, None, self._get, shape.kind + _TIME)

    def get_states(self, channel: CaChannel, answer: AnswerHandler) -> int:
        """Read the names of an enum's states; the answer is a list of strings."""
        return self._ask(channel, answer, None, self._get, _CTRL_ENUM)

    def put(self, channel: CaChannel, kind: int, data: NDArray[Any] | bytes, answer: AnswerHandler) -> int:
        """Write with completion; the answer's status is the server's, nothing is read."""
        return self._ask(channel, answer, data, self._put, kind, data)

    def forget(self, token: int) -> None:
        """Nobody waits for this answer any more."""
        self._answers.pop(token, None)

    # on the libca thread

    def _create(self, channel: CaChannel) -> None:
        chid = ctypes.c_void_p()
        status = self._lib.ca_create_channel(
            channel.name.encode(),
            self._connection_callback,
            ctypes.c_void_p(channel.token),
            0,
            ctypes.byref(chid),
        )
        if status != _NORMAL:
            _log.error("channel not created", pv=channel.name, status=status)
            return
        channel.chid = chid

    def _subscribe(self, channel: CaChannel, shape: Shape) -> None:
        if channel.chid is None or channel.subscribed or channel.token not in self._channels:
            return
        event = ctypes.c_void_p()
        status = self._lib.ca_create_subscription(
            ctypes.c_long(shape.kind + _TIME),
            ctypes.c_ulong(0),  # as many elements as the PV has now
            channel.chid,
            ctypes.c_long(_DBE_VALUE_OR_ALARM),
            self._event_callback,
            ctypes.c_void_p(channel.token),
            ctypes.byref(event),
        )
        channel.subscribed = status == _NORMAL
        if not channel.subscribed:
            _log.error("no subscription", pv=channel.name, status=status)

    def _clear(self, channels: list[CaChannel], done: Callable[[], None]) -> None:
        for channel in channels:
            if channel.chid is not None:
                self._lib.ca_clear_channel(channel.chid)
                channel.chid = None
        self._lib.ca_flush_io()
        done()

    def _ask(
        self, channel: CaChannel, answer: AnswerHandler, keep: object, call: Callable[..., int], *args: Any
    ) -> int:
        token = self._next_token()
        self._answers[token] = answer, channel, keep

        def job() -> None:
            status = ECA_DISCONN if channel.chid is None else call(channel.chid, token, *args)
            if status != _NORMAL:
                self._reply(token, status, None)

        self.run(job)
        return token

    def _get(self, chid: ctypes.c_void_p, token: int, kind: int) -> int:
        count = 1 if kind == _CTRL_ENUM else 0
        return int(
            self._lib.ca_array_get_callback(
                ctypes.c_long(kind),
                ctypes.c_ulong(count),
                chid,
                self._answer_callback,
                ctypes.c_void_p(token),
            )
        )

    def _put(self, chid: ctypes.c_void_p, token: int, kind: int, data: NDArray[Any] | bytes) -> int:
        if not self._lib.ca_write_access(chid):  # nor has a channel whose server has just died
            return ECA_NOWTACCESS if self._lib.ca_state(chid) == _CONNECTED else ECA_DISCONN
        count, pointer = (1, data) if isinstance(data, bytes) else (len(data), ctypes.c_void_p(data.ctypes.data))
        return int(
            self._lib.ca_array_put_callback(
                ctypes.c_long(kind),
                ctypes.c_ulong(count),
                chid,
                pointer,
                self._answer_callback,
                ctypes.c_void_p(token),
            )
        )

    # on threads of libca

    def _on_connection(self, args: Any) -> None:
        chid = ctypes.c_void_p(args.chid)
        channel = self._channels.get(self._lib.ca_puser(chid) or 0)
        if channel is None:
            return
        if args.op == _OP_CONN_UP:
            kind, count = int(self._lib.ca_field_type(chid)), int(self._lib.ca_element_count(chid))
            channel.count = count
            channel.on_connection(Shape(kind, count))
        else:
            channel.on_connection(None)

    def _on_event(self, args: Any) -> None:
        channel = self._channels.get(args.usr or 0)
        if channel is not None and args.status == _NORMAL:
            channel.on_value(self._decode(args, channel))

    def _on_answer(self, args: Any) -> None:
        entry = self._answers.get(args.usr or 0)
        if entry is None:
            return
        result: Any = None
        if args.status == _NORMAL and args.dbr:
            result = _states(args.dbr) if args.type == _CTRL_ENUM else self._decode(args, entry[1])
        self._reply(args.usr or 0, args.status, result)

    def _reply(self, token: int, status: int, result: Any) -> None:
        entry = self._answers.pop(token, None)
        if entry is not None:
            entry[0](status, result)

    def _decode(self, args: Any, channel: CaChannel) -> Received:
        head = _TimeHead.from_address(args.dbr)
        kind = args.type - _TIME
        address = args.dbr + self._value_offset[args.type]
        value = _value(kind, address, args.count, array=channel.count > 1)
        return Received(value, from_epics_stamp(head.seconds, head.ns), head.severity, head.status)

    def _next_token(self) -> int:
        self._last_token += 1
        return self._last_token


def _value(kind: int, address: int, count: int, array: bool) -> Value:
    if kind == STRING:
        return ctypes.string_at(address, _STRING_SIZE).split(b"\0", 1)[0].decode("latin-1")
    dtype = DTYPES[kind]
    data = ctypes.string_at(address, count * dtype.itemsize)
    if kind == CHAR and array:
        return data
    numbers: NDArray[Any] = np.frombuffer(data, dtype=dtype)
    if array:
        return numbers
    return numbers[0].item()  # type: ignore[no-any-return]


def _states(address: int) -> list[str]:
    """Names in a DBR_CTRL_ENUM: status, severity, number of strings (int16 each), 16 strings of 26 bytes."""
    count = ctypes.c_int16.from_address(address + 4).value
    table = ctypes.string_at(address + 6, count * _ENUM_STRING_SIZE)
    rows = (table[i : i + _ENUM_STRING_SIZE] for i in range(0, len(table), _ENUM_STRING_SIZE))
    return [row.split(b"\0", 1)[0].decode("latin-1") for row in rows]


@functools.cache
def libca() -> LibCa:
    """The one libca of this process, started on first use; configure it before (`configure_libca`)."""
    return LibCa()
