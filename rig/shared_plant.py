"""A plant that two threads share: one advances it in step with the wall clock, the other serves its PVs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from facility.errors import InternalError
from ioc_sim.plant import Plant, check_ring

_NAMES = (
    "advance", "take_events", "request_cycle", "end_cycle", "open_field", "load_layer", "arm", "disarm", "pause",
    "resume", "insert_range_shifters", "set_room_beam", "set_safety_lines", "reset_fast", "set_door",
    "press_search", "prove", "press_estop", "release_estop", "set_gating",
    "turn_key", "set_late_ms", "external_reading", "external_lost", "external_slip", "external_wanted",
    "external_states", "layer_set_points_a", "output_lines",
    "image", "watch_image", "read", "register",
    "dose_records", "touch_register", "ask_lease", "grant_lease", "truth_spots", "inject", "clear_faults",
)  # fmt: skip
_PROPERTIES = ("t_ns", "status", "beam_on_s", "truth_count", "truth_total_ions", "range_shifter_asked")


class SharedPlant(Plant):
    """A `Plant` whose every call holds `lock`; hold it yourself around what belongs together."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.lock = threading.RLock()
        super().__init__(*args, **kwargs)

    def write_trace_to(self, ring: NDArray[Any]) -> None:
        """Let the kernel write the truth into this ring of `TRUTH_DTYPE` from now on; before the first beam only."""
        with self.lock:
            if self.truth_count:
                raise InternalError("plant.trace", "the truth has begun to be written elsewhere", "SharedPlant")
            check_ring(ring)
            self.trace = ring
            self._bind()


def _locked(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(self: SharedPlant, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            return function(self, *args, **kwargs)

    return call


def _lock_all() -> None:
    for name in _NAMES:
        setattr(SharedPlant, name, _locked(getattr(Plant, name)))
    for name in _PROPERTIES:
        getter = getattr(Plant, name).fget
        setattr(SharedPlant, name, property(_locked(getter)))


_lock_all()
