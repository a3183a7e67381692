"""Counter-based random numbers: value = f(seed, stream, tick).

A run that is sliced differently, stopped or resumed draws the same numbers, because nothing is carried from draw to
draw.  The mixer is the finaliser of SplitMix64 (Steele, Lea, Flood 2014) over seed, stream and tick.
"""

from __future__ import annotations

import math

import numpy as np

from facility.jit import kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_STREAM = np.uint64(0xD1B54A32D192ED03)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S30 = np.uint64(30)
_S27 = np.uint64(27)
_S31 = np.uint64(31)
_S32 = np.uint64(32)
_S16 = np.uint64(16)
_S48 = np.uint64(48)
_S11 = np.uint64(11)
_S20 = np.uint64(20)
_LOW20 = np.uint64(0xFFFFF)
_TWO_M20 = 1.0 / 1048576.0
_LOW32 = np.uint64(0xFFFFFFFF)
_LOW16 = np.uint64(0xFFFF)
_TWO_M53 = 1.0 / 9007199254740992.0
_TWO_M32 = 1.0 / 4294967296.0
_BELL_SCALE = math.sqrt(3.0) / 65536.0
"""Four 16-bit uniforms have a variance of 4 * 65536^2 / 12 = 65536^2 / 3."""
_TRIANGLE_SCALE = math.sqrt(6.0) / 65536.0
_FLAT_SCALE = math.sqrt(12.0) / 65536.0
_SIXTH = 1.0 / 6.0
NORMAL_FROM = 30.0
"""Means above this take the rounded normal of `poisson`."""
_CELLS = 4096
_EDGE = 16
"""Cells at either end of the quantile table that are computed exactly: the tails beyond 2.66 sigma."""


@kernel
def draw(seed: np.uint64, stream: int, tick: int) -> np.uint64:
    """64 random bits for ``tick`` (any integer) of ``stream`` under ``seed``."""
    x = seed + np.uint64(stream) * _STREAM + np.uint64(tick) * _GOLDEN
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


@kernel
def uniform(bits: np.uint64) -> float:
    """Uniform in [0, 1) with 53 bits."""
    return float(bits >> _S11) * _TWO_M53


@kernel
def bell(bits: np.uint64) -> float:
    """Cheap noise: mean 0, variance 1, the sum of four 16-bit uniforms, so its tails end at 3.46 sigma.

    For electronic noise, where tails do not matter; use ``normal_low`` and ``normal_high`` where they do.
    """
    total = (bits & _LOW16) + ((bits >> _S16) & _LOW16) + ((bits >> _S32) & _LOW16) + (bits >> _S48)
    return (float(total) - 131070.0) * _BELL_SCALE


@kernel
def triangle(bits: np.uint64, high: bool) -> float:
    """Cheaper noise: mean 0, variance 1, the sum of two 16-bit uniforms of the low or high half; ends at 2.45 sigma."""
    half = (bits >> _S32) if high else (bits & _LOW32)
    return (float((half & _LOW16) + (half >> _S16)) - 65535.0) * _TRIANGLE_SCALE


@kernel
def flat(bits: np.uint64, high: bool) -> float:
    """Cheapest noise: mean 0, variance 1, one 16-bit uniform, bits 0 to 15 or 16 to 31; ends at 1.73 sigma."""
    part = ((bits >> _S16) & _LOW16) if high else (bits & _LOW16)
    return (float(part) - 32767.5) * _FLAT_SCALE


@kernel
def normal_quantile(p: float) -> float:
    """Quantile of the standard normal distribution for 0 < p < 1.

    Wichura, Algorithm AS 241 (PPND16), Applied Statistics 37 (1988) 477: relative accuracy about 1e-16.
    """
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        return q * (((((((2.5090809287301226727e3 * r + 3.3430575583588128105e4) * r + 6.7265770927008700853e4) * r
               + 4.5921953931549871457e4) * r + 1.3731693765509461125e4) * r + 1.9715909503065514427e3) * r
               + 1.3314166789178437745e2) * r + 3.3871328727963666080e0) / (((((((5.2264952788528545610e3 * r
               + 2.8729085735721942674e4) * r + 3.9307895800092710610e4) * r + 2.1213794301586595867e4) * r
               + 5.3941960214247511077e3) * r + 6.8718700749205790830e2) * r + 4.2313330701600911252e1) * r + 1.0)  # fmt: skip  # noqa: E501
    r = p if q < 0.0 else 1.0 - p
    r = math.sqrt(-math.log(r))
    if r <= 5.0:
        r -= 1.6
        value = (((((((7.74545014278341407640e-4 * r + 2.27238449892691845833e-2) * r + 2.41780725177450611770e-1) * r
                 + 1.27045825245236838258e0) * r + 3.64784832476320460504e0) * r + 5.76949722146069140550e0) * r
                 + 4.63033784615654529590e0) * r + 1.42343711074968357734e0) / (((((((1.05075007164441684324e-9 * r
                 + 5.47593808499534494600e-4) * r + 1.51986665636164571966e-2) * r + 1.48103976427480074590e-1) * r
                 + 6.89767334985100004550e-1) * r + 1.67638483018380384940e0) * r + 2.05319162663775882187e0) * r + 1.0)  # fmt: skip  # noqa: E501
    else:
        r -= 5.0
        value = (((((((2.01033439929228813265e-7 * r + 2.71155556874348757815e-5) * r + 1.24266094738807843860e-3) * r
                 + 2.65321895265761230930e-2) * r + 2.96560571828504891230e-1) * r + 1.78482653991729133580e0) * r
                 + 5.46378491116411436990e0) * r + 6.65790464350110377720e0) / (((((((2.04426310338993978564e-15 * r
                 + 1.42151175831644588870e-7) * r + 1.84631831751005468180e-5) * r + 7.86869131145613259100e-4) * r
                 + 1.48753612908506148525e-2) * r + 1.36929880922735805310e-1) * r + 5.99832206555887937690e-1) * r + 1.0)  # fmt: skip  # noqa: E501
    return -value if q < 0.0 else value


def _quantile_table() -> np.ndarray:
    inner = np.array([normal_quantile(i / _CELLS) for i in range(1, _CELLS)])
    return np.concatenate([[inner[0]], inner, [inner[-1]]])


QUANTILES = _quantile_table()
"""Normal quantiles at multiples of 1/4096; linear between them errs by less than 2e-4 outside the exact ends."""


@kernel
def normal_from(fraction32: np.uint64) -> float:
    """Standard normal from a 32-bit uniform: interpolated inside, exact (AS 241) in the tails, to 6.3 sigma."""
    cell = np.int64(fraction32 >> _S20)
    if cell < _EDGE or cell >= _CELLS - _EDGE:
        return normal_quantile((float(fraction32) + 0.5) * _TWO_M32)
    low = QUANTILES[cell]
    return low + (QUANTILES[cell + 1] - low) * (float(fraction32 & _LOW20) * _TWO_M20)


@kernel
def normal_low(bits: np.uint64) -> float:
    """Standard normal from the low 32 bits."""
    return normal_from(bits & _LOW32)


@kernel
def normal_high(bits: np.uint64) -> float:
    """Standard normal from the high 32 bits."""
    return normal_from(bits >> _S32)


@kernel
def poisson(mean: float, z: float, seed: np.uint64, stream: int, tick: int) -> float:
    """Poisson variate of ``mean``: up to `NORMAL_FROM` inversion by a uniform drawn here, then a rounded normal ``z``.

    A whole number as a float: a tick waits for each conversion on the way to its counts.
    The normal branch carries the skewness term (z^2 - 1) / 6 of the Cornish-Fisher expansion.
    """
    if mean <= 0.0:
        return 0.0
    if mean > NORMAL_FROM:
        n = np.floor(math.sqrt(mean) * z + (mean + ((z * z - 1.0) * _SIXTH + 0.5)))
        return float(n) if n > 0.0 else 0.0
    u = uniform(draw(seed, stream, tick))
    p = math.exp(-mean)
    total = p
    n = 0.0
    while u > total and n < 200.0:
        n += 1.0
        p *= mean / n
        total += p
    return n
