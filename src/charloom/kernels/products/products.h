// The products of training, and the weights packed for them.
//
// Shapes: panel m of the panels of all steps; J unit blocks of LANES units; see `panels.h`.

#pragma once

#include "products/fp32.h"
#include "products/padding.h"
#include "products/pipeline.h"

namespace charloom {

// The number of unit blocks that are computed together, so that their gates are pairs of column vectors.
constexpr int unit_blocks_of(int gates) { return gates % 2 ? 2 : 1; }

// ---- weights, packed for `Product::multiply`

// For the forward pass: columns are the gates' rows; depth is the matrix's columns.
template <class P>
void pack_for_gates(const Weights& weights, Buffer<typename P::Number>& to, int part, int parts) {
    const int GATES = weights.gates, UNITS = unit_blocks_of(GATES), VECTORS = GATES * UNITS;
    int blocks = weights.columns / P::DEPTH, items = weights.rows / (LANES * UNITS);
    Range range = Range::of(items, part, parts);
    for (int item = range.first; item < range.last; item++)
        for (int v = 0; v < VECTORS; v++) {
            const float* row = weights.row(v % GATES, (item * UNITS + v / GATES) * LANES);
            for (int k = 0; k < blocks; k++)
                P::pack_rows(row + k * P::DEPTH, weights.columns,
                             to + (size_t(item * VECTORS / 2 + v / 2) * blocks + k) * P::PACKED_PAIR, v % 2);
        }
}

// For the backward pass: columns are the matrix's columns; depth is the rows of all gates.
template <class P>
void pack_for_gradients(const Weights& weights, Buffer<typename P::Number>& to, int part, int parts) {
    int gates = weights.gates, blocks = weights.rows / P::DEPTH * gates;
    Range range = Range::of(weights.columns / (2 * LANES), part, parts);
    for (int pair = range.first; pair < range.last; pair++)
        for (int k = 0; k < blocks; k++)
            for (int side = 0; side < 2; side++)
                P::pack_columns(weights.row(k % gates, k / gates * P::DEPTH) + (pair * 2 + side) * LANES,
                                weights.columns, to + (size_t(pair) * blocks + k) * P::PACKED_PAIR, side);
}

// ---- products over all steps together

// out[m][j][row] = W x + bias, stored as pairs of gates, in P's format of saved activations. bias: [j][gate][LANES].
template <class P, class CellType, int ROWS>
struct InputSums {
    static constexpr int UNITS = unit_blocks_of(CellType::GATES), SIZE = CellType::INPUT_PAIRS * P::PAIR;
    const float* bias;
    int unit_blocks;
    typename P::Saved* out;

    const float* biases = nullptr;
    typename P::Saved* to = nullptr;

    size_t offset(int m, int item) const { return (size_t(m) * unit_blocks + item * UNITS) * ROWS * SIZE; }

    void prefetch(int m, int item, int rows, PrefetchList& prefetches) const {
        prefetches.add(out + offset(m, item), rows * SIZE, UNITS, ROWS * SIZE, true);
    }

    CHARLOOM_INLINE void begin(int m, int item) {
        biases = bias + size_t(item) * UNITS * CellType::GATES * LANES;
        to = out + offset(m, item);
    }

    CHARLOOM_INLINE void rows(const float* z, int first, int last) {
        for (int row = first; row < last; row++)
            for (int unit = 0; unit < UNITS; unit++)
                for (int gate = 0; gate < CellType::GATES; gate += 2) {
                    auto sum = [=, this](int vector) CHARLOOM_INLINE_LAMBDA {
                        return load(z + vector * TILE + row * LANES) + load(biases + vector * LANES);
                    };
                    Floats a = sum(unit * CellType::GATES + gate);
                    Floats b = gate + 1 < CellType::GATES ? sum(unit * CellType::GATES + gate + 1) : a;
                    P::save(to + (unit * ROWS + row) * SIZE + gate / 2 * P::PAIR, a, b);
                }
    }
};

// The input sums of the panels in the range, with product `Q`.
template <class P, class Q, class CellType>
void input_product(Panels<Q> x, Heights heights, const typename Q::Number* weights, const float* bias, int unit_blocks,
                   typename P::Saved* out, Range range, Buffer<float>& scratch) {
    constexpr int UNITS = unit_blocks_of(CellType::GATES), VECTORS = CellType::GATES * UNITS;
    typename Q::ThreadSetup setup(heights.most());
    InputSums<P, CellType, Q::ROWS> finish{bias, unit_blocks, out};
    Pipeline<Q, VECTORS, decltype(finish)> pipeline(heights, scratch, finish);
    constexpr int TOGETHER = 16;  // panels that stay in the cache while all weights are read
    for (int m0 = range.first; m0 < range.last; m0 += TOGETHER)
        for (int item = 0; item < unit_blocks / UNITS; item++)
            for (int m = m0; m < std::min(m0 + TOGETHER, range.last); m += 2)
                pipeline.multiply(x.panel(m), m + 1 < range.last ? x.panel(m + 1) : nullptr,
                                  weights + size_t(item) * VECTORS / 2 * x.blocks * Q::PACKED_PAIR, x.blocks, m, item);
    pipeline.flush();
}

// The gradient with respect to the layer below: all columns of Wᵀ d. Passes a pair of column vectors at a time to
// `finish`.
template <class P, class Finish>
void gradient_below(Panels<P> d, Heights heights, const typename P::Number* weights, int pairs, Range range,
                    Buffer<float>& scratch, Finish& finish) {
    typename P::ThreadSetup setup(heights.most());
    Pipeline<P, 2, Finish> pipeline(heights, scratch, finish);
    constexpr int TOGETHER = 8;
    for (int m0 = range.first; m0 < range.last; m0 += TOGETHER)
        for (int pair = 0; pair < pairs; pair++)
            for (int m = m0; m < std::min(m0 + TOGETHER, range.last); m += 2)
                pipeline.multiply(d.panel(m), m + 1 < range.last ? d.panel(m + 1) : nullptr,
                                  weights + size_t(pair) * d.blocks * P::PACKED_PAIR, d.blocks, m, pair);
    pipeline.flush();
}

// One part's share of a weight matrix's gradient: some rows; for the head, which usually has few rows, some columns.
template <class P>
void weight_gradient(Panels<P> d, Panels<P> x, int panels, Heights heights, const Gradient& to, int part, int parts,
                     Buffer<float>& scratch) {
    typename P::ThreadSetup setup(TILE_ROWS);
    Range ds{0, d.blocks}, xs{0, x.blocks};
    if (to.gates > 1)
        ds = Range::of(d.blocks, part, parts, GRAIN / P::DEPTH);
    else
        xs = Range::of(x.blocks, part, parts, GRAIN / P::DEPTH);
    packed_outer<typename P::Outer>(
        d, ds, x, xs, panels, heights, scratch,
        [&](int block) { return to.row(block % to.gates, block / to.gates * P::DEPTH); }, to.columns);
}

}  // namespace charloom
