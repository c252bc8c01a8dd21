// The formats of weights and hidden values, and their arithmetic.
//
//   PER_WORD    columns share a word
//   BATCH_ROWS  rows of a batch that are multiplied together, at most
//   IN_STAGES   whether `add` adds to a Partial sum of STAGE words, which `widened` converts
//   add         sum + weights * values
//   total       converts a finished sum to float
//   put         stores LANES hidden values of a batch row
//   word        the position of a column's values, both counted in words

#pragma once

#include <cstring>

#include "vector.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(CHARLOOM_NEON)
#include <arm_neon.h>
#endif

namespace charloom::inference {

// The sums of a group's strips and some rows of a batch fill the registers: 24 of 32, or 12 of 16. Two strips by six rows
// need the fewest other registers. Without AVX, a value needs a shuffle to reach all lanes, so three rows have it.
constexpr int SUMS = REGISTERS == 32 ? 24 : 12;
constexpr int GROUP_STRIPS = REGISTERS == 32 || LANES < 8 ? 4 : 2;  // at most

// A word of values in all lanes.
CHARLOOM_INLINE Words in_all_lanes(uint32_t values) {
    Words all = values - Words{};
#if defined(__AVX2__) && !defined(__AVX512F__)
    asm("" : "+x"(all));  // else GCC takes the halves of bf16 first, and needs two shuffles to copy each to all lanes
#endif
    return all;
}

struct Fp32 {
    using Sum = Floats;
    static constexpr int PER_WORD = 1;
    static constexpr bool IN_STAGES = false;
    static constexpr int BATCH_ROWS = SUMS / GROUP_STRIPS;

    static constexpr int word(int column) { return column; }
    static CHARLOOM_INLINE Floats add(Floats sum, Words weights, Words values) {
        return from_bits(weights) * from_bits(values) + sum;
    }
    static CHARLOOM_INLINE Floats total(Floats sum, const float*, const int32_t*) { return sum; }
    static CHARLOOM_INLINE void put(uint32_t* to, int unit, Floats h) { store(to + unit, bits(h)); }
};

struct Bfloat16 {
    using Sum = Floats;
    static constexpr int PER_WORD = 2;
    static constexpr bool IN_STAGES = false;
    static constexpr int BATCH_ROWS =
        (REGISTERS == 32 ? SUMS : 8) / GROUP_STRIPS;  // without its own instruction, it unpacks halves

    static constexpr int word(int column) { return column; }
    static CHARLOOM_INLINE Floats add(Floats sum, Words weights, Words values) {
#if defined(__AVX512BF16__)
        return (Floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)weights, (__m512bh)values);
#else
        sum = low_half(weights) * low_half(values) + sum;
        return high_half(weights) * high_half(values) + sum;
#endif
    }
    static CHARLOOM_INLINE Floats total(Floats sum, const float*, const int32_t*) { return sum; }
    static CHARLOOM_INLINE void put(uint32_t* to, int unit, Floats h) { store(reinterpret_cast<Bf16*>(to) + unit, h); }
};

// A weight is an integer of at most ±63 times its row's scale. A hidden value is an integer of at most ±127 times 1/127.
// Sums of products are exact, so they are the same on every processor.
//
// Without VNNI, AVX2 is fast only with sums of 16 bits. So the scale of a row is so large that the sum of a stage of
// STAGE words fits 16 bits, whatever the values: `row_scale` in matrix.cpp.
struct Integers {
    using Sum = Ints;
    static constexpr int PER_WORD = 4;
    static constexpr float VALUE = 1.0f / 127;  // |h| ≤ 1 in every bounded cell, so a fixed scale is enough
    static constexpr int MOST_WEIGHT = 63;
    static constexpr int STAGE = 4;                 // 16 columns, which divide every padded width
    static constexpr int MOST_STAGE = 32767 / 127;  // the sum of |weights| in the upper or lower halves of its words
    static constexpr bool IN_STAGES = false;
    static constexpr int OFFSET = 0;         // is added to each value
    static constexpr int WEIGHT_OFFSET = 0;  // is added to each weight

    static constexpr int word(int column) { return column; }

    static CHARLOOM_INLINE Floats total(Ints sum, const float* scales, const int32_t* added) {
        Ints offset;
        std::memcpy(&offset, added, sizeof offset);
        return __builtin_convertvector(sum - offset, Floats) * load(scales);
    }
    // The nearest integers to 127 h, which must be in [-1, 1].
    static CHARLOOM_INLINE Ints whole(Floats h) {
        constexpr float ROUNDER = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
        return (Ints)bits(h * 127.0f + ROUNDER) - (Ints)bits(splat(ROUNDER));
    }
    // The lowest bytes of all lanes.
    static CHARLOOM_INLINE Bytes bytes(Ints whole) {
#if defined(__AVX2__) && CHARLOOM_LANES == 8  // GCC converts one lane after the other
        __m256i low = _mm256_and_si256((__m256i)whole, _mm256_set1_epi32(255));
        __m128i shorts = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
        return (Bytes)_mm_cvtsi128_si64(_mm_packus_epi16(shorts, shorts));
#else
        return __builtin_convertvector(whole, Bytes);
#endif
    }
    static CHARLOOM_INLINE void put_bytes(uint32_t* to, int unit, Bytes bytes) {
        std::memcpy(reinterpret_cast<uint8_t*>(to) + unit, &bytes, sizeof bytes);
    }
    static CHARLOOM_INLINE void put(uint32_t* to, int unit, Floats h) { put_bytes(to, unit, bytes(whole(h))); }
};

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

// VPDPBUSD needs one unsigned factor: 128 is added to the values, and `total` subtracts what that added.
struct Int8 : Integers {
    static constexpr int BATCH_ROWS = SUMS / GROUP_STRIPS;
    static constexpr int OFFSET = 128;

    static CHARLOOM_INLINE Ints add(Ints sum, Words weights, Words values) {
#if defined(__AVX512VNNI__)
        return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)values, (__m512i)weights);
#else
        return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)values, (__m256i)weights);
#endif
    }
    static CHARLOOM_INLINE void put(uint32_t* to, int unit, Floats h) { put_bytes(to, unit, bytes(whole(h) + OFFSET)); }
};

#elif defined(__AVX2__)

// VPMADDUBSW multiplies bytes, one of them unsigned, and adds pairs. Weights are unsigned: 64 is added. So that a stage
// ends with the sum of the signed weights, it starts with -64 times the sum of the values, which is a word after those of
// the stage. On the way, a sum may exceed 16 bits: it wraps around, and back.
struct Int8 : Integers {
    using Partial = uint16_t __attribute__((vector_size(4 * LANES)));  // unsigned, so that C++ defines wrapping
    static constexpr int BATCH_ROWS = 5;  // five are faster than six, which need one register more for products
    static constexpr bool IN_STAGES = true;
    static constexpr int WEIGHT_OFFSET = MOST_WEIGHT + 1;

    static constexpr int word(int column) { return column / STAGE * (STAGE + 1) + column % STAGE; }

    static CHARLOOM_INLINE Partial add(Partial sum, Words weights, Words values) {
        sum += (Partial)_mm256_maddubs_epi16((__m256i)weights, (__m256i)values);
        asm("" : "+x"(sum));  // else GCC adds products to each other first, and runs out of registers
        return sum;
    }
    static CHARLOOM_INLINE Ints widened(Partial sum) {
        return (Ints)_mm256_madd_epi16((__m256i)sum, _mm256_set1_epi16(1));
    }
    // The units of a stage must be put in their order.
    static CHARLOOM_INLINE void put(uint32_t* to, int unit, Floats h) {
        unsigned column = unsigned(unit) / PER_WORD, first = column / STAGE * STAGE;
        uint32_t *values = to + word(column), *start = to + word(first) + STAGE;
        Bytes eight = bytes(whole(h));
        put_bytes(values, 0, eight);
        // the sums of the first halves of both words, and of their second halves
        __m128i pairs = _mm_maddubs_epi16(_mm_set1_epi8(1), _mm_cvtsi64_si128((long long)eight));
        __m128i sums = _mm_add_epi16(pairs, _mm_srli_epi64(pairs, 32));
        __m128i before = column == first ? _mm_setzero_si128() : _mm_cvtsi32_si128(static_cast<int>(*start));
        *start = _mm_cvtsi128_si32(_mm_sub_epi16(before, _mm_mullo_epi16(sums, _mm_set1_epi16(WEIGHT_OFFSET))));
    }
};

#elif defined(CHARLOOM_NEON)

// SMULL of eight bytes each, to 16 bits. Pairs are added to 32 bits, and two neighbours are a word's sum.
struct Int8 : Integers {
    static constexpr int BATCH_ROWS = SUMS / GROUP_STRIPS;

    static CHARLOOM_INLINE Ints add(Ints sum, Words weights, Words values) {
        int8x16_t w = (int8x16_t)weights, v = (int8x16_t)values;
        int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(v)));
        int32x4_t high = vpaddlq_s16(vmull_high_s8(w, v));
        return sum + (Ints)vpaddq_s32(low, high);
    }
};

#else

struct Int8 : Integers {
    static constexpr int BATCH_ROWS = SUMS / GROUP_STRIPS;

    static CHARLOOM_INLINE Ints add(Ints sum, Words weights, Words values) {
        Ints w = (Ints)weights, v = (Ints)values;
        for (int shift = 24; shift >= 0; shift -= 8) sum += ((w << shift) >> 24) * ((v << shift) >> 24);
        return sum;
    }
};

#endif

}  // namespace charloom::inference
