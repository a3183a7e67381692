"""Breathing traces for the gate input: a file format, a reader, and the seeded maker of the sample trace.

The packaged `configs/breathing/free-breathing.csv` is synthetic: breaths after A. E. Lujan et al.,
Med. Phys. 26 (1999) 715 (position = depth x cos^6, a long plateau at end-exhale), with period, depth and
baseline varying from breath to breath. Regenerate it with `python -m facility.breathing FILE`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facility.config import find_config
from facility.constants import BREATHING_SCHEMA
from facility.errors import ConfigError
from facility.physics.relativity import FloatArray

SAMPLE_SEED = 20_240_501
SAMPLE_RATE_HZ = 25.0


@dataclass(frozen=True, eq=False)
class BreathingTrace:
    """Evenly sampled surrogate: times from 0 in s, amplitude in mm (0 = end-exhale), both 1-d, read-only.

    A player repeats it: sample k follows sample k - 1 by `step_s`, and after the last comes the first.
    """

    t_s: FloatArray
    amplitude_mm: FloatArray
    step_s: float

    @property
    def duration_s(self) -> float:
        """Time after which it repeats."""
        return self.step_s * self.t_s.size


def make_trace(seed: int = SAMPLE_SEED, duration_s: float = 120.0) -> tuple[FloatArray, FloatArray]:
    """(t_s, amplitude_mm) of irregular free breathing at 25 Hz; same seed, same trace."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    starts = [0.0]
    while starts[-1] < duration_s:
        starts.append(starts[-1] + float(np.clip(rng.normal(4.0, 0.45), 2.8, 5.5)))
    edges = np.asarray(starts) * (duration_s / starts[-1])  # whole breaths, so that the trace can repeat
    depth = np.clip(rng.normal(12.0, 2.0, edges.size - 1), 6.0, 18.0)
    baseline = np.cumsum(rng.normal(0.0, 0.2, edges.size))
    baseline -= np.linspace(baseline[0], baseline[-1], edges.size)
    breath = np.clip(np.searchsorted(edges, t, side="right") - 1, 0, edges.size - 2)
    phase = (t - edges[breath]) / (edges[breath + 1] - edges[breath])
    position = depth[breath] * np.sin(np.pi * phase) ** 6 + np.interp(t, edges, baseline)
    return t, np.round(position + rng.normal(0.0, 0.08, t.size), 2)


def render_trace(seed: int = SAMPLE_SEED) -> str:
    """Text of the sample file."""
    t, amplitude = make_trace(seed)
    header = [
        f"# schema: {BREATHING_SCHEMA}",
        f"# synthetic free breathing, seed {seed}; 0 mm is end-exhale, positive is inhale",
        "t_s,amplitude_mm",
    ]
    return "\n".join([*header, *(f"{a:.2f},{b:.2f}" for a, b in zip(t, amplitude, strict=True))]) + "\n"


def load_trace(name: str, config_dir: Path | None = None, env: Mapping[str, str] | None = None) -> BreathingTrace:
    """Read `breathing/<name>` from the configuration folders.

    Raises ConfigError: missing, other schema, not numbers, not evenly sampled from 0, fewer than 2 samples.
    """
    source = find_config(f"breathing/{name}", config_dir, env)
    if source is None:
        raise ConfigError("breathing.missing", f"no breathing trace '{name}'", "gate.trace", "a file of breathing/")
    return _parsed(source.read_text(encoding="utf-8"), str(source))


@functools.lru_cache(maxsize=4)
def _parsed(text: str, where: str) -> BreathingTrace:
    """The trace of a file; a process that makes a thousand plants reads the same one."""
    lines = text.splitlines()
    if not lines or lines[0] != f"# schema: {BREATHING_SCHEMA}":
        fix = f"first line must be '# schema: {BREATHING_SCHEMA}'"
        raise ConfigError("breathing.schema", "not a breathing trace", where, fix)
    rows = [line for line in lines if line and not line.startswith("#")]
    if not rows or rows[0] != "t_s,amplitude_mm":
        raise ConfigError("breathing.columns", "unexpected columns", where, "must be t_s,amplitude_mm")
    try:
        data = np.array([[float(cell) for cell in row.split(",")] for row in rows[1:]], dtype=np.float64)
    except ValueError as error:
        raise ConfigError("breathing.cell", f"not a table of numbers: {error}", where) from None
    if data.ndim != 2 or data.shape[1] != 2 or data.shape[0] < 2 or not np.all(np.isfinite(data)):
        raise ConfigError("breathing.rows", "needs two rows or more of two finite numbers", where)
    t, amplitude = np.ascontiguousarray(data[:, 0]), np.ascontiguousarray(data[:, 1])
    step = float(t[-1]) / (t.size - 1)
    if step <= 0.0 or float(np.max(np.abs(t - step * np.arange(t.size)))) > 1e-6:
        raise ConfigError("breathing.times", "times must start at 0 and be evenly spaced", where)
    t.flags.writeable = False
    amplitude.flags.writeable = False
    return BreathingTrace(t, amplitude, step)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render_trace(), encoding="utf-8")
