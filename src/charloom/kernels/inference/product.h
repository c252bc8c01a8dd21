// Weights times hidden values, in each precision, for a few rows of a batch at a time.
//
// The speed of reading weights from memory limits the generation of one sequence, so weights are stored in reading
// order. A strip is LANES rows of weights side by side. A group has the strips that are multiplied by several batch
// rows together. A panel is one group or two. If both groups are full, a single batch row is multiplied by both
// together. A word is 32 bits: one float, two bfloat16 or four bytes, so a strip's next columns are always one vector
// of words. Lanes are rows of weights: nothing is summed across lanes, and each sum is one chain over the columns in
// their order. So a batch row is bit for bit the same alone and in any batch, at any number of threads.

#pragma once

#include "products/tiles.h"
#include "vector.h"

#include <algorithm>
#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(CHARLOOM_NEON)
#include <arm_neon.h>
#endif

namespace charloom::inference {

constexpr int MOST_STRIPS = 8;   // of a panel: enough chains to hide an addition's latency
constexpr int GROUP_STRIPS = 4;  // at most

// The arithmetic of a precision. PER_WORD columns share a word. `add` is sum + weights * values. `total` converts a
// finished sum to float. `put` converts LANES hidden values to the format of `add`; for Int8, each must be in [-1, 1].
struct Fp32 {
    using Sum = Floats;
    static constexpr int PER_WORD = 1;

    static CHARLOOM_INLINE Floats add(Floats sum, Words weights, Words values) {
        return from_bits(weights) * from_bits(values) + sum;
    }
    static CHARLOOM_INLINE Floats total(Floats sum, const float*, const int32_t*) { return sum; }
    static CHARLOOM_INLINE void put(uint32_t* to, int unit, Floats h) { store(to + unit, bits(h)); }
};

struct Bfloat16 {
    using Sum = Floats;
    static constexpr int PER_WORD = 2;

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

// A weight is an integer of at most ±127 times its row's scale. A hidden value is an integer of at most ±127 times
// 1/127. Sums of products are exact, so they are the same on every processor.
struct Int8 {
    using Sum = Ints;
    static constexpr int PER_WORD = 4;
    static constexpr float VALUE = 1.0f / 127;  // |h| ≤ 1 in every bounded cell, so a fixed scale is enough
#if defined(__AVX512VNNI__)
    // VPDPBUSD needs one unsigned factor: 128 is added to the values, and `total` subtracts what that added.
    static constexpr int32_t OFFSET = 128;
#else
    static constexpr int32_t OFFSET = 0;
#endif

    static CHARLOOM_INLINE Ints add(Ints sum, Words weights, Words values) {
#if defined(__AVX512VNNI__)
        return (Ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)values, (__m512i)weights);
#elif defined(__AVX2__)
        // VPMADDWD on the even bytes and on the odd bytes, widened, because VPMADDUBSW saturates
        __m256i w = (__m256i)weights, v = (__m256i)values;
        __m256i even = _mm256_madd_epi16(_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8),
                                         _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8));
        __m256i odd = _mm256_madd_epi16(_mm256_srai_epi16(w, 8), _mm256_srai_epi16(v, 8));
        return sum + (Ints)_mm256_add_epi32(even, odd);
#elif defined(CHARLOOM_NEON)
        // SMULL of eight bytes each, to 16 bits. Pairs are added to 32 bits, and two neighbours are a word's sum.
        int8x16_t w = (int8x16_t)weights, v = (int8x16_t)values;
        int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(v)));
        int32x4_t high = vpaddlq_s16(vmull_high_s8(w, v));
        return sum + (Ints)vpaddq_s32(low, high);
#else
        Ints w = (Ints)weights, v = (Ints)values;
        for (int shift = 24; shift >= 0; shift -= 8) sum += ((w << shift) >> 24) * ((v << shift) >> 24);
        return sum;
#endif
    }
    static CHARLOOM_INLINE Floats total(Ints sum, const float* scales, const int32_t* added) {
        Ints offset;
        std::memcpy(&offset, added, sizeof offset);
        return __builtin_convertvector(sum - offset, Floats) * load(scales);
    }
    static CHARLOOM_INLINE void put(uint32_t* to, int unit, Floats h) {
        using Bytes = int8_t __attribute__((vector_size(LANES)));
        constexpr float ROUNDER = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
        Ints whole = (Ints)bits(h * 127.0f + ROUNDER) - (Ints)bits(splat(ROUNDER)) + OFFSET;
        Bytes bytes = __builtin_convertvector(whole, Bytes);
        std::memcpy(reinterpret_cast<int8_t*>(to) + unit, &bytes, sizeof bytes);
    }
};

// Rows of a batch that are multiplied together. With 4 strips and 32 registers: 24 sums, values of 6 rows and a strip.
// With 16: 12 sums, values of 3 rows and a strip. Without its own instruction, bf16 takes some to unpack its halves.
template <class Format>
constexpr int MOST_BATCH_ROWS = REGISTERS == 32                    ? 6
                                : std::is_same_v<Format, Bfloat16> ? 2
                                                                   : 3;

// Many rows are multiplied by a piece of a group's columns at a time, which stays in the first-level cache for all rows.
// With 32 registers the second-level cache is fast enough, because more rows share what is read.
constexpr bool IN_PIECES = REGISTERS == 16;
constexpr int PIECE_WORDS = 4 << 10;  // 16 KiB: half of a small first-level cache

// What `multiply` needs from a panel and from a batch.
struct PanelView {
    const uint32_t* words;  // the first group's
    size_t apart;           // distance between two groups, in words
    int between;            // distance between two columns of a group, in words
    int columns;            // counted in words
    const float* scales;    // of the strips' rows
    const int32_t* added;

    const uint32_t* strip(int number) const {
        int group = between / LANES;
        return words + number / group * apart + number % group * LANES;
    }
};

struct BatchView {
    const uint32_t* words;
    size_t between;  // distance between two batch rows, in words
};

// Which columns a product has: the first ones, the last ones, or both.
struct Piece {
    bool first = true, last = true;
};

// sums[b][strip][lane] for BATCH_ROWS rows and the first STRIPS strips of each of GROUPS groups. With two groups,
// STRIPS is all strips. The sums of two rows are `sums_between` numbers apart. Columns may come in several pieces, one
// after the other: `sums` holds the unfinished sums in between, so the order of the additions stays the same.
template <class Format, int GROUPS, int STRIPS, int BATCH_ROWS>
inline void multiply(const PanelView& panel, const BatchView& batch, float* sums, size_t sums_between,
                     Piece piece = {}) {
    constexpr int ALL = GROUPS * STRIPS;
    typename Format::Sum sum[BATCH_ROWS][ALL] = {};
    if (IN_PIECES && !piece.first)
#pragma GCC unroll 8
        for (int b = 0; b < BATCH_ROWS; b++)
#pragma GCC unroll 8
            for (int strip = 0; strip < ALL; strip++)
                std::memcpy(&sum[b][strip], sums + b * sums_between + strip * LANES, sizeof sum[b][strip]);
    const uint32_t* words = panel.words;
    for (int column = 0; column < panel.columns; column++, words += panel.between) {
        Words values[BATCH_ROWS];
#pragma GCC unroll 8
        for (int b = 0; b < BATCH_ROWS; b++) values[b] = batch.words[b * batch.between + column] - Words{};
#pragma GCC unroll 8
        for (int strip = 0; strip < ALL; strip++) {
            Words weights = load(words + strip / STRIPS * panel.apart + strip % STRIPS * LANES);
#pragma GCC unroll 8
            for (int b = 0; b < BATCH_ROWS; b++) sum[b][strip] = Format::add(sum[b][strip], weights, values[b]);
        }
    }
#pragma GCC unroll 8
    for (int b = 0; b < BATCH_ROWS; b++)
#pragma GCC unroll 8
        for (int strip = 0; strip < ALL; strip++) {
            float* to = sums + b * sums_between + strip * LANES;
            if (!IN_PIECES || piece.last)
                store(to, Format::total(sum[b][strip], panel.scales + strip * LANES, panel.added + strip * LANES));
            else
                std::memcpy(to, &sum[b][strip], sizeof sum[b][strip]);
        }
}

#if defined(__AMX_INT8__)

// Many batch rows in int8 with AMX's tiles: the same integer sums. The 16 words of a strip are the rows of a tile.
struct ByTiles {
    static constexpr int BATCH_ROWS = 16, WORDS = 16;  // of a tile

    static bool fit(int columns, int count) { return columns % WORDS == 0 && count >= BATCH_ROWS; }

    // Multiplies groups of rows together. The last group may repeat some rows.
    static void multiply(const PanelView& panel, int strips, const BatchView& batch, int count, float* sums,
                         size_t sums_between) {
        Tiles here(BATCH_ROWS);
        for (int strip = 0; strip < strips; strip += 2)
            for (int b = 0; b < count; b += 2 * BATCH_ROWS) {
                int firsts[2] = {std::min(b, count - BATCH_ROWS), std::min(b + BATCH_ROWS, count - BATCH_ROWS)};
                int pair[2] = {strip, std::min(strip + 1, strips - 1)};
                alignas(64) int32_t found[2][2][BATCH_ROWS][LANES];
                four(panel, pair, batch, firsts, found);
                for (int group = 0; group < 2; group++)
                    for (int n = 0; n < BATCH_ROWS; n++)
                        for (int side = 0; side < 2; side++) {
                            Ints sum;
                            std::memcpy(&sum, found[group][side][n], sizeof sum);
                            int rows = pair[side] * LANES;
                            store(sums + (firsts[group] + n) * sums_between + rows,
                                  Int8::total(sum, panel.scales + rows, panel.added + rows));
                        }
            }
    }

private:
    static void four(const PanelView& panel, const int (&strips)[2], const BatchView& batch, const int (&firsts)[2],
                     int32_t (&found)[2][2][BATCH_ROWS][LANES]) {
        const uint32_t *left = panel.strip(strips[0]), *right = panel.strip(strips[1]);
        const uint32_t *upper = batch.words + firsts[0] * batch.between,
                       *lower = batch.words + firsts[1] * batch.between;
        size_t weights = panel.between * sizeof(uint32_t), values = batch.between * sizeof(uint32_t);
        asm volatile("" ::: "memory");
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int column = 0; column < panel.columns; column += WORDS) {
            _tile_loadd(4, upper + column, values);
            _tile_loadd(6, left + size_t(column) * panel.between, weights);
            _tile_loadd(7, right + size_t(column) * panel.between, weights);
            _tile_loadd(5, lower + column, values);
            _tile_dpbusd(0, 4, 6);
            _tile_dpbusd(1, 4, 7);
            _tile_dpbusd(2, 5, 6);
            _tile_dpbusd(3, 5, 7);
        }
        _tile_stored(0, found[0][0], 64);
        _tile_stored(1, found[0][1], 64);
        _tile_stored(2, found[1][0], 64);
        _tile_stored(3, found[1][1], 64);
        asm volatile("" ::: "memory");
    }
};

#endif

}  // namespace charloom::inference
