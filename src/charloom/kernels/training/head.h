// The head: logits, softmax and cross-entropy in one, and the way back. Its NumPy twin is engines/bptt/head.py.
//
// Only panels in which a target stands are computed. Shapes: V vocabulary size, padded to a multiple of GRAIN.

#pragma once

#include "training/layer.h"

namespace charloom {

constexpr float NEVER = -1e30f;  // the logit of a token that is only padding

template <class P>
class Head {
public:
    using Number = typename P::Number;

    struct Found {
        double nats = 0;
        int64_t correct = 0;
        Buffer<float> d_bias, room;
    };

    void resize(int hidden, int tokens, int panels, int parts) {
        hidden_ = hidden, tokens_ = tokens, padded_ = up_to_multiple(tokens, GRAIN);
        weights_.reserve(size_t(padded_) * hidden);
        weights_back_.reserve(size_t(padded_) * hidden);
        bias_.reserve(padded_);
        d_logits_.reserve(Panels<P>::size(panels, padded_ / P::DEPTH));
        found_.resize(parts);
        for (Found& found : found_) {
            found.d_bias.reserve(padded_);
            found.room.reserve(size_t(2) * padded_ / LANES * TILE);
        }
    }

    void pack(const Weights& weights, bool back, int part, int parts) {
        Range range = Range::of(padded_ / (2 * LANES), part, parts);
        int blocks = hidden_ / P::DEPTH;
        for (int pair = range.first; pair < range.last; pair++)
            for (int side = 0; side < 2; side++)
                for (int k = 0; k < blocks; k++)
                    P::pack_rows(weights.row(0, (2 * pair + side) * LANES) + k * P::DEPTH, weights.columns,
                                 weights_ + (size_t(pair) * blocks + k) * P::PACKED_PAIR, side);
        if (back) pack_for_gradients<P>(weights, weights_back_, part, parts);
    }

    void set_bias(const float* bias) {
        for (int v = 0; v < padded_; v++) bias_[v] = v < tokens_ ? bias[v] : NEVER;
    }

    // Loss and, where `scale` is not 0, the gradient of scale times it with respect to the logits, for the panels in the
    // range. targets: [panel][P::ROWS], -1 for none.
    void forward(Panels<P> x, int rows, const int32_t* targets, Range range, float scale, int part) {
        typename P::Session session(rows);
        Found& found = found_[part];
        found.nats = 0, found.correct = 0;
        std::memset(found.d_bias, 0, padded_ * sizeof(float));
        int pairs = padded_ / (2 * LANES);
        float* second = found.room + padded_ / LANES * TILE;
        for (int m = range.first; m < range.last; m += 2) {
            bool two = m + 1 < range.last;
            for (int pair = 0; pair < pairs; pair++)
                P::multiply(x.panel(m), two ? x.panel(m + 1) : nullptr,
                            weights_ + size_t(pair) * x.blocks * P::PACKED_PAIR, x.blocks, rows,
                            found.room + 2 * pair * TILE, second + 2 * pair * TILE, [] {});
            for (int row = 0; row < rows; row++) {
                judge(found.room + row * LANES, targets[size_t(m) * P::ROWS + row], m, row, scale, found);
                if (two) judge(second + row * LANES, targets[size_t(m + 1) * P::ROWS + row], m + 1, row, scale, found);
            }
        }
    }

    Panels<P> d_logits() const { return {d_logits_, padded_ / P::DEPTH}; }
    const Number* weights_back() const { return weights_back_; }
    const std::vector<Found>& found() const { return found_; }

    void bias_gradient(float* to) const {
        for (int v = 0; v < tokens_; v++) {
            to[v] = 0;
            for (const Found& found : found_) to[v] += found.d_bias[v];
        }
    }

private:
    // One row: logits at z, a TILE between their vectors. The highest is taken off first, so that nothing overflows.
    CHARLOOM_INLINE void judge(float* z, int target, int m, int row, float scale, Found& found) {
        int vectors = padded_ / LANES;
        if (target >= 0) {
            Floats top = splat(NEVER);
            for (int v = 0; v < vectors; v++) {
                Floats logits = load(z + v * TILE) + load(bias_ + v * LANES);
                store(z + v * TILE, logits);
                top = larger(top, logits);
            }
            float best = highest(top), of_target = z[target / LANES * TILE + target % LANES];
            found.correct += of_target == best && is_first(z, target, best);
            Floats total{};
            for (int v = 0; v < vectors; v++) {
                Floats e = exponential(load(z + v * TILE) - best);
                store(z + v * TILE, e);
                total += e;
            }
            float all = sum(total);
            found.nats += std::log(all) + double(best) - of_target;
            if (scale == 0) return;
            float share = scale / all;
            for (int v = 0; v < vectors; v++) store(z + v * TILE, load(z + v * TILE) * share);
            z[target / LANES * TILE + target % LANES] -= scale;
        }
        if (scale == 0) return;
        for (int v = 0; v < vectors; v++) {
            Floats d = target >= 0 ? load(z + v * TILE) : Floats{};
            store(d_logits().at(m, row, v * LANES), d);
            store(found.d_bias + v * LANES, load(found.d_bias + v * LANES) + d);
        }
    }

    // Of equal logits the first counts as the guess, as `argmax` has it.
    static bool is_first(const float* z, int target, float best) {
        for (int v = 0; v < target; v++)
            if (z[v / LANES * TILE + v % LANES] == best) return false;
        return true;
    }

    int hidden_ = 0, tokens_ = 0, padded_ = 0;
    Buffer<Number> weights_, weights_back_, d_logits_;
    Buffer<float> bias_;
    std::vector<Found> found_;
};

}  // namespace charloom
