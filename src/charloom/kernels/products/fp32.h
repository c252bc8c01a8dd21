// Products in float32, on any instruction set.

#pragma once

#include "products/outer.h"
#include "products/transpose.h"

namespace charloom {

// Weight gradients (`outer.h`). Packed rows follow one another: [row][DEPTH] of a block, [row][STRIP] of a strip.
template <int ROWS, int BLOCK_DEPTH>
struct SinglePrecisionOuter {
    using Number = float;
    static constexpr int DEPTH = BLOCK_DEPTH, STRIP = 2 * LANES;
    // Processors with 32 registers have 1 MiB or more of second-level cache; others have 512 KiB.
    static constexpr int BLOCKS = REGISTERS, STRIPS = 16 * DEPTH / STRIP, PANELS = 6 * REGISTERS / ROWS;
    static constexpr int PACKED_D = PANELS * ROWS * DEPTH, PACKED_X = PANELS * ROWS * STRIP, SUMS = DEPTH * STRIP;

    template <class View>
    static int pack_d(View d, Range blocks, int m, int count, Heights heights, float* to) {
        int depth = 0;
        for (int panel = m; panel < m + count; panel++) {
            int rows = heights(panel);
            for (int block = blocks.first; block < blocks.last; block++)
                std::memcpy(to + (block - blocks.first) * PACKED_D + depth * DEPTH, d.at(panel, 0, block * DEPTH),
                            rows * DEPTH * sizeof(float));
            depth += rows;
        }
        return depth;
    }

    template <class View>
    static int pack_x(View x, Range strips, int m, int count, Heights heights, float* to) {
        int depth = 0;
        for (int panel = m; panel < m + count; panel++) {
            int rows = heights(panel);
            for (int strip = strips.first; strip < strips.last; strip++) {
                const float *left = x.at(panel, 0, strip * STRIP), *right = x.at(panel, 0, strip * STRIP + LANES);
                float* place = to + (strip - strips.first) * PACKED_X + depth * STRIP;
                for (int row = 0; row < rows; row++) {
                    store(place + row * STRIP, load(left + row * DEPTH));
                    store(place + row * STRIP + LANES, load(right + row * DEPTH));
                }
            }
            depth += rows;
        }
        return depth;
    }

    // Groups of rows whose sums and operands fill the registers.
    static void accumulate(const float* d, const float* x, int depth, float* sums, bool fresh) {
        constexpr int MOST = REGISTERS == 32 ? 8 : 6;
        for (int n = 0; n + MOST <= DEPTH; n += MOST) add_rows<MOST>(d + n, x, depth, sums + n * STRIP, fresh);
        constexpr int REST = DEPTH % MOST, DONE = DEPTH - REST;
        if constexpr (REST > 0) add_rows<REST>(d + DONE, x, depth, sums + DONE * STRIP, fresh);
    }

    static void unpack(const float* sums, float* to, int stride) {
        for (int n = 0; n < DEPTH; n++) std::memcpy(to + size_t(n) * stride, sums + n * STRIP, STRIP * sizeof(float));
    }

private:
    // Not inlined: GCC 12 would keep some sums in memory.
    template <int N>
    static __attribute__((noinline)) void add_rows(const float* d, const float* x, int depth, float* to, bool fresh) {
        Floats sums[N][2];
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) {
            sums[n][0] = fresh ? Floats{} : load(to + n * STRIP);
            sums[n][1] = fresh ? Floats{} : load(to + n * STRIP + LANES);
        }
        for (int row = 0; row < depth; row++, d += DEPTH, x += STRIP) {
            Floats x0 = load(x), x1 = load(x + LANES);
#pragma GCC unroll 8
            for (int n = 0; n < N; n++) {
                Floats of_d = splat(d[n]);
                sums[n][0] += of_d * x0;
                sums[n][1] += of_d * x1;
            }
        }
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) {
            store(to + n * STRIP, sums[n][0]);
            store(to + n * STRIP + LANES, sums[n][1]);
        }
    }
};

// The interface of a product; the products of `bf16.h` have the same members.
//
//   Number, ROWS, DEPTH    of panels
//   Saved, PAIR, save, first, second    the format of a pair of saved activations
//   sigmoid, tanh          as exact as the numbers that are multiplied
//   PACKED_PAIR            numbers of a packed weight matrix for two column vectors and one block of depth
//   pack_rows, pack_columns    pack a column vector of a weight matrix
//   multiply               panels times two column vectors, over all blocks; calls `between` once for each block
//   VECTORS_FREE           whether the vector units are free while it runs
//   Outer                  how weight gradients are summed (`outer.h`)
//   ThreadSetup            an object that sets up its thread for panels of this number of rows (Outer: TILE_ROWS)
struct SinglePrecision {
    using Number = float;
    using Saved = float;
    static constexpr const char* NAME = "float32";
    static constexpr int DEPTH = 16;
    static constexpr bool VECTORS_FREE = false;
    static constexpr int ROWS = REGISTERS == 32 ? 12 : 6;  // of 32 registers, 24 are sums and two are weights
    static constexpr int PAIR = 2 * LANES;
    static constexpr int PACKED_PAIR = DEPTH * 2 * LANES;

    using Outer = SinglePrecisionOuter<ROWS, DEPTH>;

    struct ThreadSetup {
        explicit ThreadSetup(int) {}
    };

    static CHARLOOM_INLINE void save(float* to, Floats a, Floats b) {
        store(to, a);
        store(to + LANES, b);
    }
    static CHARLOOM_INLINE Floats first(const float* from) { return load(from); }
    static CHARLOOM_INLINE Floats second(const float* from) { return load(from + LANES); }

    static CHARLOOM_INLINE Floats sigmoid(Floats x) { return charloom::sigmoid(x); }
    static CHARLOOM_INLINE Floats tanh(Floats x) { return hyperbolic_tangent(x); }

    // Packs column vector `side` (0, 1) of a pair for one block: the columns are LANES rows of a row-major matrix.
    static void pack_rows(const float* matrix, int stride, float* to, int side) {
        for (int k = 0; k < DEPTH; k += LANES) {
            Words square[LANES];
            for (int lane = 0; lane < LANES; lane++) square[lane] = bits(load(matrix + size_t(lane) * stride + k));
            transpose(square);
            for (int n = 0; n < LANES; n++) store(to + (k + n) * 2 * LANES + side * LANES, from_bits(square[n]));
        }
    }

    // The same for columns of the matrix, which has DEPTH rows one below the other.
    static void pack_columns(const float* matrix, int stride, float* to, int side) {
        for (int k = 0; k < DEPTH; k++) store(to + k * 2 * LANES + side * LANES, load(matrix + size_t(k) * stride));
    }

    // scratch[v][row][lane] = Σ_k panel[row][k] weights[k][v][lane], for one or two panels.
    template <class Between>
    static CHARLOOM_INLINE void multiply(const float* panel0, const float* panel1, const float* weights, int blocks,
                                         int rows0, int rows1, float* scratch0, float* scratch1, Between&& between) {
        multiply_panel(panel0, weights, blocks, rows0, scratch0, between);
        if (panel1) multiply_panel(panel1, weights, blocks, rows1, scratch1, between);
    }

    template <class Between>
    static void multiply_panel(const float* panel, const float* weights, int blocks, int rows, float* scratch,
                               Between& between) {
        with_rows<ROWS>(rows, [&]<int R>() { multiply_rows<R>(panel, weights, blocks, scratch, between); });
    }

    template <int R, class Between>
    static void multiply_rows(const float* panel, const float* weights, int blocks, float* scratch, Between& between) {
        constexpr int AHEAD = 8 * 2 * LANES;  // weights come from the second-level cache, with some cycles of delay
        Floats sums[R][2];
#pragma GCC unroll 12
        for (int row = 0; row < R; row++) sums[row][0] = sums[row][1] = Floats{};
        for (int block = 0; block < blocks; block++, panel += ROWS * DEPTH) {
            between();
#pragma GCC unroll 4
            for (int k = 0; k < DEPTH; k++, weights += 2 * LANES) {
                Floats w0 = load(weights), w1 = load(weights + LANES);
                for (int line = 0; line < 2 * LANES; line += 16) __builtin_prefetch(weights + AHEAD + line);
#pragma GCC unroll 12
                for (int row = 0; row < R; row++) {
                    Floats x = splat(panel[row * DEPTH + k]);
                    sums[row][0] += x * w0;
                    sums[row][1] += x * w1;
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
