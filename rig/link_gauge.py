"""How long an end of the link waits for the next good frame: what its watchdog sees, measured all the while."""

from __future__ import annotations

from dataclasses import dataclass

NS_PER_MS = 1_000_000
WINDOW_NS = 1_000 * NS_PER_MS
_BIN_NS = NS_PER_MS // 2
_BINS = 1_000


@dataclass(frozen=True)
class GaugeReading:
    """Gaps between good frames, ms of wall time."""

    window_ms: float
    """Longest in the last whole second, or now if nothing has come for longer."""
    worst_ms: float
    """Longest since the link first came up."""
    p999_ms: float
    """99.9 of 100 gaps are at most this long; to half a millisecond."""
    windows: int
    """Whole seconds measured."""

    def values(self, watchdog_ms: float, bad_frames: int, trips: int) -> tuple[float, ...]:
        """LINK_STATUS without seq, for the PVs."""
        rounded = [round(value, 1) for value in (self.window_ms, self.worst_ms, self.p999_ms)]
        return (*rounded, watchdog_ms, float(self.windows), float(bad_frames), float(trips))


class LinkGauge:
    """Gaps between good frames. Times in ns of any clock that never goes back; one thread writes, others read."""

    def __init__(self) -> None:
        self._last_ns: int | None = None
        self._window_ends_ns = 0
        self._in_window_ns = 0
        self._window_ns = 0
        self._worst_ns = 0
        self._frames = self._windows = 0
        self._bins = [0] * _BINS

    def heard(self, now_ns: int) -> None:
        """A good frame has come."""
        last_ns, self._last_ns = self._last_ns, now_ns
        if last_ns is None:
            self._window_ends_ns = now_ns + WINDOW_NS
            return
        gap_ns = now_ns - last_ns
        self._frames += 1
        self._bins[min(gap_ns // _BIN_NS, _BINS - 1)] += 1
        self._worst_ns = max(self._worst_ns, gap_ns)
        self._in_window_ns = max(self._in_window_ns, gap_ns)
        if now_ns >= self._window_ends_ns:
            self._window_ns, self._in_window_ns = self._in_window_ns, 0
            self._window_ends_ns = now_ns + WINDOW_NS
            self._windows += 1

    def reading(self, now_ns: int) -> GaugeReading:
        """As it stands; a silence that lasts longer than a window counts as one."""
        silence_ns = 0 if self._last_ns is None else max(0, now_ns - self._last_ns)
        silence_ns = silence_ns if silence_ns > WINDOW_NS else 0
        return GaugeReading(
            max(self._window_ns, silence_ns) / NS_PER_MS,
            max(self._worst_ns, silence_ns) / NS_PER_MS,
            self._percentile(0.999) / NS_PER_MS,
            self._windows,
        )

    def _percentile(self, share: float) -> int:
        wanted, seen = share * self._frames, 0
        for index, count in enumerate(self._bins):
            seen += count
            if count and seen >= wanted:
                return min((index + 1) * _BIN_NS, self._worst_ns)
        return 0
