// One step of the recurrent cells, for one block of LANES hidden units of one text.
//
// Equations and gate orders are those of PyTorch (see inference/layers.py, the plain twin). A gate is what its input gives
// (`start`: biases, and for the first layer the token's row of the table), plus the product with the layer below, where
// there is one, plus the product with the layer's own hidden values.
//
// Not inlined: a compiler may fuse a multiplication with an addition in one place and not in another, and a text must not
// depend on how many are written beside it. So every text goes through the same instructions.

#pragma once

#include "vector.h"

namespace charloom::inference {

enum class Cell { tanh, relu, gru, lstm };

constexpr int MOST_GATES = 4;

constexpr int gates_of(Cell cell) { return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1; }

struct Block {
    const float *start, *below, *recurrent;  // [gate][lane]; below may be null
    const float* new_bias;                   // of GRU's n gate, inside the reset gate's product
    const float* before;                     // hidden values
    float* memory;                           // c, for LSTM; changed
};

namespace cells {

CHARLOOM_INLINE Floats input(const Block& at, int gate) {
    Floats x = load(at.start + gate * LANES);
    return at.below ? x + load(at.below + gate * LANES) : x;
}

CHARLOOM_INLINE Floats whole(const Block& at, int gate) { return input(at, gate) + load(at.recurrent + gate * LANES); }

}  // namespace cells

// The hidden values after the step.
__attribute__((noinline)) inline Floats cell_step(Cell cell, const Block& at) {
    using namespace cells;
    if (cell == Cell::lstm) {  // i, f, g, o
        Floats kept = sigmoid(whole(at, 1)) * load(at.memory);
        Floats c = kept + sigmoid(whole(at, 0)) * hyperbolic_tangent(whole(at, 2));
        store(at.memory, c);
        return sigmoid(whole(at, 3)) * hyperbolic_tangent(c);
    }
    if (cell == Cell::gru) {  // r, z, n
        Floats hidden = load(at.recurrent + 2 * LANES) + load(at.new_bias);
        Floats n = hyperbolic_tangent(input(at, 2) + sigmoid(whole(at, 0)) * hidden);
        return n + sigmoid(whole(at, 1)) * (load(at.before) - n);
    }
    Floats x = whole(at, 0);
    if (cell == Cell::tanh) return hyperbolic_tangent(x);
    return x < 0 ? Floats{} : x;  // and not a NaN's zero
}

}  // namespace charloom::inference
