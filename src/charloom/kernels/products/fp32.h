// Products in float32, on any instruction set.

#pragma once

#include "buffer.h"
#include "products/panels.h"
#include "products/transpose.h"

namespace charloom {

// The interface of a product; the products of `bf16.h` have the same members.
//
//   Number, ROWS, DEPTH    of panels
//   Saved, PAIR, save, first, second    the format of a pair of saved activations
//   sigmoid, tanh          as exact as the numbers that are multiplied
//   PACKED_PAIR            numbers of a packed weight matrix for two column vectors and one block of depth
//   pack_rows, pack_columns    pack a column vector of a weight matrix
//   multiply               panels times two column vectors, over all blocks; calls `between` once for each block
//   VECTORS_FREE           whether the vector units are free while it runs
//   outer                  a weight gradient: the sum over all rows of all panels of left times right
//   ThreadSetup            an object that sets up its thread for panels of this number of rows (`outer`: TILE_ROWS)
struct SinglePrecision {
    using Number = float;
    using Saved = float;
    static constexpr const char* NAME = "float32";
    static constexpr int DEPTH = 16;
    static constexpr bool VECTORS_FREE = false;
    static constexpr int ROWS = REGISTERS == 32 ? 12 : 6;  // of 32 registers, 24 are sums and two are weights
    static constexpr int PAIR = 2 * LANES;
    static constexpr int PACKED_PAIR = DEPTH * 2 * LANES;

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
                                         int rows, float* scratch0, float* scratch1, Between&& between) {
        multiply_panel(panel0, weights, blocks, rows, scratch0, between);
        if (panel1) multiply_panel(panel1, weights, blocks, rows, scratch1, between);
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

    // to[n][k] = Σ over the rows of all panels of d[n] x[k], for the blocks in the ranges. A block of `d` has DEPTH
    // rows of the result. to(block) is the address of the first.
    template <class Rows>
    static void outer(Panels<SinglePrecision> d, Range ds, Panels<SinglePrecision> x, Range xs, int panels, int rows,
                      Buffer<float>& scratch, Rows&& to, int stride) {
        constexpr int MOST = 16, CHUNK = 16;  // blocks of each, and panels: they and the sums fit the L2 cache
        constexpr int SQUARE = DEPTH * DEPTH;
        scratch.reserve(MOST * MOST * SQUARE);
        for (int d0 = ds.first; d0 < ds.last; d0 += MOST)
            for (int x0 = xs.first; x0 < xs.last; x0 += MOST) {
                int d1 = std::min(d0 + MOST, ds.last), x1 = std::min(x0 + MOST, xs.last);
                std::memset(scratch, 0, MOST * MOST * SQUARE * sizeof(float));
                for (int m = 0; m < panels; m += CHUNK)
                    for (int right = x0; right < x1; right += OUTER_BLOCKS)
                        for (int left = d0; left < d1; left++)
                            add_outer(d.from(m).panel(0) + size_t(left) * ROWS * DEPTH, d.stride(d.blocks),
                                      x.from(m).panel(0) + size_t(right) * ROWS * DEPTH, x.stride(x.blocks),
                                      std::min(CHUNK, panels - m), rows,
                                      scratch + size_t(left - d0) * MOST * SQUARE + (right - x0) * DEPTH, MOST * DEPTH);
                for (int left = d0; left < d1; left++)
                    for (int n = 0; n < DEPTH; n++)
                        std::memcpy(to(left) + size_t(n) * stride + x0 * DEPTH,
                                    scratch + size_t(left - d0) * MOST * SQUARE + n * MOST * DEPTH,
                                    (x1 - x0) * DEPTH * sizeof(float));
            }
    }

private:
    static constexpr int OUTER_ROWS = LANES == 16 ? 8 : 4;  // rows of the result: with two vectors each, 16 or 8 sums
    static constexpr int OUTER_BLOCKS = LANES == 16 ? 2 : 1;

    static void add_outer(const float* left, size_t left_stride, const float* right, size_t right_stride, int panels,
                          int rows, float* to, int stride) {
        for (int n = 0; n < DEPTH; n += OUTER_ROWS)
            for (int k = 0; k < OUTER_BLOCKS * DEPTH; k += 2 * LANES) {
                // the second vector is the next block's if a vector is as wide as a block
                const float* x = right + (LANES == DEPTH ? 0 : k);
                constexpr int next = LANES == DEPTH ? ROWS * DEPTH : LANES;
                add_outer_rows(left + n, left_stride, x, right_stride, next, panels, rows, to + n * stride + k, stride);
            }
    }

    static void add_outer_rows(const float* left, size_t left_stride, const float* right, size_t right_stride, int next,
                               int panels, int rows, float* to, int stride) {
        Floats sums[OUTER_ROWS][2];
#pragma GCC unroll 8
        for (int n = 0; n < OUTER_ROWS; n++) {
            sums[n][0] = load(to + n * stride);
            sums[n][1] = load(to + n * stride + LANES);
        }
        for (int m = 0; m < panels; m++, left += left_stride, right += right_stride)
            for (int row = 0; row < rows; row++) {
                Floats x0 = load(right + row * DEPTH), x1 = load(right + row * DEPTH + next);
                if (LANES == 16) {  // of the next panel: hardware prefetch does not cross panels
                    __builtin_prefetch(left + left_stride + row * DEPTH);
                    __builtin_prefetch(right + right_stride + row * DEPTH);
                    __builtin_prefetch(right + right_stride + row * DEPTH + next);
                }
#pragma GCC unroll 8
                for (int n = 0; n < OUTER_ROWS; n++) {
                    Floats d = splat(left[row * DEPTH + n]);
                    sums[n][0] += d * x0;
                    sums[n][1] += d * x1;
                }
            }
#pragma GCC unroll 8
        for (int n = 0; n < OUTER_ROWS; n++) {
            store(to + n * stride, sums[n][0]);
            store(to + n * stride + LANES, sums[n][1]);
        }
    }
};

}  // namespace charloom
