// One step of a recurrent cell in inference, for a block of LANES hidden units of one sequence. Equations: cells.h.

#pragma once

#include "../cells.h"

namespace charloom::inference {

// The gates' sums and the state of a step. [gate][lane].
struct Block {
    const float* start;          // biases; in the first layer a token's row of the table
    const float* below;          // product with the layer below, or null
    const float* recurrent;      // product with the layer's own hidden values
    const float* separate_bias;  // of GRU's n gate, inside the reset gate's product
    const float* before;         // hidden values
    float* memory;               // c of an LSTM; changed

    CHARLOOM_INLINE Floats input(int gate) const {
        Floats x = load(start + gate * LANES);
        return below ? x + load(below + gate * LANES) : x;
    }
    CHARLOOM_INLINE Floats product(int gate) const { return load(recurrent + gate * LANES); }
    CHARLOOM_INLINE Floats sum(int gate) const { return input(gate) + product(gate); }
    CHARLOOM_INLINE Floats recurrent_bias() const { return load(separate_bias); }
    CHARLOOM_INLINE void save(int, Floats, Floats) const {}

    static CHARLOOM_INLINE Floats sigmoid(Floats x) { return charloom::sigmoid(x); }
    static CHARLOOM_INLINE Floats tanh(Floats x) { return hyperbolic_tangent(x); }
};

// The hidden values after the step.
//
// Not inlined: a compiler may fuse a multiplication with an addition in one place and not in another. A sequence must
// not depend on the other sequences of its batch, so all use the same instructions.
__attribute__((noinline)) inline Floats cell_step(Cell cell, const Block& at) {
    return with_cell(cell, [&](auto equations) CHARLOOM_INLINE_LAMBDA {
        constexpr Carried CARRIED = decltype(equations)::CARRIED;
        Floats carry = CARRIED == Carried::c ? load(at.memory) : load(at.before);
        Floats h = equations.forward(at, carry);
        if constexpr (CARRIED == Carried::c) store(at.memory, carry);
        return h;
    });
}

}  // namespace charloom::inference
