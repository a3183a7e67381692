"""The end of a delivery as tables: layers, totals, interlocks, files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from console.tables import print_table, screen
from rig.result import layer_s

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
    for note in result.notes:
        screen().print(f"Note: {note}.", soft_wrap=True)
    for why, layers in _unknown_times(result).items():
        screen().print(f"Time of layer {', '.join(layers)} is not known: {why}.", soft_wrap=True)
    interlocks = result.summary["interlocks"]
    if interlocks:
        shown = [(*_interlock(i), i.get("part", 1)) for i in interlocks]
        columns = ("facility time, s", "rule", "action", "layer", "value", "limit", "unit", "part")
        several = None if result.part > 1 else -1
        print_table("Interlocks", columns[:several], [row[:several] for row in shown])
    elif result.completed:
        screen().print("No interlock took the beam.")
    else:
        screen().print("No trip is on record: nobody was there to write one, or no interlock took the beam.")
    for line in next_steps(result):
        screen().print(line, soft_wrap=True)
    for name, path in result.files.items():
        screen().print(f"{name}: {path}", soft_wrap=True)


def next_steps(result: DeliveryResult) -> list[str]:
    """In what state a field that is not completed is left, and what to type next."""
    if result.completed:
        return []
    s, facility = result.summary, result.facility
    layers = sum(1 for layer in s["layers"] if layer["verified"])
    now = [one for one in s["interlocks"] if one.get("part", result.part) == result.part]
    why = "as an interlock took it" if now else s["reason"]
    lines = [
        f"The beam is off. The field is {s['status']} ({why}): {s['spots_done']} of {s['spots']} spots are delivered "
        f"and on record, {layers} of {s['layers_total']} layers verified."
    ]
    if result.target == "virtual":
        return [*lines, f"This facility was in virtual time and is gone. Next: {_go_on(s, facility)} in another; or "
                        "ionctl deliver begins the plan anew."]  # fmt: skip
    rules = list(dict.fromkeys(one["rule"] for one in now))
    lines += [f"See why: ionctl interlocks show {rule} --facility {facility}" for rule in rules]
    if any(one["action"] == "ABORT" for one in now):
        lines.append(
            f"Then: ionctl interlocks reset --facility {facility}, and say what became of the field: ionctl interlocks "
            f"resolve --words TEXT --facility {facility}. No other field is opened before."
        )
    else:
        lines.append("This console watches the field no more: the permit goes, and operator-heartbeat tells so.")
    return [*lines, f"Next: {_go_on(s, facility)}; or ionctl deliver begins the plan anew, from its first spot. "
                    f"Nothing goes on by itself. Or: ionctl down --facility {facility}"]  # fmt: skip


def _go_on(summary: Mapping[str, Any], facility: str) -> str:
    return f"ionctl resume {summary['session']} --reason TEXT --facility {facility} goes on at the exact spot"


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
        "-" if truth is None else _percent(truth.truth_ions, prescribed),
        f"{worst:+.2f}",
        "" if position is None else f"{position:.2f}",
        "-" if (time_s := layer_s(layer)) is None else f"{time_s:.2f}",
    )


def _unknown_times(result: DeliveryResult) -> dict[str, list[str]]:
    """Layers whose time is not known, by the reason."""
    found: dict[str, list[str]] = {}
    for layer in result.summary["layers"]:
        if layer_s(layer) is None:
            found.setdefault(layer["time_why"], []).append(str(layer["index"]))
    return found


def _percent(delivered: float, prescribed: float) -> str:
    return f"{100.0 * (delivered - prescribed) / prescribed:+.3f}"


def _totals(result: DeliveryResult) -> list[tuple[str, str]]:
    s, truth = result.summary, result.truth
    wall = f"{result.wall_s:.2f} s of wall time" + (f" at speed {result.speed:g}" if result.speed else "")
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
    elif result.truth_words:
        rows.append(("delivered by truth", result.truth_words))
    if result.pacing is not None:
        rows += _pacing(result.pacing)
    if result.not_fast:
        rows.append(("not fast", ", ".join(f"{one['rule']} {one['bound_ms']:g} ms" for one in result.not_fast)))
    if result.part == 1:
        return [*rows, ("time", f"{s['facility_s']:.1f} s of facility time, {s['beam_on_s']:.1f} s with beam; {wall}")]
    in_all = result.session_facility_s
    all_parts = (
        "facility time not known, as a part left no summary" if in_all is None else f"{in_all:.1f} s of facility time"
    )
    return [
        *rows,
        (f"time of part {result.part}", f"{s['facility_s']:.1f} s of facility time; {wall}"),
        ("time of all parts", f"{all_parts}, {s['beam_on_s']:.1f} s with beam"),
        (
            "told of",
            f"part {result.part} alone: status, pacing and its time; since control was started: events and sample log; "
            "of the whole session: all else",
        ),
    ]


def _pacing(pacing: Mapping[str, Any]) -> list[tuple[str, str]]:
    slices = ", ".join(f"{name.replace('_', ' ')} {count:.0f}" for name, count in pacing["slices_by_lateness"].items()
                       if count)  # fmt: skip
    return [
        ("pacing", f"{pacing['late_ticks']:.0f} late ticks, worst {pacing['worst_late_ms']:.1f} ms"),
        ("slices by lateness", slices),
    ]


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
    detail = trip["detail"]
    t_ns = detail.get("t_ns", trip["t_ns"])  # when control heard of it, where the safety controller does not say
    return (f"{t_ns * 1e-9:.6f}", trip["rule"], trip["action"], trip["layer"],
            *(detail.get(key) for key in ("value", "limit", "unit")))  # fmt: skip
