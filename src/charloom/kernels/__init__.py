"""The kernels: C++ for the processor at hand, where it was built; and the choice of one of its variants.

Each instruction set has an extension module of its own, `_portable`, `_avx2`, `_avx512` or `_neon`, compiled from the
same sources with other flags and offering the same functions; `amx` is `_avx512` with leave to use its tiles. A variant
whose instructions the processor lacks is never loaded, since loading runs code. Everything that a kernel does, NumPy
does too, only slower.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from charloom.errors import DeviceError, SettingsError

_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx512_bf16", "fma")

# The fastest first, each with what it needs of the processor, as /proc/cpuinfo names it: the flags of CMakeLists.txt.
# Every 64-bit ARM has what `neon` needs, and no other processor has it.
VARIANTS = {
    "amx": (*_AVX512, "amx_tile", "amx_bf16", "amx_int8"),
    "avx512": _AVX512,
    "avx2": ("avx2", "fma", "f16c"),
    "neon": ("asimd",),
    "portable": (),
}
# So many threads may be asked for on fewer cores: a sum of training depends on their number, so that a run of a large
# machine can be repeated on a small one. With 2000, two cores came to one step in seconds.
MOST_THREADS = 64
FORCE = "CHARLOOM_KERNELS"  # the environment variable that names a variant, or is `off`


@dataclass(frozen=True)
class KernelChoice:
    """The kernels that a process uses.

    name: the variant, or `none`.
    module: its functions; None means NumPy.
    reason: why this one, in a few words.
    notice: what to tell a person once, where NumPy takes the kernels' place unasked.
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
    """The variant to use: the one that CHARLOOM_KERNELS names, else the fastest that runs here. Settled once.

    Raises:
        SettingsError: if CHARLOOM_KERNELS names no variant.
        DeviceError: if it names one that is not built, or that this processor cannot run.
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
        SettingsError: if there is no variant of that name.
        DeviceError: if it is not built, or this processor cannot run it.
    """
    if name not in VARIANTS:
        raise SettingsError(f"{FORCE} must be one of {', '.join(VARIANTS)}, off; got {name!r}")
    if why := obstacle(name):
        raise DeviceError(
            f"the kernels {name!r} cannot be used: {why}; this machine runs: {', '.join(runnable()) or 'none'}"
        )
    try:
        return importlib.import_module(_module(name))
    except ImportError as error:  # a C++ library that is missing or too old
        raise DeviceError(
            f"the kernels {name!r} do not load: {error}; {FORCE}=off trains and generates without kernels"
        ) from error


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count(asked: int | None) -> int:
    """How many threads to use where a person asked for so many, or for none in particular."""
    return min(asked, max(cores(), MOST_THREADS)) if asked else cores()


def runnable() -> list[str]:
    """The variants that are built and that this processor runs, the fastest first."""
    return [name for name in VARIANTS if not obstacle(name)]


def obstacle(name: str) -> str | None:
    """Why a variant cannot be used here, or None."""
    lacking = sorted(set(VARIANTS[name]) - cpu_features())
    if lacking and _is_built("portable"):  # which is what reads the features
        return f"this processor lacks {', '.join(lacking)}"
    return None if _is_built(name) else "not built"


@cache
def cpu_features() -> frozenset[str]:
    """What this processor can do of what the variants need.

    Where it has AMX, asking also gets this process, and what it forks, the leave to use it.
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
