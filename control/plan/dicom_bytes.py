"""Bytes to a pydicom dataset, with one promise: bad bytes end in a PlanError, never in anything else.

pydicom stops quietly at the end of a truncated file and hands back what it has. A plan that lacks its last beam looks
complete then, so the top level of the file is walked first and has to end exactly where the file ends
(DICOM PS3.5, sections 7.1 and 7.5; PS3.10, section 7.1).
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from facility.errors import PlanError

PREAMBLE_BYTES = 128
IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
MAX_DEPTH = 16
_UNDEFINED = 0xFFFFFFFF
_LONG_VR = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

#: What pydicom raises, measured by feeding it broken files; reading converts each into a PlanError.
UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    EOFError,
    OSError,
    NotImplementedError,
    RecursionError,
    MemoryError,
    LookupError,
    AssertionError,
    struct.error,
    InvalidDicomError,
    BytesLengthException,
)


class _BrokenError(Exception):
    """The walk met something that no DICOM file holds; becomes a PlanError."""


@dataclass(frozen=True)
class _Header:
    tag: int
    vr: bytes
    length: int
    start: int


def load_dataset(data: bytes, name: str) -> Dataset:
    """The dataset in `data`; `name` is used in messages. Raises PlanError for anything that is not whole DICOM."""
    if len(data) < PREAMBLE_BYTES + 4 or data[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] != b"DICM":
        raise PlanError(
            "plan.not-dicom",
            "no DICOM file: the letters DICM are not at byte 128",
            name,
            "give a DICOM RT Ion Plan or a TRiP98 .rst file",
        )
    try:
        _verify_whole(data)
    except _BrokenError as error:
        raise PlanError(
            "plan.truncated", f"the file is truncated or damaged: {error}", name, "transfer the file again"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(data))
    except UNREADABLE as error:
        raise PlanError("plan.unreadable", f"cannot be read: {error}", name, "transfer the file again") from error
    return dataset


def _verify_whole(data: bytes) -> None:
    position, syntax = _walk_meta(data)
    if syntax not in (IMPLICIT_LE, EXPLICIT_LE):
        raise _BrokenError(f"transfer syntax {syntax!r}, only little endian without compression is read")
    explicit = syntax == EXPLICIT_LE
    while position < len(data):
        position = _skip_element(data, position, explicit, 0)


def _walk_meta(data: bytes) -> tuple[int, str]:
    """End of the file meta group (always explicit little endian) and the transfer syntax it names."""
    position = PREAMBLE_BYTES + 4
    syntax = ""
    while position + 2 <= len(data) and struct.unpack_from("<H", data, position)[0] == 0x0002:
        header = _header(data, position, explicit=True)
        end = _skip_element(data, position, True, 0)
        if header.tag == 0x00020010:
            syntax = data[header.start : end].rstrip(b"\0 ").decode("ascii", "replace")
        position = end
    return position, syntax


def _header(data: bytes, position: int, *, explicit: bool) -> _Header:
    try:
        group, element = struct.unpack_from("<HH", data, position)
        tag = (group << 16) | element
        if not explicit or group == 0xFFFE:
            (length,) = struct.unpack_from("<I", data, position + 4)
            return _Header(tag, b"", length, position + 8)
        vr = data[position + 4 : position + 6]
        if not (vr.isalpha() and vr.isupper()):
            raise _BrokenError(f"unknown value representation {vr!r} at byte {position}")
        if vr in _LONG_VR:
            (length,) = struct.unpack_from("<I", data, position + 8)
            return _Header(tag, vr, length, position + 12)
        (length,) = struct.unpack_from("<H", data, position + 6)
        return _Header(tag, vr, length, position + 8)
    except struct.error as error:
        raise _BrokenError(f"the file ends inside the element at byte {position}") from error


def _skip_element(data: bytes, position: int, explicit: bool, depth: int) -> int:
    header = _header(data, position, explicit=explicit)
    if header.tag >> 16 == 0xFFFE:
        raise _BrokenError(f"a delimiter without its sequence at byte {position}")
    if header.length == _UNDEFINED:
        inner_explicit = explicit and header.vr != b"UN"
        return _skip_items(data, header.start, inner_explicit, depth + 1)
    return _bounded(data, header, position)


def _bounded(data: bytes, header: _Header, position: int) -> int:
    end = header.start + header.length
    if end > len(data):
        tag = f"({header.tag >> 16:04X},{header.tag & 0xFFFF:04X})"
        raise _BrokenError(f"element {tag} at byte {position} needs {end - len(data)} bytes more than there are")
    return end


def _skip_items(data: bytes, position: int, explicit: bool, depth: int) -> int:
    """Past the items of a sequence of undefined length, to after its delimiter."""
    if depth > MAX_DEPTH:
        raise _BrokenError(f"sequences nested deeper than {MAX_DEPTH}")
    while True:
        header = _header(data, position, explicit=explicit)
        if header.tag == _SEQUENCE_END:
            return header.start
        if header.tag != _ITEM:
            raise _BrokenError(f"no item where a sequence needs one, at byte {position}")
        if header.length == _UNDEFINED:
            position = _skip_open_item(data, header.start, explicit, depth)
        else:
            position = _bounded(data, header, position)


def _skip_open_item(data: bytes, position: int, explicit: bool, depth: int) -> int:
    while True:
        header = _header(data, position, explicit=explicit)
        if header.tag == _ITEM_END:
            return header.start
        position = _skip_element(data, position, explicit, depth)
