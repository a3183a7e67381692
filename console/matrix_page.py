"""The cause-and-effect matrix as a page of its own, and as CSV: rows are causes, columns are effects."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Iterable, Sequence
from itertools import groupby

from interlocks.explain import Bound, MatrixRow

EFFECTS: tuple[tuple[str, str, str], ...] = (
    ("inhibit", "No READY", "no permit is released while the cause is present"),
    ("spill_off", "Extraction off", "RF-KO or betatron core off, chopper blocks"),
    ("fast_quad", "Fast quadrupole", "the beam is taken off the resonance"),
    ("dump", "Ring dump", "the stored beam is dumped; beam-off is confirmed by the chambers"),
    ("latches", "Latches", "stays in force when the cause has gone, until a person resets it"),
)
"""Key, heading, what it means."""
NOT_FAST = " (not fast)"
"""Stands behind the bound of a rule that has to wait for an external device."""
_ACTIONS = (
    ("ABORT", "beam off by all devices, the ring is dumped, the layer ends; a physicist resets, then a new start"),
    ("PAUSE", "beam off, permit away; reset, then resume"),
    ("HOLD", "beam off, the permit stays; goes on by itself"),
    ("INHIBIT", "no permit is released while it is present"),
)
_TIERS = {
    "H": "Tier H: in the rack, every 10 us beside the delivery front end",
    "P": "Tier P: the safety controller, every frame of the safety link",
    "T": "Tier T: procedures in treatment control, kept alive to the safety controller",
}
_STYLE = """
:root { --abort: #b3261e; --pause: #c2620a; --hold: #1f6fb4; --inhibit: #5b5f6b; --line: #d9dce3; --soft: #f5f6f9; }
* { box-sizing: border-box; }
body { font: 13px/1.4 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; color: #1c1e24;
  margin: 28px auto; max-width: 1500px; padding: 0 24px; }
h1 { font-size: 21px; margin: 0 0 2px; }
.sub { color: #5b5f6b; margin: 0 0 18px; }
table { border-collapse: collapse; width: 100%; }
thead th { position: sticky; top: 0; background: #fff; border-bottom: 2px solid #1c1e24; text-align: left;
  vertical-align: bottom; padding: 6px 8px; font-size: 11.5px; }
th.mark, td.mark { text-align: center; width: 62px; }
th.num, td.num { text-align: right; white-space: nowrap; }
td { border-bottom: 1px solid var(--line); padding: 6px 8px; vertical-align: top; }
tr.tier td { background: var(--soft); font-weight: 600; border-bottom: 1px solid #aab0bd; padding-top: 9px; }
.id { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 11.5px; color: #5b5f6b;
  white-space: nowrap; }
.title { font-weight: 600; }
.hazard { color: #5b5f6b; }
.parts { color: #5b5f6b; font-size: 11px; }
.action { display: inline-block; border-radius: 4px; color: #fff; font-weight: 600; font-size: 11px; padding: 2px 7px;
  letter-spacing: .02em; }
.ABORT { background: var(--abort); } .PAUSE { background: var(--pause); }
.HOLD { background: var(--hold); } .INHIBIT { background: var(--inhibit); }
.dot { display: inline-block; width: 13px; height: 13px; border-radius: 50%; }
.legend { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 4px 28px; margin: 0 0 18px;
  padding: 12px 14px; background: var(--soft); border-radius: 6px; }
.legend div { display: flex; gap: 9px; align-items: baseline; }
.legend b { white-space: nowrap; }
footer { color: #5b5f6b; margin-top: 16px; font-size: 11.5px; }
@media print {
  @page { size: A4 landscape; margin: 10mm; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  body { font-size: 8.5px; margin: 0; max-width: none; padding: 0; }
  h1 { font-size: 15px; }
  thead { display: table-header-group; }
  thead th { position: static; font-size: 8px; }
  tr { break-inside: avoid; }
  td, thead th { padding: 2.5px 4px; }
  th.mark, td.mark { width: 38px; }
  .dot { width: 9px; height: 9px; }
  .id, .action, .parts { font-size: 7.5px; }
  .legend { grid-template-columns: 1fr 1fr; padding: 6px 8px; }
}
"""


def slow(row: MatrixRow) -> str:
    """What stands behind the bound: nothing, or that the rule has to wait for an external device."""
    return "" if row.fast else NOT_FAST


def marks(row: MatrixRow) -> tuple[bool, ...]:
    """Which of EFFECTS a cause has."""
    return (row.action == "INHIBIT", row.spill_off, row.fast_quad, row.dump, row.latches)


def matrix_csv(rows: Iterable[tuple[MatrixRow, Bound]]) -> str:
    """One line a cause; effects are 1 or empty, times are in ms."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["rule", "title", "tier", "cause", "action", *(key for key, _, _ in EFFECTS), "reset", "bypass",
                     "bound_ms", "observation_ms", "decision_ms", "actuator_ms", "one_device_failed_ms", "hazard",
                     "citation", "fast"])  # fmt: skip
    for row, parts in rows:
        times = [row.bound_us, parts.observation_us, parts.decision_us, parts.actuator_us, row.degraded_us]
        effects = ("1" if on else "" for on in marks(row))
        writer.writerow([row.rule, row.title, row.tier, row.cause, row.action, *effects, row.reset, row.bypass,
                         *(_ms(us) for us in times), row.hazard, row.citation, "1" if row.fast else ""])  # fmt: skip
    return out.getvalue()


def matrix_html(title: str, rules_hash: str, rows: Sequence[tuple[MatrixRow, Bound]]) -> str:
    """A page that needs nothing else; it prints on A4 landscape."""
    say = html.escape
    body: list[str] = []
    for tier, of_tier in groupby(sorted(rows, key=lambda pair: "HPT".index(pair[0].tier)), key=lambda p: p[0].tier):
        group = list(of_tier)
        words = f"{_TIERS[tier]} ({len(group)} rules)"
        body.append(f'<tr class="tier"><td colspan="{7 + len(EFFECTS)}">{say(words)}</td></tr>')
        body += [_row(row, parts) for row, parts in group]
    effects = "".join(f'<th class="mark" title="{say(words)}">{say(name)}</th>' for _, name, words in EFFECTS)
    legend = "".join(f'<div><span class="action {name}">{name}</span><span>{say(words)}</span></div>'
                     for name, words in _ACTIONS)  # fmt: skip
    legend += "".join(f"<div><b>{say(name)}</b><span>{say(words)}</span></div>" for _, name, words in EFFECTS)
    legend += ("<div><b>Bound</b><span>longest time from cause to beam off: observation + decision + beam-off device; "
               "beneath it these three; not fast: the cause is read from an external device, twice whose "
               "maximum age is in it</span></div>"
               "<div><b>One failed</b><span>the same with the fastest beam-off device failed</span></div>")  # fmt: skip
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Cause and effect: {say(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Interlocks: cause and effect</h1>
<p class="sub">{say(title)}; {len(rows)} causes</p>
<div class="legend">{legend}</div>
<table>
<thead><tr><th>Cause</th><th>Must hold</th><th>Action</th>{effects}<th>Reset by</th><th>Bypass</th>
<th class="num">Bound, ms</th><th class="num">One failed, ms</th></tr></thead>
<tbody>
{"".join(body)}
</tbody>
</table>
<footer>Rules SHA-256 {say(rules_hash)}. Made by <code>ionctl interlocks matrix</code> from the rule file
that the evaluators are made from. A simulator: not a medical device.</footer>
</body>
</html>
"""


def _row(row: MatrixRow, parts: Bound) -> str:
    say = html.escape
    dots = "".join(f'<td class="mark">{_dot(row.action, name) if on else ""}</td>'
                   for on, (_, name, _) in zip(marks(row), EFFECTS, strict=True))  # fmt: skip
    return (
        f'<tr><td><span class="title">{say(row.title)}</span> <span class="id">{say(row.rule)}</span>'
        f'<div class="hazard">{say(row.hazard)}</div></td>'
        f'<td>{say(row.cause)}</td><td><span class="action {row.action}">{row.action}</span></td>{dots}'
        f"<td>{say('itself' if row.reset == 'none' else row.reset)}</td><td>{say(row.bypass)}</td>"
        f'<td class="num">{_ms(row.bound_us)}{slow(row)}<div class="parts">{_parts(parts)}</div></td>'
        f'<td class="num">{_ms(row.degraded_us)}</td></tr>\n'
    )


def _dot(action: str, name: str) -> str:
    return f'<span class="dot {action}" role="img" aria-label="{html.escape(name)}"></span>'


def _parts(parts: Bound) -> str:
    return " + ".join(_ms(us) for us in (parts.observation_us, parts.decision_us, parts.actuator_us))


def _ms(us: float) -> str:
    return f"{us / 1000.0:.2f}" if math.isfinite(us) else "none"
