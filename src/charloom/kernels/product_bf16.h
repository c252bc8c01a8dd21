// Products of bfloat16 numbers, summed in float32: with AMX's tiles, or with the dot products of AVX512-BF16.
//
// Both take a pair of numbers that follow one another in depth as one 32-bit lane, so they share all layouts: a block of
// weights for one column vector is 16 rows of 16 lanes, row p holding depths 2p and 2p + 1 of 16 columns.

#pragma once

#if defined(__AVX512BF16__)

#include "product_fp32.h"

namespace charloom {

CHARLOOM_INLINE Words load_words(const Bf16* from) { return load(reinterpret_cast<const uint32_t*>(from)); }
CHARLOOM_INLINE void store_words(Bf16* to, Words x) { store(reinterpret_cast<uint32_t*>(to), x); }

// 32 numbers that lie side by side, as bfloat16.
CHARLOOM_INLINE Words halved(const float* from) {
    return (Words)_mm512_cvtne2ps_pbh((__m512)load(from + LANES), (__m512)load(from));
}

// What the two kinds of product share.
struct HalfPrecisionLayout {
    using Number = Bf16;
    using Kept = uint32_t;
    static constexpr const char* NAME = "bfloat16";
    static constexpr int DEPTH = 32;
    static constexpr int PAIR = LANES;
    static constexpr int SQUARE = 16 * DEPTH;  // a block of one column vector
    static constexpr int PACKED_PAIR = 2 * SQUARE;

    static CHARLOOM_INLINE void keep(uint32_t* to, Floats a, Floats b) { store(to, paired(a, b)); }
    static CHARLOOM_INLINE Floats first(const uint32_t* from) { return low_half(load(from)); }
    static CHARLOOM_INLINE Floats second(const uint32_t* from) { return high_half(load(from)); }

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

// Two panels' rows, interleaved: lane j of the first 16 (the second 16) holds column j (16 + j) of both, a pair in depth.
CHARLOOM_INLINE void interleave(Words upper, Words lower, Words& low, Words& high) {
    static const __m512i LOW = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38,
                                                6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    static const __m512i HIGH = _mm512_add_epi16(LOW, _mm512_set1_epi16(16));
    low = (Words)_mm512_permutex2var_epi16((__m512i)upper, LOW, (__m512i)lower);
    high = (Words)_mm512_permutex2var_epi16((__m512i)upper, HIGH, (__m512i)lower);
}

// The sum over rows of left times right as a product of blocks: depth is the rows, two panels' row r making pair r.
// `Tiles` multiplies what was packed; `left` is packed by columns or turned over, as it wants it.
template <class Tiles, int ROWS>
struct HalfPrecisionOuter {
    static constexpr int DEPTH = HalfPrecisionLayout::DEPTH, SQUARE = HalfPrecisionLayout::SQUARE;
    static constexpr int LEFT = 8, RIGHT = 16;  // blocks at once, and
    static constexpr int PAIRS = 16;            // pairs of panels: packed, they fit the L2 cache

    template <class View, class Rows>
    static void run(View left, View right, int panels, int rows, Range range, Buffer<float>& room, Rows&& to,
                    int stride) {
        constexpr size_t SUMS = size_t(LEFT) * RIGHT * 4 * TILE, A = size_t(LEFT) * 2 * PAIRS * SQUARE,
                         B = size_t(RIGHT) * 2 * PAIRS * SQUARE;
        room.reserve(SUMS + (A + B) / 2);
        Bf16* packed_left = reinterpret_cast<Bf16*>(room + SUMS);
        Bf16* packed_right = packed_left + A;
        int pairs = (panels + 1) / 2;
        for (int r0 = 0; r0 < right.blocks; r0 += RIGHT)
            for (int l0 = range.first; l0 < range.last; l0 += LEFT) {
                int l1 = std::min(l0 + LEFT, range.last), r1 = std::min(r0 + RIGHT, right.blocks);
                std::memset(room, 0, SUMS * sizeof(float));
                for (int m = 0; m < pairs; m += PAIRS) {
                    int count = std::min(PAIRS, pairs - m);
                    pack<true>(left, l0, l1, m, count, panels, rows, packed_left);
                    pack<false>(right, r0, r1, m, count, panels, rows, packed_right);
                    for (int r = 0; r < r1 - r0; r++)
                        for (int l = 0; l < l1 - l0; l++)
                            Tiles::accumulate(packed_left + size_t(l) * 2 * PAIRS * SQUARE,
                                              packed_right + size_t(r) * 2 * PAIRS * SQUARE, PAIRS * SQUARE, count,
                                              room + size_t(l * RIGHT + r) * 4 * TILE);
                }
                for (int l = 0; l < l1 - l0; l++)
                    for (int n = 0; n < DEPTH; n++)
                        for (int r = 0; r < r1 - r0; r++)
                            for (int side = 0; side < 2; side++)
                                store(to(l0 + l) + size_t(n) * stride + (r0 + r) * DEPTH + side * LANES,
                                      load(room + size_t(l * RIGHT + r) * 4 * TILE + (n / 16 * 2 + side) * TILE +
                                           n % 16 * LANES));
            }
    }

private:
    // [block][half of its columns][pair of panels][16 rows of 16 pairs]
    template <bool LEFT_SIDE, class View>
    static void pack(View matrix, int first, int last, int pair, int count, int panels, int rows, Bf16* to) {
        for (int p = 0; p < count; p++) {
            int m = 2 * (pair + p);
            const Bf16* upper = matrix.panel(m);
            const Bf16* lower = m + 1 < panels ? matrix.panel(m + 1) : nullptr;
            for (int block = first; block < last; block++) {
                Words low[16] = {}, high[16] = {};
                for (int row = 0; row < rows; row++) {
                    size_t at = size_t(block) * ROWS * DEPTH + row * DEPTH;
                    interleave(load_words(upper + at), lower ? load_words(lower + at) : Words{}, low[row], high[row]);
                }
                if constexpr (LEFT_SIDE && Tiles::TURNED) {
                    transpose(low);
                    transpose(high);
                }
                Bf16* place = to + (size_t(block - first) * 2 * PAIRS + p) * SQUARE;
                for (int row = 0; row < 16; row++) {
                    store_words(place + row * DEPTH, low[row]);
                    store_words(place + PAIRS * SQUARE + row * DEPTH, high[row]);
                }
            }
        }
    }
};

#if defined(__AMX_BF16__)

// Tiles 0 to 3 hold sums, 4 and 5 rows of panels, 6 and 7 weights.
struct AmxTiles {
    static constexpr bool TURNED = true;

    struct alignas(64) Shapes {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t bytes[16] = {};
        uint8_t rows[16] = {};
    };

    static void configure(int rows) {
        Shapes shapes;
        for (int tile = 0; tile < 8; tile++) {
            shapes.bytes[tile] = 64;
            shapes.rows[tile] = tile < 6 ? rows : 16;
        }
        asm volatile("" ::"r"(&shapes) : "memory");  // gcc 12 would drop the stores: it does not see them being read
        _tile_loadconfig(&shapes);
    }

    // sums[2][2] += left (2 tiles) times right (2 tiles), over `count` blocks.
    static void accumulate(const Bf16* left, const Bf16* right, size_t half, int count, float* sums) {
        asm volatile("" ::: "memory");
        _tile_loadd(0, sums, 64);
        _tile_loadd(1, sums + TILE, 64);
        _tile_loadd(2, sums + 2 * TILE, 64);
        _tile_loadd(3, sums + 3 * TILE, 64);
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

    // The shapes of a thread's tiles; without them a tile instruction is an error, and while they are set a thread has
    // more to save when it is put aside.
    struct Session {
        explicit Session(int rows) { AmxTiles::configure(rows); }
        ~Session() { _tile_release(); }
        Session(const Session&) = delete;
    };

    // `between` is called once a block and column pair: the vector units are free while tiles multiply.
    template <class Between>
    static CHARLOOM_INLINE void multiply(const Bf16* panel0, const Bf16* panel1, const Bf16* weights, int blocks, int,
                                         float* scratch0, float* scratch1, Between&& between) {
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

    template <class View, class Rows>
    static void outer(View left, View right, int panels, int rows, Range range, Buffer<float>& room, Rows&& to,
                      int stride) {
        HalfPrecisionOuter<AmxTiles, ROWS>::run(left, right, panels, rows, range, room, to, stride);
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
    static constexpr bool TURNED = false;

    static void accumulate(const Bf16* left, const Bf16* right, size_t half, int count, float* sums) {
        for (int side = 0; side < 2; side++)
            for (int n = 0; n < 16; n += 8)
                accumulate_rows(left + side * half + 2 * n, right, half, count, sums + side * 2 * TILE + n * LANES);
    }

    static void accumulate_rows(const Bf16* left, const Bf16* right, size_t half, int count, float* sums) {
        Floats found[8][2];
#pragma GCC unroll 8
        for (int n = 0; n < 8; n++) {
            found[n][0] = load(sums + n * LANES);
            found[n][1] = load(sums + TILE + n * LANES);
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

    struct Session {
        explicit Session(int) {}
    };

    template <class Between>
    static void multiply(const Bf16* panel0, const Bf16* panel1, const Bf16* weights, int blocks, int rows,
                         float* scratch0, float* scratch1, Between&&) {
        multiply_panel(panel0, weights, blocks, rows, scratch0);
        if (panel1) multiply_panel(panel1, weights, blocks, rows, scratch1);
    }

    static void multiply_panel(const Bf16* panel, const Bf16* weights, int blocks, int rows, float* scratch) {
        with_rows<ROWS>(rows, [&]<int R>() { multiply_rows<R>(panel, weights, blocks, scratch); });
    }

    template <int R>
    static void multiply_rows(const Bf16* panel, const Bf16* weights, int blocks, float* scratch) {
        Floats sums[R][2] = {};
        for (int block = 0; block < blocks; block++, panel += ROWS * DEPTH, weights += SQUARE)
            for (int p = 0; p < 16; p++, weights += DEPTH) {
                Words w0 = load_words(weights), w1 = load_words(weights + SQUARE);
#pragma GCC unroll 12
                for (int row = 0; row < R; row++) {
                    Words x = splat_pair(panel + row * DEPTH + 2 * p);
                    sums[row][0] = dot(sums[row][0], x, w0);
                    sums[row][1] = dot(sums[row][1], x, w1);
                }
            }
        for (int row = 0; row < R; row++) {
            store(scratch + row * LANES, sums[row][0]);
            store(scratch + TILE + row * LANES, sums[row][1]);
        }
    }

    template <class View, class Rows>
    static void outer(View left, View right, int panels, int rows, Range range, Buffer<float>& room, Rows&& to,
                      int stride) {
        HalfPrecisionOuter<DotTiles, ROWS>::run(left, right, panels, rows, range, room, to, stride);
    }
};

}  // namespace charloom

#endif
