"""The report of a run of scenarios as one HTML file: no network, no scripts from elsewhere, pictures as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rig.scenario.result import ScenarioResult

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 120, 78, 12, 20, 40
COLOURS = ("#1f6fb4", "#d97706", "#15803d", "#7c3aed")
LIMIT, MARKS = "#b3261e", {"cause": "#6b7280", "condition": "#7c3aed", "beam off": "#15803d"}
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1b1b1b;max-width:1080px;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;font-size:14px}th,td{text-align:left;padding:.25rem .6rem;
border-bottom:1px solid #e5e7eb;vertical-align:top}th{position:sticky;top:0;background:#fff}
td.n{text-align:right;font-variant-numeric:tabular-nums}.passed{color:#15803d}.failed{color:#b3261e;font-weight:600}
.skipped{color:#6b7280}details{border-bottom:1px solid #e5e7eb;padding:.35rem 0}summary{cursor:pointer}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;font-size:14px}dt{color:#6b7280}dd{margin:0}
code{font-size:13px}.at{scroll-margin-top:3rem}svg{display:block;margin:.4rem 0;max-width:100%;height:auto}
"""


def page(results: Sequence[ScenarioResult], target: str, wall_s: float) -> str:
    """The whole file."""
    from rig.scenario.report import commit, counts, traceability

    found = counts(results)
    seeds = sorted({result.seed for result in results})
    rows = "".join(
        f"<tr><td>{escape(line.hazard)}</td><td>{escape(line.rule) or '(no rule)'}</td>"
        f'<td><a href="#{escape(line.scenario)}">{escape(line.scenario)}</a></td>'
        f'<td class="{line.verdict}">{line.verdict}</td></tr>'
        for line in traceability(results)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>ionctl scenarios on {escape(target)}</title>"
        f"<style>{STYLE}</style></head><body><h1>Scenarios on {escape(target)}</h1>"
        f"<p>{len(results)} scenarios in {wall_s:.1f} s: {found['passed']} passed, {found['failed']} failed, "
        f"{found['skipped']} skipped. Commit {escape(commit())}, seed {', '.join(map(str, seeds))}.</p>"
        f"{_failed(results)}<h2>Scenarios</h2>{''.join(_one(result) for result in results)}"
        "<h2>Hazard, rule, scenario, result</h2><table><thead><tr><th>hazard</th><th>rule</th><th>scenario</th>"
        f"<th>result</th></tr></thead><tbody>{rows}</tbody></table></body></html>\n"
    )


def _failed(results: Sequence[ScenarioResult]) -> str:
    """Where to look first."""
    links = [f'<a href="#{escape(r.id)}">{escape(r.id)}</a>' for r in results if r.verdict == "failed"]
    return f'<p><span class="failed">Failed:</span> {", ".join(links)}</p>' if links else ""


def _one(result: ScenarioResult) -> str:
    """Folded unless it failed. What a link leads to lies inside, so that a browser unfolds it."""
    opened = " open" if result.verdict == "failed" else ""
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(result) if value)
    failures = "".join(f'<p class="failed">{escape(words)}</p>' for words in result.failures)
    picture = "" if result.trace is None else _picture(result.trace)
    return (
        f'<details{opened}><summary><span class="{result.verdict}">{result.verdict}</span> '
        f"<code>{escape(result.id)}</code> {escape(result.title)}</summary>"
        f'<div class="at" id="{escape(result.id)}">{failures}{picture}<dl>{facts}</dl></div></details>'
    )


def _facts(result: ScenarioResult) -> list[tuple[str, str]]:
    final = result.final
    off = "" if result.off_us is None else f"{result.off_us:,.1f} us after the cause"
    bound = "" if result.bound_us is None else f"{result.bound_us:,.1f} us"
    dose = "" if final is None else "nothing was given" if final.nothing else (
        f"{final.spots - final.beyond} of {final.spots} spots in tolerance, worst {final.worst_pct:.2f} % of the "
        f"heaviest, total {final.total_error_pct:+.3f} %"
    )  # fmt: skip
    return [
        ("skipped because", result.reason),
        ("rule: hazard", "; ".join(f"{rule}: {words}" if rule else words for rule, words in result.hazards.items())),
        ("recovery path", result.recovery or ""),
        ("cause at", "" if result.t_cause_ns is None else f"{result.t_cause_ns / 1e3:,.2f} us of facility time"),
        ("tripped first", result.first and f"{result.first} ({result.words})"),
        ("latched", ", ".join(result.latched)),
        ("beam off", off),
        ("bound", bound),
        (
            "ions after the cause",
            f"{result.surplus_ions:,.0f} of at most {result.surplus_bound_ions:,.0f}" if bound else "",
        ),
        ("control", " then ".join(dict.fromkeys(filter(None, (result.state, result.end))))),
        ("answers", ", ".join(f"{who} {deed}: {answer}" for who, deed, answer in result.answers)),
        ("dose by truth", dose),
        ("seed", str(result.seed)),
        ("facility", f"{result.facility}, configuration {result.facility_hash[:16]}, rules {result.rules_hash[:16]}"),
        ("plan", result.plan_hash[:16]),
        ("event log", f"SHA-256 {result.digest}" if result.digest else ""),
    ]


def _picture(trace: Any) -> str:
    """The panels, one above the other, on one axis of time."""
    panels = [panel for panel in trace["panels"] if panel["curves"]]
    height = len(panels) * HEIGHT + BOTTOM
    parts = [_panel(panel, trace, k * HEIGHT) for k, panel in enumerate(panels)]
    axis = "".join(
        f'<text x="{_x(trace, v):.1f}" y="{height - 24}" text-anchor="middle">{v:,.0f}</text>' for v in _steps(trace)
    )
    unit = f'<text x="{WIDTH - RIGHT}" y="{height - 24}" text-anchor="end" fill="#6b7280">us after the cause</text>'
    unit += _what_the_lines_are(trace, height - 6)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" font-family="system-ui,sans-serif" font-size="11" '
        f'role="img">{"".join(parts)}{axis}{unit}</svg>'
    )


def _what_the_lines_are(trace: Any, y: int) -> str:
    """The dashed lines, in their colours, with their times."""
    named = (
        f'<tspan fill="{MARKS[name]}" dx="14">┆ {name} {t_us:,.1f}</tspan>' for name, t_us in trace["marks"].items()
    )
    return f'<text x="{LEFT - 14}" y="{y}">{"".join(named)}</text>'


def _number(value: float) -> str:
    """For an axis: 267.5 M, 566.8 k, 0.12."""
    for least, size, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / size:.4g} {letter}"
    return f"{value:.4g}"


def _x(trace: Any, t_us: float) -> float:
    span = max(trace["until_us"] - trace["from_us"], 1.0)
    return float(LEFT + (WIDTH - LEFT - RIGHT) * (t_us - trace["from_us"]) / span)


def _steps(trace: Any) -> list[float]:
    """Round times for the axis: five or so, and none below the unit's word."""
    span = trace["until_us"] - trace["from_us"]
    step = next(s for s in (b * 10.0**e for e in range(-1, 9) for b in (1, 2, 5)) if span / s <= 6)
    first = int(trace["from_us"] // step) + 1
    found = [k * step for k in range(first, first + 8) if k * step <= trace["until_us"]]
    return [value for value in found if _x(trace, value) < WIDTH - 130]


def _panel(panel: Any, trace: Any, above: int) -> str:
    values = [v for curve in panel["curves"] for v in curve["y"] if v is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.08 * ((high - low) or abs(high) or 1.0)
    low, high = low - room, high + room
    base, top = above + HEIGHT - 8, above + TOP

    def y(value: float) -> float:
        return base - (base - top) * (value - low) / (high - low)

    size = f'width="{WIDTH - LEFT - RIGHT}" height="{base - top}"'
    out = [f'<rect x="{LEFT}" y="{top}" {size} fill="none" stroke="#e5e7eb"/>']
    out += [
        f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{_number(value)}</text>'
        for value in (low + room, high - room)
    ]
    for name, t_us in trace["marks"].items():
        if trace["from_us"] <= t_us <= trace["until_us"]:
            x = _x(trace, t_us)
            out.append(f'<path d="M{x:.1f} {top}V{base}" stroke="{MARKS[name]}" stroke-dasharray="4 3"><title>{name} '
                       f"{t_us:.1f} us</title></path>")  # fmt: skip
    legend = LEFT
    out.append(f'<text x="{LEFT}" y="{above + 14}" font-weight="600">{escape(panel["title"])}'
               f'{escape(", " + panel["unit"]) if panel["unit"] else ""}</text>')  # fmt: skip
    legend += 20 + 7 * (len(panel["title"]) + len(panel["unit"]))
    shown: set[str] = set()
    for k, curve in enumerate(panel["curves"]):
        colour = LIMIT if curve["name"] == "limit" else COLOURS[k % len(COLOURS)]
        dash = ' stroke-dasharray="6 4"' if curve["name"] in ("limit", "planned") else ""
        out.append(f'<path d="{_path(curve, trace, y)}" fill="none" stroke="{colour}"{dash}/>')
        if curve["name"] not in shown:
            out.append(f'<text x="{legend}" y="{above + 14}" fill="{colour}">{escape(curve["name"])}</text>')
            legend += 14 + 7 * len(curve["name"])
        shown.add(curve["name"])
    return "".join(out)


def _path(curve: Any, trace: Any, y: Any) -> str:
    """Steps from point to point; what is no number is a gap."""
    parts: list[str] = []
    before: float | None = None
    for t_us, value in zip(curve["x"], curve["y"], strict=True):
        if value is None:
            before = None
            continue
        x = _x(trace, t_us)
        parts.append(f"M{x:.1f} {y(value):.1f}" if before is None else f"H{x:.1f}V{y(value):.1f}")
        before = value
    return "".join(parts)
