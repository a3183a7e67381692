"""What a load of a layer that was stopped is believed to have given, where its two chambers do not agree.

The first chamber steers and is what a record says. One that dies in the middle of a spot says less than came: the
second one knows better, and the interlock that saw it is over by the time the layer is gone on with. So the higher of
the two counts as delivered; what the first has not counted is charge that counts and was not measured, by spot.
"""

from __future__ import annotations

import numpy as np

from control.layer_table import COLUMN, FloatArray, LayerLike, LayerRules


def believed(
    layer: LayerLike, rows: FloatArray, start_ions: FloatArray, rules: LayerRules
) -> tuple[FloatArray, FloatArray]:
    """Rows of one load without what cannot be, and charge (n,) beyond them that counts as delivered.

    What is no number, or less than none by more than noise, is no measurement and stands as 0. A spot of which neither
    chamber knows counts whole, from `start_ions` on.
    """
    columns = COLUMN["ic1_ions"], COLUMN["ic2_ions"]
    count = layer.ions_per_count
    noise = rules.cut_counts * count + layer.intensity_ions_per_s * rules.cut_beam_us * 1e-6
    lost1, lost2 = (~(rows[:, column] >= -noise) for column in columns)
    ic1, ic2 = (np.where(lost, 0.0, rows[:, column]) for lost, column in zip((lost1, lost2), columns, strict=True))
    beyond = ic2 - ic1
    beyond = np.where(lost1 | (beyond > noise + rules.cut_rel * ic2), np.maximum(beyond, 0.0), 0.0)
    neither = lost1 & lost2
    beyond[neither] = np.maximum(layer.target_ions - start_ions, 0.0)[neither]
    if not lost1.any() and not lost2.any():
        return rows, beyond
    sane = rows.copy()
    sane[:, columns[0]], sane[:, columns[1]] = ic1, ic2
    sane[neither, COLUMN["done"]] = 1.0
    return sane, beyond
