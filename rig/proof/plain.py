"""Kernels as plain Python: the same source that is compiled into the rack, run on objects that a proof can count."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

from ioc_sim.layout import STATE_DTYPE

_made: dict[int, Callable[..., Any]] = {}


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel uncompiled, and so everything it calls; a function that is not compiled stays what it is."""
    source = getattr(function, "py_func", None)
    if source is None:
        return function
    known = _made.get(id(function))
    if known is not None:
        return known
    names = dict(source.__globals__)
    made = FunctionType(source.__code__, names, source.__name__, source.__defaults__, source.__closure__)
    _made[id(function)] = made
    for name in source.__code__.co_names:
        if hasattr(names.get(name), "py_func"):
            names[name] = plain(names[name])
    return made


def blank_rack(**values: float) -> Any:
    """The state of a rack with every scalar field 0 but those given."""
    fields = {name: 0 for name in STATE_DTYPE.names or () if STATE_DTYPE[name].shape == ()}
    return SimpleNamespace(**(fields | values))
