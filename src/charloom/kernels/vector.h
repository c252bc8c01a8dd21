// Vector arithmetic: all vector operations that the kernels need.
//
// It uses the vector types of GCC and Clang, which exist on every processor. AVX-512, AVX2, NEON and SSE2 differ here
// only in LANES. #ifdef marks the few places where an intrinsic is faster than the compiler's code.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef CHARLOOM_LANES
#error "CHARLOOM_LANES must be defined by the build: 16 for AVX-512, 8 for AVX2, 4 for NEON and SSE2, 1 for scalar code"
#endif
#ifndef CHARLOOM_REGISTERS
#error "CHARLOOM_REGISTERS must be defined by the build: the vector registers that a product may fill, 16 or 32"
#endif

#define CHARLOOM_INLINE inline __attribute__((always_inline))
#define CHARLOOM_INLINE_LAMBDA __attribute__((always_inline))

namespace charloom {

constexpr int LANES = CHARLOOM_LANES;
constexpr int REGISTERS = CHARLOOM_REGISTERS;

using Floats = float __attribute__((vector_size(4 * LANES)));
using Ints = int32_t __attribute__((vector_size(4 * LANES)));
using Words = uint32_t __attribute__((vector_size(4 * LANES)));
using Halves = uint16_t __attribute__((vector_size(2 * LANES)));
using Bytes = uint8_t __attribute__((vector_size(LANES)));
using Bf16 = uint16_t;  // the upper half of a float32

// ---- memory; no alignment is needed

CHARLOOM_INLINE Floats load(const float* from) {
    Floats x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

CHARLOOM_INLINE Words load(const uint32_t* from) {
    Words x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

CHARLOOM_INLINE Ints load(const uint8_t* from) {
    Bytes x;
    std::memcpy(&x, from, sizeof x);
    return __builtin_convertvector(x, Ints);
}

CHARLOOM_INLINE void store(float* to, Floats x) { std::memcpy(to, &x, sizeof x); }
CHARLOOM_INLINE void store(uint32_t* to, Words x) { std::memcpy(to, &x, sizeof x); }

CHARLOOM_INLINE Floats splat(float x) { return x - Floats{}; }

// ---- reinterpretation of the same bits

CHARLOOM_INLINE Words bits(Floats x) { return (Words)x; }
CHARLOOM_INLINE Floats from_bits(Words x) { return (Floats)x; }

// ---- arithmetic

// If `a` is NaN, the result is NaN: a limit in `b` does not hide that training diverged. In some places
// GCC 12 makes two instructions of the plain code, a comparison and a choice.
#if defined(__AVX512F__)
CHARLOOM_INLINE Floats smaller(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)b, (__m512)a); }
CHARLOOM_INLINE Floats larger(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)b, (__m512)a); }
#elif defined(__AVX2__)
CHARLOOM_INLINE Floats smaller(Floats a, Floats b) { return (Floats)_mm256_min_ps((__m256)b, (__m256)a); }
CHARLOOM_INLINE Floats larger(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)b, (__m256)a); }
#else
CHARLOOM_INLINE Floats smaller(Floats a, Floats b) { return b < a ? b : a; }
CHARLOOM_INLINE Floats larger(Floats a, Floats b) { return b > a ? b : a; }
#endif

CHARLOOM_INLINE float sum(Floats x) {
    float total = 0;
    for (int lane = 0; lane < LANES; lane++) total += x[lane];
    return total;
}

CHARLOOM_INLINE float highest(Floats x) {
    float found = x[0];
    for (int lane = 1; lane < LANES; lane++) found = x[lane] > found ? x[lane] : found;
    return found;
}

CHARLOOM_INLINE Floats square_root(Floats x) {
    for (int lane = 0; lane < LANES; lane++) x[lane] = std::sqrt(x[lane]);
    return x;
}

// 1/x for x in [1, 2^121]: with AVX-512 an estimate of 14 bits and one step of Newton's method, to 1 ulp.
CHARLOOM_INLINE Floats reciprocal(Floats x) {
#if defined(__AVX512F__)
    Floats r = (Floats)_mm512_rcp14_ps((__m512)x);
    return r * (2.0f - x * r);
#else
    return 1.0f / x;
#endif
}

// 2^t to a relative error of 2e-7, for t in [-126, 126]. 2^t = 2^n 2^f; 2^f is the polynomial of degree 5 with the
// smallest largest relative error (Remez' exchange). f is in [0, 1) with AVX-512, whose instructions split and scale;
// elsewhere it is in [-1/2, 1/2].
CHARLOOM_INLINE Floats exp2_bounded(Floats t) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    Floats f = (Floats)_mm512_reduce_ps((__m512)t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    Floats p = f * 1.87757669e-3f + 8.98933969e-3f;
    p = p * f + 5.58263175e-2f;
    p = p * f + 0.240153611f;
    p = p * f + 0.693153083f;
    p = p * f + 0.99999994f;
    return (Floats)_mm512_scalef_ps((__m512)p, (__m512)t);
#else
    constexpr float ROUNDER = 12582912.0f;  // 1.5 * 2^23: adding it removes the fraction
    Floats shifted = t + ROUNDER;
    Floats f = t - (shifted - ROUNDER);
    Floats p = f * 1.32764725e-3f + 9.67554096e-3f;
    p = p * f + 5.55071309e-2f;
    p = p * f + 0.240221202f;
    p = p * f + 0.693146944f;
    p = p * f + 1.00000012f;
    return from_bits(bits(p) + (bits(shifted) << 23));
#endif
}

// t limited to `most` and to the smallest argument of exp2_bounded. AVX-512 needs no lower limit, because it gives 0.
CHARLOOM_INLINE Floats bounded(Floats t, float most) {
#if !defined(__AVX512F__) || !defined(__AVX512DQ__)
    t = larger(t, splat(-126.0f));
#endif
    return smaller(t, splat(most));
}

constexpr float LOG2E = 1.44269504088896341f;

// e^x. Below -87 it is 2^-126 or less, above 87 it is 2^126.
CHARLOOM_INLINE Floats exponential(Floats x) { return exp2_bounded(bounded(x * LOG2E, 126)); }

// 1 / (1 + e^-x); the bound keeps the denominator in the range of `reciprocal`.
CHARLOOM_INLINE Floats sigmoid(Floats x) { return reciprocal(1.0f + exp2_bounded(bounded(x * -LOG2E, 120))); }

// 1 - 2 / (1 + e^2x), to an absolute error of 2e-7.
CHARLOOM_INLINE Floats hyperbolic_tangent(Floats x) {
    Floats e = exp2_bounded(bounded(x * (2 * LOG2E), 120));
    return 1.0f - 2.0f * reciprocal(1.0f + e);
}

// ---- bfloat16, rounded to the nearest, ties to even; a quiet NaN stays one

CHARLOOM_INLINE Words rounded_up_half(Floats x) {  // the bits, with the rounding carried into the upper half
    Words word = bits(x);
    return word + 0x7fff + ((word >> 16) & 1);
}

CHARLOOM_INLINE Floats load(const Bf16* from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    return from_bits(__builtin_convertvector(halves, Words) << 16);
}

CHARLOOM_INLINE void store(Bf16* to, Floats x) {
#if defined(__AVX512BF16__)
    __m256bh halves = _mm512_cvtneps_pbh((__m512)x);
#else
    Halves halves = __builtin_convertvector(rounded_up_half(x) >> 16, Halves);
#endif
    std::memcpy(to, &halves, sizeof halves);
}

// Two vectors in one, as bfloat16: `low` in the lower half of each lane, `high` in the upper half. Ties, one number in
// 65,536, round away from zero, which takes half the instructions.
CHARLOOM_INLINE Words paired(Floats low, Floats high) {
    return ((bits(low) + 0x8000) >> 16) | ((bits(high) + 0x8000) & 0xffff0000u);
}

CHARLOOM_INLINE Floats low_half(Words pair) { return from_bits(pair << 16); }
CHARLOOM_INLINE Floats high_half(Words pair) { return from_bits(pair & 0xffff0000u); }

}  // namespace charloom
