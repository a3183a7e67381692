"""The kernel in numba beside the same kernel in C (gcc -O2): ns per 10 us tick, and whether they agree.

Both deliver the same layer from the same commands. The C program is made from the kernel's source at run time
(`benchmarks.c_kernel`), so that it is the same model at every commit; it can be read in benchmarks/results/c/kernel.c.
What counts is -O2; -O3 for this very processor is shown beside it. CPU time of the calling thread is counted, the best
of several runs: other work on the machine disturbs it least.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.c_kernel import CFLAGS, CKernel
from benchmarks.layers import TOKEN, fast_rules, make_plant, spot_table
from benchmarks.report import RESULTS, save
from ioc_sim import rack
from ioc_sim.plant import Plant

RUNS = 5
ENERGY_CODE = 150
LEVEL_ORDER = 8
SIDE = 44
IONS = 1e5
ALLOWED_RATIO = 1.5
ALLOWED_DIFFERENCE = 1e-12
TIMEOUT_NS = 30_000_000_000
COMPARED = ("_state", "_v", "signals", "_register", "_truth", "trace", "_latch")


class Stopwatch:
    """Calls a kernel and adds up the CPU time of the calls while it is running."""

    def __init__(self, kernel: Callable[..., Any]) -> None:
        self._kernel = kernel
        self.running = False
        self.seconds = 0.0

    def __call__(self, *arguments: Any) -> None:
        """One call of the kernel."""
        begin = time.thread_time()
        self._kernel(*arguments)
        if self.running:
            self.seconds += time.thread_time() - begin


@dataclass(frozen=True)
class Run:
    """One delivered layer."""

    plant: Plant
    ticks: int
    ns_per_tick: float


def deliver(kernel: Callable[..., Any], with_rules: bool, side: int = SIDE) -> Run:
    """Deliver the layer once; the clock runs from the first beam to the end of the layer."""
    stopwatch = Stopwatch(kernel)
    original, rack.run = rack.run, stopwatch  # type: ignore[assignment]
    try:
        plant = make_plant(fast_rules() if with_rules else None)
        level = plant.facility.species[plant.species].intensity_levels_ions_per_s[LEVEL_ORDER]
        plant.load_layer(TOKEN, ENERGY_CODE, level, spot_table(plant, ENERGY_CODE, side, IONS))
        plant.request_cycle(TOKEN, ENERGY_CODE)
        plant.advance(plant.t_ns + 10_000_000)
        plant.arm(TOKEN, plant.status.permit_epoch)
        first = 0
        while plant.t_ns < TIMEOUT_NS:
            plant.advance(TIMEOUT_NS)
            kinds = {event.kind for event in plant.take_events()}
            if "BEAM_ON" in kinds:
                stopwatch.running, first = True, plant.t_ns
            if kinds & {"LAYER_DONE", "TRIP", "ABORTED"}:
                break
        if "LAYER_DONE" not in kinds:
            raise RuntimeError(f"the layer was not delivered: {sorted(kinds)}")
    finally:
        rack.run = original
    ticks = (plant.t_ns - first) // rack.TICK_NS
    return Run(plant, ticks, stopwatch.seconds / ticks * 1e9)


def largest_difference(a: Plant, b: Plant) -> float:
    """Largest relative difference between the records of two plants, 0 where all bytes agree."""
    worst = 0.0
    for name in COMPARED:
        left, right = getattr(a, name), getattr(b, name)
        if left.tobytes() == right.tobytes():
            continue
        for x, y in zip(_columns(left), _columns(right), strict=True):
            same = (x == y) | (np.isnan(x) & np.isnan(y))
            scale = np.maximum(np.maximum(np.abs(x), np.abs(y)), 1e-300)
            worst = max(worst, float(np.max(np.where(same, 0.0, np.abs(x - y) / scale), initial=0.0)))
    return worst


def _columns(table: np.ndarray) -> list[np.ndarray]:
    if table.dtype.names:
        return [np.asarray(table[name], dtype=np.float64) for name in table.dtype.names]
    return [np.asarray(table, dtype=np.float64)]


def compare(with_rules: bool) -> list[dict[str, Any]]:
    """Both kernels on the same layer: one row each, the second with ratio and difference."""
    deliver(rack.run, with_rules)  # compile, or load from the cache
    kernels: dict[str, Callable[..., Any]] = {"numba": rack.run}
    if shutil.which("gcc"):
        for flags in (("-O2",), ("-O3", "-march=native")):
            name = f"C, gcc {' '.join(flags)}"
            kernels[name] = CKernel(rack.run, RESULTS / "c", flags)
            deliver(kernels[name], with_rules)
    best: dict[str, Run] = {}
    for _ in range(RUNS):  # in turn, so that a slow moment of the machine meets both
        for name, kernel in kernels.items():
            run = deliver(kernel, with_rules)
            if name not in best or run.ns_per_tick < best[name].ns_per_tick:
                best[name] = run
    rows = []
    for name, run in best.items():
        rules = len(run.plant.rule_ids)
        row: dict[str, Any] = {"kernel": name, "fast_rules": rules, "ticks": run.ticks, "ns_per_tick": run.ns_per_tick}
        row |= {"numba_over_C": None, "largest_difference": None}
        if name != "numba":
            row["numba_over_C"] = best["numba"].ns_per_tick / run.ns_per_tick
            row["largest_difference"] = largest_difference(best["numba"].plant, run.plant)
        rows.append(row)
    return rows


def main() -> int:
    """Measure, print, save; exit code 1 if the traces differ."""
    rows = [*compare(with_rules=True), *compare(with_rules=False)]
    limits = {"ratio_allowed": ALLOWED_RATIO, "difference_allowed": ALLOWED_DIFFERENCE, "c_flags": CFLAGS}
    save("kernel", {f"kernel, one layer of {SIDE * SIDE} spots": rows}, **limits)
    if all(row["numba_over_C"] is None for row in rows):
        print("  gcc is not installed: nothing to compare with")
    print(f"  allowed: numba over C {ALLOWED_RATIO}, difference {ALLOWED_DIFFERENCE:g} of the larger value")
    return 1 if any((row["largest_difference"] or 0.0) > ALLOWED_DIFFERENCE for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
