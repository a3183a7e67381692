"""The end of a delivery as tables: layers, totals, interlocks, files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from console.tables import print_table, screen

if TYPE_CHECKING:
    from rig.result import DeliveryResult
    from rig.truth_check import LayerTruth, TruthReport

_LAYERS = ("layer", "MeV/u", "spots", "prescribed", "IC1 %", "IC2 %", "truth %", "worst spot %", "worst mm", "time s")


def print_result(result: DeliveryResult) -> None:
    """Everything a person wants to know after a delivery."""
    rows = [_layer(layer, truth) for layer, truth in result.rows()]
    print_table(
        "Layers (delivered as difference to prescribed; worst spot in per cent of the layer's heaviest)",
        _LAYERS, rows, right=range(len(_LAYERS)), spare=("time s", "IC2 %", "worst mm", "prescribed", "MeV/u"),
    )  # fmt: skip
    print_table("Session", ("", ""), _totals(result))
    interlocks = result.summary["interlocks"]
    if interlocks:
        print_table("Interlocks", ("at s", "rule", "action", "layer", "detail"), [_interlock(i) for i in interlocks])
    else:
        why = "" if result.completed else f" It ended because of: {result.summary['reason']}."
        screen().print(f"No interlock took the beam.{why}")
    for name, path in result.files.items():
        screen().print(f"{name}: {path}", soft_wrap=True)


def _layer(layer: Mapping[str, Any], truth: LayerTruth | None) -> tuple[Any, ...]:
    prescribed = layer["prescribed_ions"]
    position = layer["worst_position_mm"] if truth is None else truth.worst_position_mm
    worst = (
        100.0 * layer["worst_spot_error_ions"] / layer["heaviest_spot_ions"] if truth is None else truth.worst_error_pct
    )
    return (
        layer["index"],
        f"{layer['energy_mev_u']:.1f}",
        f"{layer['spots_done']}/{layer['spots']}",
        f"{prescribed:.4e}",
        _percent(layer["ic1_ions"], prescribed),
        _percent(layer["ic2_ions"], prescribed),
        "" if truth is None else _percent(truth.truth_ions, prescribed),
        f"{worst:+.2f}",
        "" if position is None else f"{position:.2f}",
        f"{(layer['t_done_ns'] - layer['t_armed_ns']) * 1e-9:.2f}",
    )


def _percent(delivered: float, prescribed: float) -> str:
    return f"{100.0 * (delivered - prescribed) / prescribed:+.3f}"


def _totals(result: DeliveryResult) -> list[tuple[str, str]]:
    s, truth = result.summary, result.truth
    wall = f"{result.wall_s:.2f} s" + (f", speed {result.speed:g}" if result.speed else "")
    rows = [
        ("session", str(s["session"])),
        ("status", f"{s['status']}{': ' + s['reason'] if s['reason'] else ''}"),
        ("where", f"{result.facility}, room {result.room}{', QA mode: fixed beam angle' if s['qa'] else ''}"),
        ("spots", f"{s['spots_done']} of {s['spots']} in {s['layers_total']} layers"),
        ("prescribed", f"{s['prescribed_ions']:.6e} ions"),
        ("delivered by IC1", f"{s['ic1_ions']:.6e} ions ({_percent(s['ic1_ions'], s['prescribed_ions'])} %)"),
        ("delivered by IC2", f"{s['ic2_ions']:.6e} ions ({_percent(s['ic2_ions'], s['prescribed_ions'])} %)"),
    ]
    if truth is not None:
        rows += _truth(truth, s["prescribed_ions"])
    return [*rows, ("time", f"{s['facility_s']:.1f} s in the facility, {s['beam_on_s']:.1f} s with beam; wall {wall}")]


def _truth(truth: TruthReport, prescribed: float) -> list[tuple[str, str]]:
    share = 100.0 * truth.dose_share_by_percent
    by_percent = f"1 % of the spot for {truth.spots_by_percent} spots, {share:.1f} % of the dose"
    return [
        ("delivered by truth", f"{truth.truth_ions:.6e} ions ({_percent(truth.truth_ions, prescribed)} %)"),
        ("spots within tolerance", f"{truth.spots_within} of {truth.spots}, by truth"),
        ("held by", f"{by_percent}; the others by counts"),
        ("worst spot", f"{truth.worst_spot_error_pct:.3f} % of its layer's heaviest"),
        ("position error", f"p99 {truth.p99_position_error_mm:.3f} mm, worst {truth.worst_position_error_mm:.3f} mm"),
    ]


def _interlock(trip: Mapping[str, Any]) -> tuple[Any, ...]:
    detail = " ".join(f"{key}={value}" for key, value in trip["detail"].items() if not isinstance(value, dict | list))
    return f"{trip['t_ns'] * 1e-9:.3f}", trip["rule"], trip["action"], trip["layer"], detail
