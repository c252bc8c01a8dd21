// The recurrent cells, a row of LANES units at a time: what happens between the product with h_{t-1} and h_t, and back.
//
// The equations and their sources stand beside their NumPy twins, engines/bptt/lstm.py, gru.py and rnn.py; the names are
// the same. `z` holds the product's part of each gate's sum, a tile apart; `x` the input's part, biases included.
//
//   GATES      rows of the weights for a unit
//   INPUTS     pairs of numbers of x;  KEPT  pairs that the way back needs
//   PAST       whether a product's bias must stay apart from the input's
//   forward    returns h_t;  `running` is what goes on in float32 from step to step
//   backward   d_products gets what goes back through the product, d_inputs what goes to the input

#pragma once

#include "products/panels.h"

namespace charloom {

struct Lstm {
    static constexpr int GATES = 4, INPUTS = 2, KEPT = 3;
    static constexpr bool PAST = false;

    // running: c
    template <class P>
    static CHARLOOM_INLINE Floats forward(const float* z, const typename P::Kept* x, const float*, float* running,
                                          typename P::Kept* kept) {
        Floats i = P::sigmoid(load(z) + P::first(x)), f = P::sigmoid(load(z + TILE) + P::second(x));
        Floats g = P::tanh(load(z + 2 * TILE) + P::first(x + P::PAIR));
        Floats o = P::sigmoid(load(z + 3 * TILE) + P::second(x + P::PAIR));
        Floats c = f * load(running) + i * g;
        Floats squashed = P::tanh(c);
        store(running, c);
        P::keep(kept, i, f);
        P::keep(kept + P::PAIR, g, o);
        P::keep(kept + 2 * P::PAIR, c, squashed);
        return o * squashed;
    }

    // What stands in the kept numbers of the step before: c_{t-1}.
    template <class P>
    static CHARLOOM_INLINE Floats before(const typename P::Kept* kept) {
        return P::first(kept + 2 * P::PAIR);
    }

    // running: d_c
    template <class P>
    static CHARLOOM_INLINE void backward(Floats d_h, const typename P::Kept* kept, Floats c_before, Floats,
                                         float* running, Floats* d_inputs, Floats* d_products) {
        Floats i = P::first(kept), f = P::second(kept), g = P::first(kept + P::PAIR), o = P::second(kept + P::PAIR);
        Floats squashed = P::second(kept + 2 * P::PAIR);
        Floats d_squashed = d_h * o;
        Floats d_c = load(running) + d_squashed * (1.0f - squashed * squashed);
        store(running, d_c * f);
        d_inputs[0] = d_c * g * i * (1.0f - i);
        d_inputs[1] = d_c * c_before * f * (1.0f - f);
        d_inputs[2] = d_c * i * (1.0f - g * g);
        d_inputs[3] = d_squashed * squashed * (1.0f - o);
        for (int gate = 0; gate < GATES; gate++) d_products[gate] = d_inputs[gate];
    }
};

struct Gru {
    static constexpr int GATES = 3, INPUTS = 2, KEPT = 2;
    static constexpr bool PAST = true;

    // running: h
    template <class P>
    static CHARLOOM_INLINE Floats forward(const float* z, const typename P::Kept* x, const float* past_bias,
                                          float* running, typename P::Kept* kept) {
        Floats r = P::sigmoid(load(z) + P::first(x)), u = P::sigmoid(load(z + TILE) + P::second(x));
        Floats m = load(z + 2 * TILE) + load(past_bias);
        Floats n = P::tanh(P::first(x + P::PAIR) + r * m);
        Floats h = n + u * (load(running) - n);
        store(running, h);
        P::keep(kept, r, u);
        P::keep(kept + P::PAIR, n, m);
        return h;
    }

    template <class P>
    static CHARLOOM_INLINE Floats before(const typename P::Kept*) {
        return Floats{};
    }

    // running: the part of d_h that comes back without a product
    template <class P>
    static CHARLOOM_INLINE void backward(Floats d_h, const typename P::Kept* kept, Floats, Floats h_before,
                                         float* running, Floats* d_inputs, Floats* d_products) {
        Floats r = P::first(kept), u = P::second(kept), n = P::first(kept + P::PAIR), m = P::second(kept + P::PAIR);
        d_h += load(running);
        store(running, d_h * u);
        Floats d_n = d_h * (1.0f - u) * (1.0f - n * n);
        d_inputs[0] = d_products[0] = d_n * m * r * (1.0f - r);
        d_inputs[1] = d_products[1] = d_h * (h_before - n) * u * (1.0f - u);
        d_inputs[2] = d_n;
        d_products[2] = d_n * r;
    }
};

template <bool RELU>
struct Rnn {
    static constexpr int GATES = 1, INPUTS = 1, KEPT = 1;
    static constexpr bool PAST = false;

    template <class P>
    static CHARLOOM_INLINE Floats forward(const float* z, const typename P::Kept* x, const float*, float*,
                                          typename P::Kept* kept) {
        Floats sum = load(z) + P::first(x);
        Floats h = RELU ? larger(sum, Floats{}) : P::tanh(sum);
        P::keep(kept, h, h);
        return h;
    }

    template <class P>
    static CHARLOOM_INLINE Floats before(const typename P::Kept*) {
        return Floats{};
    }

    template <class P>
    static CHARLOOM_INLINE void backward(Floats d_h, const typename P::Kept* kept, Floats, Floats, float*,
                                         Floats* d_inputs, Floats* d_products) {
        Floats h = P::first(kept);
        d_inputs[0] = d_products[0] = RELU ? (h > 0.0f ? d_h : Floats{}) : d_h * (1.0f - h * h);
    }
};

}  // namespace charloom
