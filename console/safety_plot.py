"""The safety controller's side of a trip's picture: what it compared, whom it heard, what it told the rack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from interlocks.own_inputs import CONSOLE_INPUT, CONTROL_INPUT, LINE_INPUTS, LINK_INPUT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rig.post_mortem_file import Recording

_BLUE, _ORANGE = "#1f6fb4", "#d97706"
_AGES = ((CONSOLE_INPUT, "console", _BLUE), (CONTROL_INPUT, "control", _ORANGE))
_LINES = (("permit", "permit told"), ("hold", "hold told"), ("personnel", "personnel"), (LINK_INPUT, "rack heard"),
          ("link.p_ok", "heard by rack"), ("evaluators_good", "evaluators agree"),
          *((name, name.removeprefix("t.").removesuffix("_ok")) for name in LINE_INPUTS))  # fmt: skip


def ages(axes: Axes, scans: Recording, t_ns: np.ndarray, t_ms: np.ndarray) -> None:
    """Silence of console and control over the whole window; `t_ns` by the controller's time, `t_ms` as it is shown."""
    from rig.safety_scans_file import held

    for name, label, colour in _AGES:
        axes.plot(t_ms, held(scans, name, t_ns), color=colour, lw=1.2, label=f"silence of {label}")
    axes.set_ylabel("ms")
    axes.set_xlim(t_ms[0], t_ms[-1])
    axes.set_ylim(bottom=0.0)


def switches(axes: Axes, scans: Recording, t_ns: np.ndarray, t_ms: np.ndarray) -> None:
    """What it told the rack and what it was told, one above the other."""
    from rig.safety_scans_file import held

    for place, (name, _) in enumerate(reversed(_LINES)):
        value = place + 0.7 * np.nan_to_num(held(scans, name, t_ns))
        axes.fill_between(t_ms, place, value, step="post", color=_ORANGE, alpha=0.35, lw=0)
        axes.step(t_ms, value, where="post", color=_ORANGE, lw=1.0)
    labels = [label for _, label in reversed(_LINES)]
    axes.set_yticks([place + 0.35 for place in range(len(_LINES))], labels, fontsize=8)
    axes.set_ylim(-0.2, len(_LINES))
    axes.tick_params(axis="y", length=0)
