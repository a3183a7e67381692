"""What a campaign has exercised, as a picture: the layer machine's table, and bars for rules, causes, plant events."""

from __future__ import annotations

import html
from collections.abc import Iterator

from control.layer_machine import Event, State, matters, refused
from rig.campaign.report import Covered, Report

CELL, LEFT, TOP, BAR = 22, 130, 150, 300
_NEVER, _TAKEN, _REFUSED, _GAP = "#f1f2f5", "#1b7f4d", "#8fc9ab", "#c8322b"
_STYLE = "text{font:11px system-ui,sans-serif;fill:#1c1e24}.n{font-size:8px;fill:#fff;text-anchor:middle}"
_LEGEND = ((_TAKEN, "moved or acted"), (_REFUSED, "refused, as it should be"), (_GAP, "not exercised"),
           (_NEVER, "means nothing there"))  # fmt: skip


def coverage_svg(report: Report) -> str:
    """One self-contained picture."""
    covered = report.coverage()
    counts = {name: count for one in covered for name, count in one.counts.items()}
    table = list(_table(counts))
    bars = [one for one in covered if one.title not in ("states", "transitions", "refusals")]
    top = TOP + CELL * len(State) + 60
    width, height = LEFT + CELL * len(Event) + 120, top + 26 * len(bars) + 20
    title = f"{len(report.outcomes)} runs: pairs of state and event of the layer machine, and how often each was met"
    body = [*_legend(TOP + CELL * len(State) + 22), *table]
    for i, one in enumerate(bars):
        body += _bar(one, top + 26 * i)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="8" y="18" font-weight="600">{html.escape(title)}</text>{"".join(body)}</svg>\n'
    )


def _table(counts: dict[str, int]) -> Iterator[str]:
    for column, event in enumerate(Event):
        x = LEFT + CELL * column + CELL // 2 + 4
        yield f'<text transform="translate({x},{TOP - 6}) rotate(-60)">{event.name.lower()}</text>'
    for row, state in enumerate(State):
        y = TOP + CELL * row
        yield f'<text x="8" y="{y + 15}">{state.name}</text>'
        for column, event in enumerate(Event):
            yield _cell(state, event, counts, LEFT + CELL * column, y)


def _cell(state: State, event: Event, counts: dict[str, int], x: int, y: int) -> str:
    name = f"{state.name} {event.name}"
    count = counts.get(name)
    if not matters(state, event) or count is None:
        colour, words = _NEVER, "means nothing there"
    else:
        colour = _GAP if not count else (_REFUSED if refused(state, event) else _TAKEN)
        words = f"{count} times"
    text = f'<text class="n" x="{x + 10}" y="{y + 13}">{_short(count)}</text>' if count else ""
    return (
        f'<g><title>{name}: {words}</title><rect x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}" rx="3" '
        f'fill="{colour}"/>{text}</g>'
    )


def _short(count: int) -> str:
    return str(count) if count < 1000 else f"{count // 1000}k"


def _legend(y: int) -> Iterator[str]:
    for i, (colour, words) in enumerate(_LEGEND):
        x = LEFT + 170 * i
        yield f'<rect x="{x}" y="{y - 11}" width="12" height="12" rx="3" fill="{colour}"/>'
        yield f'<text x="{x + 17}" y="{y}">{words}</text>'


def _bar(one: Covered, y: int) -> list[str]:
    share = 1.0 - len(one.gaps) / max(len(one.counts), 1)
    return [
        f'<text x="8" y="{y + 12}">{one.title}</text>',
        f'<rect x="{LEFT}" y="{y}" width="{BAR}" height="15" rx="3" fill="{_GAP}"/>',
        f'<rect x="{LEFT}" y="{y}" width="{BAR * share:.0f}" height="15" rx="3" fill="{_TAKEN}"/>',
        f'<text x="{LEFT + BAR + 8}" y="{y + 12}">{one.share}</text>',
    ]
