// Products of bfloat16 numbers, summed in float32, with AMX's tiles or with the dot products of AVX512-BF16.
//
// Both read a pair of numbers, adjacent in depth, as one 32-bit lane. So they share all layouts: a block of weights for
// one column vector is 16 rows of 16 lanes, and row p has depths 2p and 2p + 1 of 16 columns.

#pragma once

#if defined(__AVX512BF16__)

#include "products/fp32.h"
#include "products/tiles.h"

namespace charloom {

CHARLOOM_INLINE Words load_words(const Bf16* from) { return load(reinterpret_cast<const uint32_t*>(from)); }
CHARLOOM_INLINE void store_words(Bf16* to, Words x) { store(reinterpret_cast<uint32_t*>(to), x); }

// 32 adjacent numbers as bfloat16.
CHARLOOM_INLINE Words halved(const float* from) {
    return (Words)_mm512_cvtne2ps_pbh((__m512)load(from + LANES), (__m512)load(from));
}

// The members that the two kinds of product share.
struct HalfPrecisionLayout {
    using Number = Bf16;
    using Saved = uint32_t;
    static constexpr const char* NAME = "bfloat16";
    static constexpr int DEPTH = 32;
    static constexpr int PAIR = LANES;
    static constexpr int SQUARE = 16 * DEPTH;  // a block of one column vector
    static constexpr int PACKED_PAIR = 2 * SQUARE;

    static CHARLOOM_INLINE void save(uint32_t* to, Floats a, Floats b) { store(to, paired(a, b)); }
    static CHARLOOM_INLINE Floats first(const uint32_t* from) { return low_half(load(from)); }
    static CHARLOOM_INLINE Floats second(const uint32_t* from) { return high_half(load(from)); }

    // 2^t to a relative error of 3e-6, by a polynomial of degree 4 on [0, 1). 0 and infinity outside float32's range.
    static CHARLOOM_INLINE Floats exp2(Floats t) {
        Floats f = (Floats)_mm512_reduce_ps((__m512)t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
        Floats p = f * 0.0135341678f + 0.0520114601f;
        p = p * f + 0.241442755f;
        p = p * f + 0.693003833f;
        p = p * f + 1.00000262f;
        return (Floats)_mm512_scalef_ps((__m512)p, (__m512)t);
    }

    // Both to 1e-4, because a product's own error is 4e-3. So Newton's step after the reciprocal is left out.
    static CHARLOOM_INLINE Floats sigmoid(Floats x) {
        return (Floats)_mm512_rcp14_ps((__m512)(1.0f + exp2(x * -LOG2E)));
    }
    static CHARLOOM_INLINE Floats tanh(Floats x) {
        return 1.0f - 2.0f * (Floats)_mm512_rcp14_ps((__m512)(1.0f + exp2(x * (2 * LOG2E))));
    }

    static void pack_rows(const float* matrix, int stride, Bf16* to, int side) {
        Words square[LANES];
        for (int lane = 0; lane < LANES; lane++) square[lane] = halved(matrix + size_t(lane) * stride);
        transpose(square);
        for (int p = 0; p < 16; p++) store_words(to + side * SQUARE + p * DEPTH, square[p]);
    }

    static void pack_columns(const float* matrix, int stride, Bf16* to, int side) {
        for (int p = 0; p < 16; p++) {
            const float* row = matrix + size_t(2 * p) * stride;
            store_words(to + side * SQUARE + p * DEPTH, paired(load(row), load(row + stride)));
        }
    }
};

// The rows of two panels, interleaved: a lane is a column of both, a pair in depth. The instructions work within 128
// bits, so `low` has columns 0 to 3 of every 8, and `high` the others. `deinterleave` restores the order of 32 results.
CHARLOOM_INLINE void interleave(Words upper, Words lower, Words& low, Words& high) {
    low = (Words)_mm512_unpacklo_epi16((__m512i)upper, (__m512i)lower);
    high = (Words)_mm512_unpackhi_epi16((__m512i)upper, (__m512i)lower);
}

CHARLOOM_INLINE int interleaved_column(int half, int n) { return n / 4 * 8 + half * 4 + n % 4; }

CHARLOOM_INLINE void deinterleave(Words low, Words high, float* to) {
    store(to, from_bits(__builtin_shufflevector(low, high, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23)));
    store(to + LANES,
          from_bits(__builtin_shufflevector(low, high, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31)));
}

// Weight gradients (`outer.h`), as products of blocks. Depth is the rows; row r of two panels is pair r. `Tiles`
// multiplies the packed blocks, with x on the left: packing the left side costs more, and x is usually narrower. So the
// sums are those of the transposed result, and are transposed at the end.
template <class Tiles, int ROWS>
struct HalfPrecisionOuter {
    using Number = Bf16;
    static constexpr int DEPTH = HalfPrecisionLayout::DEPTH, STRIP = DEPTH, SQUARE = HalfPrecisionLayout::SQUARE;
    static constexpr int BLOCKS = 16, STRIPS = 8, PAIRS = 16, PANELS = 2 * PAIRS;
    static constexpr int PACKED_D = 2 * PAIRS * SQUARE, PACKED_X = PACKED_D, SUMS = 4 * TILE;

    template <class View>
    static int pack_d(View d, Range blocks, int m, int count, Heights heights, Bf16* to) {
        return pack<false>(d, blocks, m, count, heights, to);
    }

    template <class View>
    static int pack_x(View x, Range strips, int m, int count, Heights heights, Bf16* to) {
        return pack<true>(x, strips, m, count, heights, to);
    }

    static void accumulate(const Bf16* d, const Bf16* x, int pairs, float* sums, bool fresh) {
        Tiles::accumulate(x, d, PAIRS * SQUARE, pairs, sums, fresh);
    }

    // From sums[half of x][half of d][16 of x][16 of d] to rows of d.
    static void unpack(const float* sums, float* to, int stride) {
        for (int half = 0; half < 2; half++) {
            Words low[LANES], high[LANES];
            for (int n = 0; n < LANES; n++) {
                low[n] = bits(load(sums + half * TILE + n * LANES));
                high[n] = bits(load(sums + (2 + half) * TILE + n * LANES));
            }
            transpose(low);
            transpose(high);
            for (int n = 0; n < LANES; n++)
                deinterleave(low[n], high[n], to + size_t(interleaved_column(half, n)) * stride);
        }
    }

private:
    // [block][half of its columns][pair of panels][16 rows of 16 pairs]. Returns the number of pairs.
    template <bool LEFT_SIDE, class View>
    static int pack(View matrix, Range blocks, int m, int count, Heights heights, Bf16* to) {
        size_t stride = matrix.stride(matrix.blocks);
        int pairs = (count + 1) / 2;
        for (int p = 0; p < pairs; p++) {
            int panel = m + 2 * p, rows = heights(panel), rows_below = 2 * p + 1 < count ? heights(panel + 1) : 0;
            for (int block = blocks.first; block < blocks.last; block++) {
                const Bf16* upper = matrix.panel(panel) + size_t(block) * ROWS * DEPTH;
                Bf16* place = to + (size_t(block - blocks.first) * 2 * PAIRS + p) * SQUARE;
                if (rows == ROWS && rows_below == ROWS)
                    pack_block<LEFT_SIDE>(upper, upper + stride, ROWS, ROWS, 2 * stride, place);
                else
                    pack_block<LEFT_SIDE>(upper, upper + stride, rows, rows_below, 0, place);
            }
        }
        return pairs;
    }

    // ahead: distance to the next block to pack.
    template <bool LEFT_SIDE>
    static CHARLOOM_INLINE void pack_block(const Bf16* upper, const Bf16* lower, int rows, int rows_below, size_t ahead,
                                           Bf16* to) {
        Words low[16], high[16];
#pragma GCC unroll 16
        for (int row = 0; row < 16; row++) {
            Words above = row < rows ? load_words(upper + row * DEPTH) : Words{};
            Words below = row < rows_below ? load_words(lower + row * DEPTH) : Words{};
            interleave(above, below, low[row], high[row]);
            if (row < rows) __builtin_prefetch(upper + ahead + row * DEPTH);
            if (row < rows_below) __builtin_prefetch(lower + ahead + row * DEPTH);
        }
        if constexpr (LEFT_SIDE && Tiles::TRANSPOSED) {
            transpose(low);
            transpose(high);
        }
#pragma GCC unroll 16
        for (int row = 0; row < 16; row++) {
            store_words(to + row * DEPTH, low[row]);
            store_words(to + PAIRS * SQUARE + row * DEPTH, high[row]);
        }
    }
};

#if defined(__AMX_BF16__)

// Tiles 0 to 3 contain sums, 4 and 5 rows of panels, 6 and 7 weights.
struct AmxTiles {
    static constexpr bool TRANSPOSED = true;

    // sums[2][2] += left (2 tiles) times right (2 tiles), over `count` blocks; fresh: the sums start here.
    static void accumulate(const Bf16* left, const Bf16* right, size_t half, int count, float* sums, bool fresh) {
        asm volatile("" ::: "memory");
        if (fresh) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
        } else {
            _tile_loadd(0, sums, 64);
            _tile_loadd(1, sums + TILE, 64);
            _tile_loadd(2, sums + 2 * TILE, 64);
            _tile_loadd(3, sums + 3 * TILE, 64);
        }
        for (int n = 0; n < count; n++, left += 512, right += 512) {
            _tile_loadd(4, left, 64);
            _tile_loadd(6, right, 64);
            _tile_loadd(7, right + half, 64);
            _tile_loadd(5, left + half, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, sums, 64);
        _tile_stored(1, sums + TILE, 64);
        _tile_stored(2, sums + 2 * TILE, 64);
        _tile_stored(3, sums + 3 * TILE, 64);
        asm volatile("" ::: "memory");
    }
};

struct TileProduct : HalfPrecisionLayout {
    static constexpr int ROWS = 16;
    static constexpr bool VECTORS_FREE = true;
    using Outer = HalfPrecisionOuter<AmxTiles, ROWS>;

    using ThreadSetup = Tiles;

    // `between` is called once for each block and column pair: the vector units are free while tiles multiply.
    template <class Between>
    static CHARLOOM_INLINE void multiply(const Bf16* panel0, const Bf16* panel1, const Bf16* weights, int blocks, int,
                                         int, float* scratch0, float* scratch1, Between&& between) {
        asm volatile("" ::: "memory");
        _tile_zero(0);
        _tile_zero(1);
        if (panel1) {
            _tile_zero(2);
            _tile_zero(3);
            for (int k = 0; k < blocks; k++, panel0 += 512, panel1 += 512, weights += PACKED_PAIR) {
                _tile_loadd(4, panel0, 64);
                _tile_loadd(6, weights, 64);
                _tile_loadd(7, weights + SQUARE, 64);
                _tile_loadd(5, panel1, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
                between();
            }
            _tile_stored(2, scratch1, 64);
            _tile_stored(3, scratch1 + TILE, 64);
        } else {
            for (int k = 0; k < blocks; k++, panel0 += 512, weights += PACKED_PAIR) {
                _tile_loadd(4, panel0, 64);
                _tile_loadd(6, weights, 64);
                _tile_loadd(7, weights + SQUARE, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                between();
            }
        }
        _tile_stored(0, scratch0, 64);
        _tile_stored(1, scratch0 + TILE, 64);
        asm volatile("" ::: "memory");
    }
};

#endif

CHARLOOM_INLINE Floats dot(Floats sums, Words a, Words b) {
    return (Floats)_mm512_dpbf16_ps((__m512)sums, (__m512bh)a, (__m512bh)b);
}

CHARLOOM_INLINE Words splat_pair(const Bf16* from) {
    int32_t pair;
    std::memcpy(&pair, from, sizeof pair);
    return (Words)_mm512_set1_epi32(pair);
}

struct DotTiles {
    static constexpr bool TRANSPOSED = false;

    static void accumulate(const Bf16* left, const Bf16* right, size_t half, int count, float* sums, bool fresh) {
        for (int side = 0; side < 2; side++)
            for (int n = 0; n < 16; n += 8)
                accumulate_rows(left + side * half + 2 * n, right, half, count, sums + side * 2 * TILE + n * LANES,
                                fresh);
    }

    static void accumulate_rows(const Bf16* left, const Bf16* right, size_t half, int count, float* sums, bool fresh) {
        Floats found[8][2];
#pragma GCC unroll 8
        for (int n = 0; n < 8; n++) {
            found[n][0] = fresh ? Floats{} : load(sums + n * LANES);
            found[n][1] = fresh ? Floats{} : load(sums + TILE + n * LANES);
        }
        for (int p = 0; p < 16 * count; p++, left += 32, right += 32) {
            Words x0 = load_words(right), x1 = load_words(right + half);
#pragma GCC unroll 8
            for (int n = 0; n < 8; n++) {
                Words d = splat_pair(left + 2 * n);
                found[n][0] = dot(found[n][0], d, x0);
                found[n][1] = dot(found[n][1], d, x1);
            }
        }
#pragma GCC unroll 8
        for (int n = 0; n < 8; n++) {
            store(sums + n * LANES, found[n][0]);
            store(sums + TILE + n * LANES, found[n][1]);
        }
    }
};

struct DotProduct : HalfPrecisionLayout {
    static constexpr int ROWS = 12;
    static constexpr bool VECTORS_FREE = false;
    using Outer = HalfPrecisionOuter<DotTiles, ROWS>;

    struct ThreadSetup {
        explicit ThreadSetup(int) {}
    };

    template <class Between>
    static void multiply(const Bf16* panel0, const Bf16* panel1, const Bf16* weights, int blocks, int rows0, int rows1,
                         float* scratch0, float* scratch1, Between&& between) {
        multiply_panel(panel0, weights, blocks, rows0, scratch0, between);
        if (panel1) multiply_panel(panel1, weights, blocks, rows1, scratch1, between);
    }

    template <class Between>
    static void multiply_panel(const Bf16* panel, const Bf16* weights, int blocks, int rows, float* scratch,
                               Between& between) {
        with_rows<ROWS>(rows, [&]<int R>() { multiply_rows<R>(panel, weights, blocks, scratch, between); });
    }

    template <int R, class Between>
    static void multiply_rows(const Bf16* panel, const Bf16* weights, int blocks, float* scratch, Between& between) {
        Floats sums[R][2];
#pragma GCC unroll 12
        for (int row = 0; row < R; row++) sums[row][0] = sums[row][1] = Floats{};
        for (int block = 0; block < blocks; block++, panel += ROWS * DEPTH, weights += SQUARE) {
            between();
            for (int p = 0; p < 16; p++, weights += DEPTH) {
                Words w0 = load_words(weights), w1 = load_words(weights + SQUARE);
#pragma GCC unroll 12
                for (int row = 0; row < R; row++) {
                    Words x = splat_pair(panel + row * DEPTH + 2 * p);
                    sums[row][0] = dot(sums[row][0], x, w0);
                    sums[row][1] = dot(sums[row][1], x, w1);
                }
            }
        }
#pragma GCC unroll 12
        for (int row = 0; row < R; row++) {
            store(scratch + row * LANES, sums[row][0]);
            store(scratch + TILE + row * LANES, sums[row][1]);
        }
    }
};

}  // namespace charloom

#endif
