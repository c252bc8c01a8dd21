"""The peak performance of this processor: small C programs, compiled here, for comparison in other benchmarks.

They use the kernels' instructions, so both have the same limits.

Some programs multiply and add in registers, in float32 and (with AMX) in bfloat16. Another one reads a number of bytes
repeatedly, an equal share on each core, from the cache or memory that stores them.

    python benchmarks/probes.py
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np

from charloom.kernels import chosen, cores

PROBES = """
#include <stddef.h>
#include <stdint.h>
#if defined(__AMX_BF16__)
#include <immintrin.h>
#endif

typedef float vector __attribute__((vector_size(4 * LANES)));

#if defined(__aarch64__)
#define REGISTER "w"
#elif defined(__AVX512F__)
#define REGISTER "v" /* one of 32 */
#else
#define REGISTER "x"
#endif

float sink_of_floats;

/* operations done */
double fp32(void) {
    vector sums[12], x = {0}, y = {0};
#pragma GCC unroll 12
    for (int k = 0; k < 12; k++) sums[k] = x + (float)k; /* different, or the compiler computes one for all */
    const long turns = 1 << 20;
    for (long n = 0; n < turns; n++) {
        __asm__ volatile("" : "+" REGISTER(x), "+" REGISTER(y));
#pragma GCC unroll 12
        for (int k = 0; k < 12; k++) sums[k] = sums[k] * x + y;
    }
#pragma GCC unroll 12
    for (int k = 0; k < 12; k++) y += sums[k];
    sink_of_floats = y[0];
    return turns * 12.0 * 2 * LANES;
}

double bf16(void) {
#if defined(__AMX_BF16__)
    struct __attribute__((aligned(64))) {
        uint8_t palette, rest[15];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shapes = {1};
    static float ones[2][256];
    const long turns = 1 << 16;
    for (int k = 0; k < 8; k++) shapes.bytes[k] = 64, shapes.rows[k] = 16;
    for (int k = 0; k < 256; k++) ones[0][k] = 1.1f, ones[1][k] = -0.7f;
    __asm__ volatile("" ::"r"(&shapes) : "memory");
    _tile_loadconfig(&shapes);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, ones[0], 64);
    _tile_loadd(5, ones[1], 64);
    _tile_loadd(6, ones[0], 64);
    _tile_loadd(7, ones[1], 64);
    for (long n = 0; n < turns; n++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return turns * 4.0 * 16 * 16 * 32 * 2;
#else
    return 0;
#endif
}

uint64_t sink;

/* bytes read */
double reading(const uint64_t* from, size_t count, long times) {
    uint64_t sums[64] = {0};
    for (long n = 0; n < times; n++) {
        for (size_t i = 0; i + 64 <= count; i += 64)
            for (int k = 0; k < 64; k++) sums[k] ^= from[i + k];
        __asm__ volatile("" ::: "memory");
    }
    for (int k = 0; k < 64; k++) sink ^= sums[k];
    return times * count * 8.0;
}
"""


class Probes:
    """The C programs, run on all cores at the same time. Results are sums over the cores, per second."""

    def __init__(self) -> None:
        kernels = chosen()  # the call also asks the system for permission to use AMX
        assert kernels.module is not None, kernels.reason
        flags = [*kernels.module.FLAGS.split(), f"-DLANES={kernels.module.LANES}"]
        with tempfile.TemporaryDirectory() as folder:
            source, library = Path(folder) / "probes.c", Path(folder) / "probes.so"
            source.write_text(PROBES)
            compiler = os.environ.get("CC", "cc")
            subprocess.run([compiler, "-O3", *flags, "-shared", "-fPIC", "-o", library, source], check=True)
            self._library = ctypes.CDLL(str(library))  # a CDLL call releases the GIL
        for probe in (self._library.fp32, self._library.bf16, self._library.reading):
            probe.restype = ctypes.c_double
        self._library.reading.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]

    @property
    def precisions(self) -> list[str]:
        """The number formats that can be measured on this processor."""
        return ["fp32", "bf16"] if chosen().tiles else ["fp32"]

    def operations(self, precision: str, seconds: float) -> float:
        """Multiplications and additions per second, in one of `precisions`."""
        probe = getattr(self._library, precision)
        return _on_all_cores(lambda _: float(probe()), seconds)

    def reading(self, size: int) -> Callable[[float], float]:
        """A function from seconds of measurement to bytes read per second, for `size` bytes on all cores together."""
        shares = [np.ones(size // 8 // cores(), np.uint64) for _ in range(cores())]
        times = max(1, 2**24 // shares[0].nbytes)  # so that a call takes much longer than Python's overhead

        def read(core: int) -> float:
            return float(self._library.reading(shares[core].ctypes.data, shares[core].size, times))

        return lambda seconds: _on_all_cores(read, seconds)


def _on_all_cores(work: Callable[[int], float], seconds: float) -> float:
    def repeat(core: int) -> float:
        done, start = 0.0, perf_counter()
        while perf_counter() - start < seconds:
            done += work(core)
        return done / (perf_counter() - start)

    with ThreadPoolExecutor(cores()) as threads:
        return sum(threads.map(repeat, range(cores())))


def without_kernels() -> bool:
    """Whether this machine has no kernels to compare with. If so, prints why."""
    if chosen().module is None:
        print(f"not measured: it needs charloom's kernels; {chosen().reason}")
    return chosen().module is None


def main() -> None:
    """Runs every probe."""
    if without_kernels():
        return
    probes = Probes()
    print(f"instructions of the kernels {chosen().name}, {cores()} cores")
    for precision in probes.precisions:
        print(f"{precision}: {probes.operations(precision, 1.0) / 1e9:.0f} GFLOP/s in registers")
    if "bf16" not in probes.precisions:
        print("bf16: not measured: it needs AMX")
    for size in (2**20, 2**21, 2**22, 2**24, 2**26, 2**28):
        print(f"{size >> 20} MiB: {probes.reading(size)(0.5) / 1e9:.0f} GB/s")


if __name__ == "__main__":
    main()
