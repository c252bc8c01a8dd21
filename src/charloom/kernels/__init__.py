"""The kernels: optional C++ for this processor, and the choice of one of its variants.

Each instruction set has its own extension module: `_portable`, `_avx2`, `_avxvnni`, `_avx512` or `_neon`. All are
compiled from the same sources with different flags, and have the same functions. `amx` is `_avx512` with permission to
use AMX's tiles. A variant whose instructions the processor lacks is never loaded, because loading runs code. NumPy can
do everything that a kernel does, but slower.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from charloom.errors import DeviceError, SettingsError
from charloom.kernels.container import cpu_limit

_AVX2 = ("avx2", "fma", "f16c")
_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx512_bf16", "fma")

# The fastest first. The values are the processor features that each needs, as /proc/cpuinfo names them: the flags of
# CMakeLists.txt. Every 64-bit ARM processor has what `neon` needs; no other has it.
VARIANTS = {
    "amx": (*_AVX512, "amx_tile", "amx_bf16", "amx_int8"),
    "avx512": _AVX512,
    "avxvnni": (*_AVX2, "avx_vnni"),
    "avx2": _AVX2,
    "neon": ("asimd",),
    "portable": (),
}
# The most threads that may be asked for, even with fewer cores. A sum of training depends on the number of threads, so
# a small machine needs that number to repeat a run of a large one. With 2000 threads on two cores, a step took seconds.
MOST_THREADS = 64
FORCE = "CHARLOOM_KERNELS"  # the environment variable that names a variant, or is `off`


@dataclass(frozen=True)
class KernelChoice:
    """The kernels that a process uses.

    name: the variant, or `none`.
    module: its functions; None means NumPy.
    reason: why this variant was chosen, in a few words.
    notice: a message to show once if NumPy replaces the kernels and the user did not ask for that.
    """

    name: str
    module: ModuleType | None
    reason: str
    notice: str | None = None

    @property
    def tiles(self) -> bool:
        """Whether AMX may multiply."""
        return self.name == "amx"


@cache
def chosen() -> KernelChoice:
    """The variant to use: the one that CHARLOOM_KERNELS names, else the fastest that runs here. Chosen once.

    Raises:
        SettingsError: if CHARLOOM_KERNELS does not name a variant.
        DeviceError: if the named variant is not built, or if this processor cannot run it.
    """
    forced = os.environ.get(FORCE, "")
    if forced == "off":
        return KernelChoice("none", None, f"{FORCE}=off")
    if forced:
        return KernelChoice(forced, open_variant(forced), f"{FORCE}={forced}")
    return _fastest()


def open_variant(name: str) -> ModuleType:
    """The functions of one variant.

    Raises:
        SettingsError: if no variant has that name.
        DeviceError: if it is not built, or if this processor cannot run it.
    """
    if name not in VARIANTS:
        raise SettingsError(f"{FORCE} must be one of {', '.join(VARIANTS)}, off; got {name!r}")
    if why := obstacle(name):
        raise DeviceError(
            f"the kernels {name!r} cannot be used: {why}; this machine runs: {', '.join(runnable()) or 'none'}"
        )
    try:
        return importlib.import_module(_module(name))
    except ImportError as error:  # for example, if a C++ library is missing or too old
        raise DeviceError(
            f"the kernels {name!r} do not load: {error}; {FORCE}=off trains and generates without kernels"
        ) from error


def cores() -> int:
    """The number of cores that this process may use; not more than a container's CPU limit, rounded up."""
    able = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(able, cpu_limit())))


def thread_count(asked: int | None) -> int:
    """The number of threads to use; `asked` is the user's number, or None."""
    return min(asked, max(cores(), MOST_THREADS)) if asked else cores()


def runnable() -> list[str]:
    """The variants that are built and that this processor can run, the fastest first."""
    return [name for name in VARIANTS if not obstacle(name)]


def obstacle(name: str) -> str | None:
    """The reason why a variant cannot be used here, or None."""
    lacking = sorted(set(VARIANTS[name]) - cpu_features())
    if lacking and _is_built("portable"):  # its module reads the features
        return f"this processor lacks {', '.join(lacking)}"
    return None if _is_built(name) else "not built"


@cache
def cpu_features() -> frozenset[str]:
    """The features of this processor that variants may need.

    On a processor with AMX, the call also requests permission to use it, for this process and its forks.
    """
    try:
        return frozenset(importlib.import_module(_module("portable")).cpu_features())
    except ImportError:
        return frozenset()


def _fastest() -> KernelChoice:
    names = runnable()
    if not names:
        return _nothing("not built; building needs a C++ compiler and Python's headers (in a checkout: make kernels)")
    try:
        module = open_variant(names[0])
    except DeviceError as error:
        return _nothing(str(error))
    faster = list(VARIANTS)[: list(VARIANTS).index(names[0])]
    missing = [name for name in faster if cpu_features() >= set(VARIANTS[name])]
    reason = "the fastest kernels for this processor"
    return KernelChoice(
        names[0], module, f"{reason} that are built; not built: {', '.join(missing)}" if missing else reason
    )


def _nothing(why: str) -> KernelChoice:
    return KernelChoice(
        "none", None, why, f"charloom's kernels are not used, so NumPy computes, which is slower ({why})"
    )


def _is_built(name: str) -> bool:
    return importlib.util.find_spec(_module(name)) is not None


def _module(name: str) -> str:
    return f"{__name__}._{'avx512' if name == 'amx' else name}"
