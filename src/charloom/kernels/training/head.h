// The output layer: logits, softmax and cross-entropy together, and their gradients. NumPy twin: engines/numpy/head.py.
//
// Only panels that have a target are computed. Shapes: V vocabulary size, padded to a multiple of GRAIN.

#pragma once

#include "training/layer.h"

namespace charloom {

constexpr float PADDING_LOGIT = -1e30f;  // the logit of padding tokens

template <class P>
class Head {
public:
    using Number = typename P::Number;

    struct HeadPart {
        Buffer<float> d_bias, logits;
    };

    // Both [panel][P::ROWS]: the target of a row, and its index among all targets; -1 for none.
    struct Targets {
        const int32_t *ids, *places;
    };

    void resize(int hidden, int tokens, int panels, int parts) {
        hidden_ = hidden, tokens_ = tokens, padded_ = up_to_multiple(tokens, GRAIN);
        weights_.reserve(size_t(padded_) * hidden);
        weights_transposed_.reserve(size_t(padded_) * hidden);
        bias_.reserve(padded_);
        d_logits_.reserve(Panels<P>::size(panels, padded_ / P::DEPTH));
        parts_.resize(parts);
        for (HeadPart& mine : parts_) {
            mine.d_bias.reserve(padded_);
            mine.logits.reserve(size_t(2) * padded_ / LANES * TILE);
        }
    }

    void pack(const Weights& weights, bool for_backward, int part, int parts) {
        Range range = Range::of(padded_ / (2 * LANES), part, parts);
        int blocks = hidden_ / P::DEPTH;
        for (int pair = range.first; pair < range.last; pair++)
            for (int side = 0; side < 2; side++)
                for (int k = 0; k < blocks; k++)
                    P::pack_rows(weights.row(0, (2 * pair + side) * LANES) + k * P::DEPTH, weights.columns,
                                 weights_ + (size_t(pair) * blocks + k) * P::PACKED_PAIR, side);
        if (for_backward) pack_for_gradients<P>(weights, weights_transposed_, part, parts);
    }

    void set_bias(const float* bias) {
        for (int v = 0; v < padded_; v++) bias_[v] = v < tokens_ ? bias[v] : PADDING_LOGIT;
    }

    // For the panels in the range: the loss of each target, to `nats`, and whether it had the highest logit, to
    // `correct`. If a backward pass follows, also the gradient of the sum of losses with respect to the logits.
    void forward(Panels<P> x, Heights heights, Targets targets, double* nats, bool* correct, Range range,
                 bool for_backward, int part) {
        typename P::ThreadSetup setup(heights.most());
        HeadPart& mine = parts_[part];
        std::memset(mine.d_bias, 0, padded_ * sizeof(float));
        int pairs = padded_ / (2 * LANES);
        float* second = mine.logits + padded_ / LANES * TILE;
        for (int m = range.first; m < range.last; m += 2) {
            bool two = m + 1 < range.last;
            for (int pair = 0; pair < pairs; pair++)
                P::multiply(x.panel(m), two ? x.panel(m + 1) : nullptr,
                            weights_ + size_t(pair) * x.blocks * P::PACKED_PAIR, x.blocks, heights(m),
                            two ? heights(m + 1) : 0, mine.logits + 2 * pair * TILE, second + 2 * pair * TILE, [] {});
            for (int panel = m; panel < m + 1 + two; panel++)
                for (int row = 0; row < heights(panel); row++) {
                    float* z = (panel == m ? mine.logits.get() : second) + row * LANES;
                    size_t at = size_t(panel) * P::ROWS + row;
                    int32_t target = targets.ids[at], place = targets.places[at];
                    float all = target < 0 ? 0 : score_row(z, target, nats[place], correct[place]);
                    if (for_backward) gradient_row(z, target, panel, row, all, mine);
                }
        }
    }

    Panels<P> d_logits() const { return {d_logits_, padded_ / P::DEPTH}; }
    const Number* weights_transposed() const { return weights_transposed_; }

    void bias_gradient(float* to) const {
        for (int v = 0; v < tokens_; v++) {
            to[v] = 0;
            for (const HeadPart& mine : parts_) to[v] += mine.d_bias[v];
        }
    }

private:
    // One row: its logits are at z, a TILE between their vectors. The highest logit is subtracted first, so that
    // nothing overflows. Leaves e to the power of the differences at z, and returns their sum.
    CHARLOOM_INLINE float score_row(float* z, int target, double& nats, bool& correct) const {
        int vectors = padded_ / LANES;
        Floats top = splat(PADDING_LOGIT);
        for (int v = 0; v < vectors; v++) {
            Floats logits = load(z + v * TILE) + load(bias_ + v * LANES);
            store(z + v * TILE, logits);
            top = larger(top, logits);
        }
        float best = highest(top), of_target = z[target / LANES * TILE + target % LANES];
        correct = of_target == best && is_first(z, target, best);
        Floats total{};
        for (int v = 0; v < vectors; v++) {
            Floats e = exponential(load(z + v * TILE) - best);
            store(z + v * TILE, e);
            total += e;
        }
        float all = sum(total);
        nats = std::log(all) + double(best) - of_target;
        return all;
    }

    // The gradient of a row's logits: softmax - one-hot target. z, all: the results of `score_row`.
    CHARLOOM_INLINE void gradient_row(float* z, int target, int m, int row, float all, HeadPart& mine) {
        int vectors = padded_ / LANES;
        if (target >= 0) {
            float share = 1 / all;
            for (int v = 0; v < vectors; v++) store(z + v * TILE, load(z + v * TILE) * share);
            z[target / LANES * TILE + target % LANES] -= 1;
        }
        for (int v = 0; v < vectors; v++) {
            Floats d = target >= 0 ? load(z + v * TILE) : Floats{};
            store(d_logits().at(m, row, v * LANES), d);
            store(mine.d_bias + v * LANES, load(mine.d_bias + v * LANES) + d);
        }
    }

    // Of equal logits, the first is the prediction, as in `argmax`.
    static bool is_first(const float* z, int target, float best) {
        for (int v = 0; v < target; v++)
            if (z[v / LANES * TILE + v % LANES] == best) return false;
        return true;
    }

    int hidden_ = 0, tokens_ = 0, padded_ = 0;
    Buffer<Number> weights_, weights_transposed_, d_logits_;
    Buffer<float> bias_;
    std::vector<HeadPart> parts_;
};

}  // namespace charloom
