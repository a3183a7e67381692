"""One way to compile: plain Python functions become kernels here, or stay plain under ``NUMBA_DISABLE_JIT=1``.

numba's own cache looks only at the file of the outermost function, so an edited interlock in a called module would go
on running in its old form.  The cache directory is therefore keyed by the hash of every source that is compiled, and
by the versions of numba, numpy and Python.  Where the sources lie does not matter: every checkout and every installed
wheel of the same sources finds the same kernels.  No fastmath: compiled and plain runs must agree bit for bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy
import platformdirs


@contextlib.contextmanager
def _without_scipy() -> Iterator[None]:
    """numba looks for scipy's BLAS where scipy happens to be installed, and no kernel has any linear algebra: half a
    second of every start, 24 MB and 370 mappings of every process, which each copy of a process pays for again."""
    unseen = "scipy" not in sys.modules
    if unseen:
        sys.modules["scipy"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if unseen:
            del sys.modules["scipy"]


with _without_scipy():
    import numba

    importlib.import_module("numba.np.arraymath")  # numba does it with its first kernel

F = TypeVar("F", bound=Callable[..., Any])
Record = Any
"""A numpy record whose fields are read as attributes, in compiled and in plain code."""

_ROOT = Path(__file__).resolve().parent.parent
_NOT_INLINED = frozenset({
    "run", "_failed", "_is_good_again", "ring_ms", "normal_quantile", "external_ok", "external_settled",
    "external_slow", "gate_by_line", "answer_of_drive",
})  # fmt: skip
"""The outermost loop, and functions that are rarely reached."""
_COMPILED = ("facility/rng.py", "facility/signals.py", "facility/states.py", "facility/external.py",
             "facility/jit.py", "facility/landing.py", "facility/physics/chamber.py", "facility/pv_catalogue.py",
             "interlocks/fast.py",
             "ioc_sim/*.py", "ioc_sim/physics/*.py")  # fmt: skip


def source_hash() -> str:
    """SHA-256 (first 16 hex digits) over all sources that take part in compiled code, and the tool versions."""
    digest = hashlib.sha256()
    digest.update(f"{numba.__version__} {numpy.__version__} {platform.python_version()}".encode())
    for pattern in _COMPILED:
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(path.relative_to(_ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_dir() -> Path:
    base = os.environ.get("IONCTL_KERNEL_CACHE") or platformdirs.user_cache_dir("ionctl")
    path = Path(base) / "kernels" / source_hash()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        path = Path(tempfile.gettempdir()) / "ionctl-kernels" / source_hash()
        path.mkdir(parents=True, exist_ok=True)
    return path


COMPILED = not numba.config.DISABLE_JIT
if COMPILED:
    numba.config.CACHE_DIR = str(_cache_dir())
    try:
        from numba.core import caching

        class SourceLocator(caching.UserProvidedCacheLocator):  # type: ignore[misc]
            """Files of ours by their place among the sources; numba would take the folder they were started from."""

            @classmethod
            def from_function(cls, py_func: Any, py_file: str) -> Any:
                """None for a file that is not ours: the next locator is asked."""
                return super().from_function(py_func, py_file) if Path(py_file).is_relative_to(_ROOT) else None

            @classmethod
            def get_suitable_cache_subpath(cls, py_file: str) -> str:
                """Folder within the cache."""
                return "-".join(Path(py_file).relative_to(_ROOT).parent.parts) or "-"

        others = [locator.__name__ for locator in caching.CacheImpl._locator_classes]
        numba.config.CACHE_LOCATOR_CLASSES = ",".join([f"{__name__}.SourceLocator", *others])
    except (ImportError, AttributeError):
        pass  # an older numba: each checkout compiles for itself


def _apart() -> dict[str, bool]:
    """The promise that no two arrays given to a kernel share memory, so that what is written to one need not be read
    again from all others: a tick takes 7 % less. numba has the flag, and no option for it; without it all is the same.
    """
    try:
        from numba.core.cpu import CPUTargetOptions
        from numba.core.options import TargetOptions

        CPUTargetOptions.noalias = TargetOptions.Mapping("noalias")
    except (ImportError, AttributeError):
        return {}
    return {"noalias": True}


def kernel(function: F) -> F:
    """Compile ``function`` (nogil, cached, exact arithmetic), or return it as it is when compiling is switched off."""
    if not COMPILED:
        return function
    return cast(
        F,
        numba.njit(
            cache=True,
            nogil=True,
            fastmath=False,
            error_model="numpy",
            _nrt=False,
            **(_apart() if function.__name__ == "run" else {}),
            forceinline=function.__name__ not in _NOT_INLINED,
        )(function),
    )
