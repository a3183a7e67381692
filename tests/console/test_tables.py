"""Tables on narrow and wide screens: whole numbers, whole words, no line beyond the edge."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from console.summary import _LAYERS
from console.tables import print_table, screen

RIGHT = range(len(_LAYERS))
LAYER = ("12", "301.8", "1205/1205", "1.8168e+05", "-11.633", "+0.038", "+0.079", "-100.00", "10.04", "12.71")
SPARE = ("time s", "IC2 %", "worst mm", "prescribed", "MeV/u")


def printed(width: int, *arguments: object, **more: object) -> list[str]:
    out = io.StringIO()
    print_table(*arguments, console=Console(file=out, width=width), **more)  # type: ignore[arg-type]
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize(("width", "left_out"), [(60, 4), (80, 2), (100, 0), (200, 0)])
def test_a_layer_is_one_line_of_whole_numbers(width: int, left_out: int) -> None:
    lines = printed(width, "Layers", _LAYERS, [LAYER], right=RIGHT, spare=SPARE)
    assert max(map(len, lines)) <= width
    gone = SPARE[:left_out]
    wanted = [value for name, value in zip(_LAYERS, LAYER, strict=True) if name not in gone]
    assert [line.split() for line in lines if "1205" in line] == [wanted]
    said = f"Left out on {width} columns: {'; '.join(gone)}."
    assert lines[-1] == (said if gone else "")


def test_words_are_not_broken_while_there_is_room() -> None:
    rule = ("chamber-disagreement", "ic1.ions and ic2.ions differ by at most 5 % plus 40000 ions over 100 ms", 100.57)
    lines = printed(60, "Rules", ("rule", "must hold", "bound, ms"), [rule], right=(2,))
    words = {word for line in lines for word in line.split()}
    assert {"chamber-disagreement", "ic1.ions", "disagreement", "100.6"} - words == {"disagreement"}
    assert max(map(len, lines)) <= 60


def test_a_word_that_is_too_long_is_folded_not_cut() -> None:
    path = "/somewhere/deep/" + "x" * 60
    lines = printed(40, "Files", ("what", "path"), [("log", path)])
    assert max(map(len, lines)) <= 40
    assert path in "".join(line.removeprefix(" log").strip() for line in lines)


def test_an_empty_table_is_a_table() -> None:
    assert printed(40, "None", ("a", "b"), [])[0] == "None"


def test_no_color_means_no_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert screen().color_system is None
