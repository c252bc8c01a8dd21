// The recurrent cells, for LANES hidden units of one sequence. Training and inference share the equations.
//
// Equations, names and sources are those of the NumPy twins (engines/numpy/lstm.py, gru.py and rnn.py). Gate orders are
// PyTorch's: LSTM i, f, g, o; GRU r, z, n.
//
//   GATES         rows of the weights for each hidden unit
//   INPUT_PAIRS   pairs of vectors in which training stores the input sums, biases included
//   SAVED_PAIRS   pairs of vectors that the forward pass saves for the backward pass
//   CARRIED       the state that steps carry in float32, beside the h_t that products read
//   SEPARATE_BIAS whether the last gate's recurrent bias is separate from its input's bias
//   forward       returns h_t and updates `carry`
//   backward      d_inputs: gradients of the gates' input sums; d_products: of the products with h_{t-1};
//                 before: the carried state before the step
//
// `at` gives a step its inputs and stores its results. It has:
//
//   sum(gate)         input sum plus recurrent product; input(gate) and product(gate) are the two parts
//   recurrent_bias()  of the last gate, if SEPARATE_BIAS
//   save(pair, a, b)  two saved activations; inference saves none
//   sigmoid, tanh     as exact as the products are
//
// A new cell needs one struct here, a value of `Cell`, and a line each in `with_cell` and `cell_named`
// (inference/module.cpp has its own names). In Python it needs: `Architecture.cell` and GATES (architecture.py),
// `ModelSettings.cell` (config.py), the equations (cells.py), NumPy twins (engines/numpy/ and inference/layers.py),
// PyTorch's module (engines/torch/network.py and device.py), importers, and a learning rate (training/planning.py). A
// cell that carries c must be added where Python compares with "lstm".

#pragma once

#include <string>

#include "require.h"
#include "vector.h"

namespace charloom {

enum class Cell { tanh, relu, gru, lstm, capped_lstm };
enum class Carried { nothing, h, c };

constexpr int MOST_GATES = 4;

// CAPPED: the input gate is min(i, 1 - f). The saved i is the one before the minimum: rounded to bfloat16, the other one
// and 1 - f could not be compared.
template <bool CAPPED>
struct Lstm {
    static constexpr int GATES = 4, INPUT_PAIRS = 2, SAVED_PAIRS = 3;
    static constexpr Carried CARRIED = Carried::c;
    static constexpr bool SEPARATE_BIAS = false;

    template <class At>
    static CHARLOOM_INLINE Floats forward(const At& at, Floats& carry) {
        // f comes first: the compiler fuses the first of the two products with the sum, in all callers the same one.
        Floats f = At::sigmoid(at.sum(1)), remembered = f * carry;
        Floats i = At::sigmoid(at.sum(0)), g = At::tanh(at.sum(2));
        carry = remembered + input_gate(i, f) * g;
        Floats o = At::sigmoid(at.sum(3));
        Floats tanh_c = At::tanh(carry);
        at.save(0, i, f);
        at.save(1, g, o);
        at.save(2, carry, tanh_c);
        return o * tanh_c;
    }

    // c_t, from the saved activations of step t.
    template <class P>
    static CHARLOOM_INLINE Floats saved_carry(const typename P::Saved* saved) {
        return P::first(saved + 2 * P::PAIR);
    }

    template <class P>
    static CHARLOOM_INLINE void backward(Floats d_h, const typename P::Saved* saved, Floats before, Floats& d_carry,
                                         Floats* d_inputs, Floats* d_products) {
        Floats i = P::first(saved), f = P::second(saved), g = P::first(saved + P::PAIR), o = P::second(saved + P::PAIR);
        Floats tanh_c = P::second(saved + 2 * P::PAIR);
        Floats d_tanh_c = d_h * o;
        Floats d_c = d_carry + d_tanh_c * (1.0f - tanh_c * tanh_c);
        d_carry = d_c * f;
        d_inputs[0] = d_c * g * i * (1.0f - i);
        if (CAPPED) {  // where i is not used, c_t = f c_{t-1} + (1 - f) g
            auto capped = i > 1.0f - f;
            d_inputs[0] = capped ? Floats{} : d_inputs[0];
            before -= capped ? g : Floats{};
        }
        d_inputs[1] = d_c * before * f * (1.0f - f);
        d_inputs[2] = d_c * input_gate(i, f) * (1.0f - g * g);
        d_inputs[3] = d_tanh_c * tanh_c * (1.0f - o);
        for (int gate = 0; gate < GATES; gate++) d_products[gate] = d_inputs[gate];
    }

private:
    static CHARLOOM_INLINE Floats input_gate(Floats i, Floats f) { return CAPPED ? smaller(i, 1.0f - f) : i; }
};

struct Gru {
    static constexpr int GATES = 3, INPUT_PAIRS = 2, SAVED_PAIRS = 2;
    static constexpr Carried CARRIED = Carried::h;
    static constexpr bool SEPARATE_BIAS = true;

    template <class At>
    static CHARLOOM_INLINE Floats forward(const At& at, Floats& carry) {
        Floats r = At::sigmoid(at.sum(0)), u = At::sigmoid(at.sum(1));
        Floats m = at.product(2) + at.recurrent_bias();
        Floats n = At::tanh(at.input(2) + r * m);
        carry = n + u * (carry - n);
        at.save(0, r, u);
        at.save(1, n, m);
        return carry;
    }

    // d_carry: the part of d_h that reaches h_{t-1} without a product.
    template <class P>
    static CHARLOOM_INLINE void backward(Floats d_h, const typename P::Saved* saved, Floats before, Floats& d_carry,
                                         Floats* d_inputs, Floats* d_products) {
        Floats r = P::first(saved), u = P::second(saved), n = P::first(saved + P::PAIR), m = P::second(saved + P::PAIR);
        d_h += d_carry;
        d_carry = d_h * u;
        Floats d_n = d_h * (1.0f - u) * (1.0f - n * n);
        d_inputs[0] = d_products[0] = d_n * m * r * (1.0f - r);
        d_inputs[1] = d_products[1] = d_h * (before - n) * u * (1.0f - u);
        d_inputs[2] = d_n;
        d_products[2] = d_n * r;
    }
};

template <bool RELU>
struct Rnn {
    static constexpr int GATES = 1, INPUT_PAIRS = 1, SAVED_PAIRS = 1;
    static constexpr Carried CARRIED = Carried::nothing;
    static constexpr bool SEPARATE_BIAS = false;

    template <class At>
    static CHARLOOM_INLINE Floats forward(const At& at, Floats&) {
        Floats h = RELU ? larger(at.sum(0), Floats{}) : At::tanh(at.sum(0));
        at.save(0, h, h);
        return h;
    }

    template <class P>
    static CHARLOOM_INLINE void backward(Floats d_h, const typename P::Saved* saved, Floats, Floats&, Floats* d_inputs,
                                         Floats* d_products) {
        Floats h = P::first(saved);
        d_inputs[0] = d_products[0] = RELU ? (h > 0.0f ? d_h : Floats{}) : d_h * (1.0f - h * h);
    }
};

// work(Gru()), or the same with another cell.
template <class Work>
CHARLOOM_INLINE decltype(auto) with_cell(Cell cell, Work&& work) {
    if (cell == Cell::lstm) return work(Lstm<false>());
    if (cell == Cell::capped_lstm) return work(Lstm<true>());
    if (cell == Cell::gru) return work(Gru());
    if (cell == Cell::relu) return work(Rnn<true>());
    return work(Rnn<false>());
}

inline int gates_of(Cell cell) {
    return with_cell(cell, [](auto equations) { return equations.GATES; });
}

inline Carried carried_by(Cell cell) {
    return with_cell(cell, [](auto equations) { return equations.CARRIED; });
}

// variant: the input gate of an LSTM, the nonlinearity of an RNN.
inline Cell cell_named(const std::string& cell, const std::string& variant) {
    if (cell == "gru") return Cell::gru;
    if (cell == "lstm") {
        require(variant == "free" || variant == "capped", "input_gate must be free or capped");
        return variant == "capped" ? Cell::capped_lstm : Cell::lstm;
    }
    require(cell == "rnn", "cell must be lstm, gru or rnn");
    require(variant == "tanh" || variant == "relu", "nonlinearity must be tanh or relu");
    return variant == "relu" ? Cell::relu : Cell::tanh;
}

}  // namespace charloom
