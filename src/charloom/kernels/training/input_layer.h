// What stands before the first layer: each distinct token of a batch enters once, as the sums W x + b of its one-hot
// column, embedding or number, and its gradients are summed before they go back.

#pragma once

#include "threads/pool.h"
#include "training/layer.h"
#include "training/training.h"

namespace charloom {

template <class P>
class InputLayer {
public:
    explicit InputLayer(const Architecture& a) : a_(a), hidden_(up_to_multiple(a.hidden, GRAIN)) {}

    // Numbers the tokens as they first come, and says which stands where.
    void place(const Batch& batch, Layout layout) {
        tokens_.reserve(size_t(batch.steps) * layout.panels * P::ROWS);
        number_of_.assign(a_.vocabulary_size, -1);
        distinct_.clear();
        for (int t = 0; t < batch.steps; t++)
            for (int text = 0; text < batch.texts; text++) {
                int32_t id = batch.inputs[size_t(text) * batch.steps + t];
                if (number_of_[id] < 0) {
                    number_of_[id] = int(distinct_.size());
                    distinct_.push_back(id);
                }
                tokens_[layout.place(t, text, P::ROWS)] = token_place(number_of_[id], unit_blocks());
            }
        for (int t = 0; t < batch.steps; t++)
            for (int text = batch.texts; text < layout.panels * layout.rows; text++)
                tokens_[layout.place(t, text, P::ROWS)] = 0;
        panels_ = (int(distinct_.size()) + TOKEN_ROWS - 1) / TOKEN_ROWS;
    }

    int tokens() const { return panels_ * TOKEN_ROWS; }  // with those that only fill the last panel

    // The sums of each.
    void sum(const std::vector<const float*>& parameters, const Layer<P>& layer, int threads) {
        sums_.reserve(size_t(tokens()) * unit_blocks() * layer.input_size);
        const float* given = parameters[a_.has_table()];
        if (a_.input == Input::ONEHOT)
            return each_part(threads, [&](int part) { gather_columns(given, layer, unit_range(part, threads)); });
        x_.reserve(Panels<Product>::size(panels_, width() / Product::DEPTH));
        for (int s = 0; s < int(distinct_.size()); s++)
            for (int e = 0; e < width(); e += LANES)
                store(x().at(s / Product::ROWS, s % Product::ROWS, e), numbers(parameters, distinct_[s], e));
        Weights weights(given, layer.gates, a_.hidden, a_.embedding, padding_);
        weights.take(0, 1);
        weights_.reserve(size_t(layer.gates) * hidden_ * width());
        weights_back_.reserve(size_t(layer.gates) * hidden_ * width());
        pack_for_gates<Product>(weights, weights_, 0, 1);
        pack_for_gradients<Product>(weights, weights_back_, 0, 1);
        layer.sum_tokens(x(), weights_, sums_, {0, panels_}, room_);
    }

    Inputs<P> inputs() const { return {sums_, tokens_, TOKEN_ROWS}; }

    // From the sums of each to W, and to the embedding.
    void gradients(const std::vector<float*>& gradients, const Layer<P>& layer, int threads) {
        if (a_.input == Input::ONEHOT)
            return each_part(threads,
                             [&](int part) { scatter_columns(gradients[0], layer, unit_range(part, threads)); });
        d_.reserve(Panels<Product>::size(panels_, hidden_ / Product::DEPTH * layer.gates));
        Panels<Product> d{d_, hidden_ / Product::DEPTH * layer.gates};
        for (int s = 0; s < tokens(); s++)
            for (int gate = 0; gate < layer.gates; gate++)
                for (int j = 0; j < unit_blocks(); j++)  // beyond the last there may be what an earlier batch left
                    store(d.at(s / Product::ROWS, s % Product::ROWS, j * LANES, gate, layer.gates),
                          s < int(distinct_.size()) ? layer.token_gradient(s, j, gate) : Floats{});
        Gradient weights(gradients[a_.has_table()], layer.gates, a_.hidden, a_.embedding, padding_back_);
        weight_gradient<Product>(d, x(), panels_, Product::ROWS, weights, 0, 1, room_);
        weights.deliver(0, 1);
        if (a_.has_table()) table_gradient(gradients[0], d);
    }

private:
    using Product = SinglePrecision;  // a token's numbers are few, and need not lose any of their bits

    int unit_blocks() const { return hidden_ / LANES; }
    int width() const { return up_to_multiple(a_.embedding, GRAIN); }
    Range unit_range(int part, int parts) const { return Range::of(unit_blocks(), part, parts); }
    Panels<Product> x() const { return {x_, width() / Product::DEPTH}; }

    // LANES of the numbers that a token enters as: its embedding, or its index/V.
    Floats numbers(const std::vector<const float*>& parameters, int id, int from) const {
        if (a_.input == Input::EMBEDDING) return some(parameters[0] + size_t(id) * a_.embedding, from, a_.embedding);
        float few[LANES] = {};
        if (from == 0) few[0] = float(id) / float(a_.vocabulary_size);
        return load(few);
    }

    // One-hot: what W x is, is a column of W.
    void gather_columns(const float* weights, const Layer<P>& layer, Range range) {
        for (int j = range.first; j < range.last; j++)
            for (int s = 0; s < int(distinct_.size()); s++) {
                float sums[MOST_GATES + 1][LANES] = {};  // gates in pairs
                for (int gate = 0; gate < layer.gates; gate++) {
                    const float* column =
                        weights + (size_t(gate) * a_.hidden + j * LANES) * a_.vocabulary_size + distinct_[s];
                    for (int lane = 0; lane < LANES && j * LANES + lane < a_.hidden; lane++)
                        sums[gate][lane] = column[size_t(lane) * a_.vocabulary_size];
                    store(sums[gate], load(sums[gate]) + load(layer.bias() + (size_t(j) * layer.gates + gate) * LANES));
                }
                auto* to = sums_ + (token_place(s, unit_blocks()) + size_t(j) * TOKEN_ROWS) * layer.input_size;
                for (int gate = 0; gate < layer.gates; gate += 2)
                    P::keep(to + gate / 2 * P::PAIR, load(sums[gate]), load(sums[gate + 1]));
            }
    }

    void scatter_columns(float* gradient, const Layer<P>& layer, Range range) const {
        for (int j = range.first; j < range.last; j++)
            for (int gate = 0; gate < layer.gates; gate++) {
                int units = std::min(LANES, a_.hidden - j * LANES);
                if (units <= 0) return;
                float* rows = gradient + (size_t(gate) * a_.hidden + j * LANES) * a_.vocabulary_size;
                std::fill_n(rows, size_t(units) * a_.vocabulary_size, 0.0f);
                for (int s = 0; s < int(distinct_.size()); s++) {
                    float few[LANES];
                    store(few, layer.token_gradient(s, j, gate));
                    for (int lane = 0; lane < units; lane++)
                        rows[size_t(lane) * a_.vocabulary_size + distinct_[s]] = few[lane];
                }
            }
    }

    void table_gradient(float* gradient, Panels<Product> d) {
        std::fill_n(gradient, size_t(a_.vocabulary_size) * a_.embedding, 0.0f);
        TableRows finish{gradient, distinct_, a_.embedding};
        product_down<Product>(d, Product::ROWS, weights_back_, width() / (2 * LANES), {0, panels_}, room_, finish);
    }

    // Columns of the result are the embedding's, rows are the distinct tokens.
    struct TableRows {
        float* gradient;
        const std::vector<int>& distinct;
        int embedding;
        int panel = 0, pair = 0;

        void want(int, int, int, PrefetchList&) const {}
        void begin(int panel_, int pair_) { panel = panel_, pair = pair_; }
        void rows(const float* z, int first, int last) {
            for (int row = first; row < last; row++)
                for (int side = 0; side < 2; side++) {
                    int s = panel * Product::ROWS + row, from = (2 * pair + side) * LANES;
                    if (s < int(distinct.size()) && from < embedding)
                        put(load(z + side * TILE + row * LANES), gradient + size_t(distinct[s]) * embedding, from,
                            embedding);
                }
        }
    };

    Architecture a_;
    int hidden_, panels_ = 0;
    std::vector<int> number_of_, distinct_;
    Buffer<int32_t> tokens_;
    Buffer<typename P::Kept> sums_;
    Buffer<float> x_, weights_, weights_back_, padding_, padding_back_, d_, room_;
};

}  // namespace charloom
