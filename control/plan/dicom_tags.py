"""Typed look-ups in a DICOM dataset: the value, or one PlanError that names the tag and the place."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from control.plan.dicom_bytes import UNREADABLE
from control.plan.model import FloatArray
from facility.errors import PlanError

_FIX = "export the plan again from the planning system"


def tag_name(keyword: str) -> str:
    """`BeamNumber (300A,00C0)` for `BeamNumber`."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        return keyword
    return f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def value_of(dataset: Dataset, keyword: str, where: str) -> Any:
    """The raw value, None when absent or empty. Raises PlanError when the bytes hold no value of that kind."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = dataset.get(keyword)
            return None if value is None or (isinstance(value, str) and not value.strip()) else value
    except UNREADABLE as error:
        raise _bad(keyword, where, f"cannot be read ({error})") from error


def number(dataset: Dataset, keyword: str, where: str) -> float:
    """A finite number that has to be there."""
    value = optional_number(dataset, keyword, where)
    if value is None:
        raise _missing(keyword, where)
    return value


def optional_number(dataset: Dataset, keyword: str, where: str) -> float | None:
    """A finite number, None when absent or empty."""
    value = value_of(dataset, keyword, where)
    if value is None:
        return None
    try:
        result = float(value)
    except UNREADABLE as error:
        raise _bad(keyword, where, f"is {str(value)[:60]!r}, not one number") from error
    if not math.isfinite(result):
        raise _bad(keyword, where, f"is {result}")
    return result


def integer(dataset: Dataset, keyword: str, where: str) -> int:
    """A whole number that has to be there."""
    value = number(dataset, keyword, where)
    if value != int(value):
        raise _bad(keyword, where, f"is {value:g}, not a whole number")
    return int(value)


def optional_integer(dataset: Dataset, keyword: str, where: str) -> int | None:
    """A whole number, None when absent or empty."""
    return None if value_of(dataset, keyword, where) is None else integer(dataset, keyword, where)


def text(dataset: Dataset, keyword: str, where: str, default: str = "") -> str:
    """A string without surrounding blanks; `default` when absent or empty."""
    value = value_of(dataset, keyword, where)
    try:
        return default if value is None else str(value).strip()
    except UNREADABLE as error:
        raise _bad(keyword, where, "is no text") from error


def required_text(dataset: Dataset, keyword: str, where: str) -> str:
    """A string that has to be there."""
    value = text(dataset, keyword, where)
    if not value:
        raise _missing(keyword, where)
    return value


def numbers(dataset: Dataset, keyword: str, where: str) -> FloatArray:
    """A list of numbers, shape (n,), that has to be there; one number alone comes from pydicom as a bare float."""
    value = value_of(dataset, keyword, where)
    if value is None:
        raise _missing(keyword, where)
    try:
        array = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except UNREADABLE as error:
        raise _bad(keyword, where, "is no list of numbers") from error
    if array.ndim != 1:
        raise _bad(keyword, where, "is no plain list of numbers")
    return array


def optional_numbers(dataset: Dataset, keyword: str, where: str) -> FloatArray | None:
    """A list of numbers, shape (n,), or None when absent or empty."""
    value = value_of(dataset, keyword, where)
    if value is None or (hasattr(value, "__len__") and len(value) == 0):
        return None
    return numbers(dataset, keyword, where)


def items(dataset: Dataset, keyword: str, where: str, *, required: bool = True) -> list[Dataset]:
    """The items of a sequence; an empty list when absent and not required."""
    value = value_of(dataset, keyword, where)
    try:
        found = [] if value is None else list(value)
    except UNREADABLE as error:
        raise _bad(keyword, where, "is no sequence") from error
    if any(not isinstance(item, Dataset) for item in found):
        raise _bad(keyword, where, "is no sequence")
    if required and not found:
        raise _missing(keyword, where)
    return found


def _missing(keyword: str, where: str) -> PlanError:
    return PlanError("plan.missing-tag", f"{tag_name(keyword)} is missing", where, _FIX)


def _bad(keyword: str, where: str, what: str) -> PlanError:
    return PlanError("plan.bad-tag", f"{tag_name(keyword)} {what}", where, _FIX)
