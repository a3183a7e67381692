"""The compiled part of dose: pencil beams onto a grid, and the search of the gamma index.

Compiled and plain runs agree bit for bit.
"""

from __future__ import annotations

import math

import numpy as np

from facility.jit import kernel

_TWO_PI = 2.0 * math.pi


@kernel
def add_pencils(
    dose: np.ndarray, x_mm: np.ndarray, y_mm: np.ndarray, spot_x: np.ndarray, spot_y: np.ndarray, ions: np.ndarray,
    sigma: np.ndarray, amount: np.ndarray, reach: float, row: np.ndarray,
) -> None:  # fmt: skip
    """Add Gaussian pencils of one layer to `dose` (depths, ny, nx).

    Grid coordinates have an even step. Per depth: one sigma (mm), and `amount`, dose x area per ion. A pencil is
    followed to `reach` sigmas. `row` is room for nx numbers.
    """
    nz, ny, nx = dose.shape
    x0, y0 = x_mm[0], y_mm[0]
    dx = x_mm[1] - x_mm[0] if nx > 1 else 1.0
    dy = y_mm[1] - y_mm[0] if ny > 1 else 1.0
    for k in range(nz):
        if amount[k] <= 0.0:
            continue
        width, half = reach * sigma[k], 0.5 / (sigma[k] * sigma[k])
        scale = amount[k] / (_TWO_PI * sigma[k] * sigma[k])
        for s in range(ions.size):
            left = max(0, math.ceil((spot_x[s] - width - x0) / dx))
            right = min(nx - 1, math.floor((spot_x[s] + width - x0) / dx))
            low = max(0, math.ceil((spot_y[s] - width - y0) / dy))
            high = min(ny - 1, math.floor((spot_y[s] + width - y0) / dy))
            if left > right or low > high:
                continue
            for i in range(left, right + 1):
                off = x0 + i * dx - spot_x[s]
                row[i] = math.exp(-half * off * off)
            for j in range(low, high + 1):
                off = y0 + j * dy - spot_y[s]
                here = ions[s] * scale * math.exp(-half * off * off)
                for i in range(left, right + 1):
                    dose[k, j, i] += here * row[i]


@kernel
def gamma_index(
    reference: np.ndarray, evaluated: np.ndarray, base: np.ndarray, part: np.ndarray, distance2: np.ndarray,
    allowed: np.ndarray, cut: float, most: float, out: np.ndarray,
) -> None:  # fmt: skip
    """Gamma of each voxel of `reference` that has at least `cut`; NaN for the others.

    Points of the search: whole voxels `base` (n, 3) and shares `part` (n, 3) of the next one, sorted by `distance2`
    (squared, over the squared distance to agreement). `allowed` is the dose difference of each voxel that counts as 1.
    The search ends where distance alone is worse than the best.
    """
    nz, ny, nx = reference.shape
    for k in range(nz):
        for j in range(ny):
            for i in range(nx):
                here = reference[k, j, i]
                if not here >= cut:
                    out[k, j, i] = np.nan
                    continue
                best = most * most
                scale = 1.0 / allowed[k, j, i]
                for n in range(distance2.size):
                    if distance2[n] >= best:
                        break
                    c, b, a = k + base[n, 0], j + base[n, 1], i + base[n, 2]
                    w, v, u = part[n, 0], part[n, 1], part[n, 2]
                    c1, b1, a1 = c + (1 if w > 0.0 else 0), b + (1 if v > 0.0 else 0), a + (1 if u > 0.0 else 0)
                    if c < 0 or b < 0 or a < 0 or c1 >= nz or b1 >= ny or a1 >= nx:
                        continue
                    near = (1.0 - v) * ((1.0 - u) * evaluated[c, b, a] + u * evaluated[c, b, a1]) + v * (
                        (1.0 - u) * evaluated[c, b1, a] + u * evaluated[c, b1, a1]
                    )
                    far = (1.0 - v) * ((1.0 - u) * evaluated[c1, b, a] + u * evaluated[c1, b, a1]) + v * (
                        (1.0 - u) * evaluated[c1, b1, a] + u * evaluated[c1, b1, a1]
                    )
                    off = ((1.0 - w) * near + w * far - here) * scale
                    value = off * off + distance2[n]
                    best = value if value < best else best
                out[k, j, i] = math.sqrt(best)
