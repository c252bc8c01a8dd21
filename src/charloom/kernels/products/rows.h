// Products with a row-major matrix that is not packed, for few sequences.
//
// Such a product reads each weight once and uses it once or a few times, so the speed of memory limits it. Packing
// would read and write all weights once more.

#pragma once

#include "products/fp32.h"

namespace charloom {

// The matrices of all gates, one below the other: [gate][hidden][hidden].
struct GateRows {
    const float* data = nullptr;
    int hidden = 0;

    const float* row(int gate, int n) const { return data + (size_t(gate) * hidden + n) * hidden; }

    // LANES rows: those of column vector v of an item of `GATES * UNITS` vectors, in the order of `pack_for_gates`.
    template <int GATES, int UNITS>
    const float* vector(int item, int v) const {
        return row(v % GATES, (item * UNITS + v / GATES) * LANES);
    }
    // DEPTH rows: a block of the gates' gradients in panels.
    const float* block(int gates, int n) const { return row(n % gates, n / gates * SinglePrecision::DEPTH); }
};

// A vector of the sums of each vector's lanes.
CHARLOOM_INLINE Floats sums_of(const Floats (&vectors)[LANES]) {
    Words square[LANES];
    for (int lane = 0; lane < LANES; lane++) square[lane] = bits(vectors[lane]);
    transpose(square);
    Floats total = from_bits(square[0]);
    for (int lane = 1; lane < LANES; lane++) total += from_bits(square[lane]);
    return total;
}

// z[row][lane] = Σ_k matrix[lane][k] x[row][k], for LANES rows of the matrix.
inline void multiply_rows(const float* matrix, int columns, const float* x, int rows, float* z) {
    constexpr int DEPTH = SinglePrecision::DEPTH, BLOCK = Panels<SinglePrecision>::BLOCK;
    for (int row = 0; row < rows; row++) {
        Floats sums[LANES]{};
        for (int block = 0; block < columns / DEPTH; block++)
            for (int k = 0; k < DEPTH; k += LANES) {
                Floats of_x = load(x + block * BLOCK + row * DEPTH + k);
                const float* weights = matrix + block * DEPTH + k;
#pragma GCC unroll 16
                for (int lane = 0; lane < LANES; lane++) sums[lane] += load(weights + size_t(lane) * columns) * of_x;
            }
        store(z + row * LANES, sums_of(sums));
    }
}

// y[row][column] += Σ_n d[row][n] matrix[n][column], for DEPTH rows of the matrix and the columns in the range. The
// matrix has as many columns as y.
inline void add_columns(const float* matrix, const float* d, int rows, Range range, float* y, int columns) {
    constexpr int DEPTH = SinglePrecision::DEPTH, TOGETHER = 8;
    for (int n = 0; n < DEPTH; n += TOGETHER)
        for (int row = 0; row < rows; row++) {
            Floats of_d[TOGETHER];
            for (int i = 0; i < TOGETHER; i++) of_d[i] = splat(d[row * DEPTH + n + i]);
            const float* from = matrix + size_t(n) * columns;
            float* to = y + size_t(row) * columns;
            for (int column = range.first; column < range.last; column += LANES) {
                Floats total = load(to + column);
#pragma GCC unroll 8
                for (int i = 0; i < TOGETHER; i++) total += of_d[i] * load(from + size_t(i) * columns + column);
                store(to + column, total);
            }
        }
}

// Copies a pair of column vectors of y to the layout that `finish.rows` reads.
inline void copy_pair(const float* y, int columns, int rows, int pair, float* z) {
    for (int row = 0; row < rows; row++)
        for (int side = 0; side < 2; side++)
            store(z + side * TILE + row * LANES, load(y + size_t(row) * columns + (2 * pair + side) * LANES));
}

}  // namespace charloom
