// The input layer computes W x + b once for each distinct token of a batch. x is a one-hot vector, an embedding or a
// scalar. The gradients of a token are summed before they are propagated.

#pragma once

#include "threads/pool.h"
#include "training/layer.h"
#include "training/training.h"

namespace charloom {

template <class P>
class InputLayer {
public:
    explicit InputLayer(const Architecture& a) : a_(a), hidden_(up_to_multiple(a.hidden, GRAIN)) {}

    // Numbers the distinct tokens in the order of their first use.
    void index_tokens(const Batch& batch, Layout layout) {
        tokens_.reserve(size_t(batch.steps) * layout.panels * P::ROWS);
        number_of_.assign(a_.vocabulary_size, -1);
        distinct_.clear();
        for (int t = 0; t < batch.steps; t++)
            for (int sequence = 0; sequence < batch.sequences; sequence++) {
                int32_t id = batch.inputs[size_t(sequence) * batch.steps + t];
                if (number_of_[id] < 0) {
                    number_of_[id] = int(distinct_.size());
                    distinct_.push_back(id);
                }
                tokens_[layout.index(t, sequence, P::ROWS)] = token_offset(number_of_[id], unit_blocks());
            }
        panels_ = (int(distinct_.size()) + TOKEN_ROWS - 1) / TOKEN_ROWS;
    }

    int tokens() const { return panels_ * TOKEN_ROWS; }  // including those that pad the last panel

    // W x + b of each distinct token.
    void sum(const std::vector<const float*>& parameters, const RecurrentLayer<P>& layer, int threads) {
        sums_.reserve(size_t(tokens()) * unit_blocks() * layer.input_size);
        const float* given = parameters[a_.has_table()];
        if (a_.input == Input::ONEHOT)
            return each_part(threads, [&](int part) { gather_columns(given, layer, unit_range(part, threads)); });
        x_.reserve(Panels<Product>::size(panels_, width() / Product::DEPTH));
        for (int s = 0; s < int(distinct_.size()); s++)
            for (int e = 0; e < width(); e += LANES)
                store(x().at(s / Product::ROWS, s % Product::ROWS, e), features(parameters, distinct_[s], e));
        Weights weights(given, layer.gates, a_.hidden, a_.input_size, padding_);
        weights.copy_in(0, 1);
        weights_.reserve(size_t(layer.gates) * hidden_ * width());
        weights_transposed_.reserve(size_t(layer.gates) * hidden_ * width());
        pack_for_gates<Product>(weights, weights_, 0, 1);
        pack_for_gradients<Product>(weights, weights_transposed_, 0, 1);
        layer.sum_tokens(x(), heights(), weights_, sums_, {0, panels_}, scratch_);
    }

    Inputs<P> inputs() const { return {sums_, tokens_, TOKEN_ROWS}; }

    // The gradients of W and of the embedding.
    void gradients(const std::vector<float*>& gradients, const RecurrentLayer<P>& layer, int threads) {
        if (a_.input == Input::ONEHOT)
            return each_part(threads,
                             [&](int part) { scatter_columns(gradients[0], layer, unit_range(part, threads)); });
        d_.reserve(Panels<Product>::size(panels_, hidden_ / Product::DEPTH * layer.gates));
        Panels<Product> d{d_, hidden_ / Product::DEPTH * layer.gates};
        for (int s = 0; s < tokens(); s++)
            for (int gate = 0; gate < layer.gates; gate++)
                for (int j = 0; j < unit_blocks(); j++)  // padding may contain data of an earlier batch
                    store(d.at(s / Product::ROWS, s % Product::ROWS, j * LANES, gate, layer.gates),
                          s < int(distinct_.size()) ? layer.token_gradient(s, j, gate) : Floats{});
        Gradient weights(gradients[a_.has_table()], layer.gates, a_.hidden, a_.input_size, padding_back_);
        weight_gradient<Product>(d, x(), panels_, heights(), weights, 0, 1, scratch_);
        weights.copy_out(0, 1);
        if (a_.has_table()) table_gradient(gradients[0], d);
    }

private:
    using Product = SinglePrecision;  // the product is small, so bf16 would save little

    int unit_blocks() const { return hidden_ / LANES; }
    Heights heights() const { return {Layout(tokens(), panels_)}; }
    int width() const { return up_to_multiple(a_.input_size, GRAIN); }
    Range unit_range(int part, int parts) const { return Range::of(unit_blocks(), part, parts); }
    Panels<Product> x() const { return {x_, width() / Product::DEPTH}; }

    // LANES elements of a token's x: its embedding, or its id / V.
    Floats features(const std::vector<const float*>& parameters, int id, int from) const {
        if (a_.input == Input::EMBEDDING)
            return load_partial(parameters[0] + size_t(id) * a_.input_size, from, a_.input_size);
        float few[LANES] = {};
        if (from == 0) few[0] = float(id) / float(a_.vocabulary_size);
        return load(few);
    }

    // One-hot: W x is a column of W.
    void gather_columns(const float* weights, const RecurrentLayer<P>& layer, Range range) {
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
                auto* to = sums_ + (token_offset(s, unit_blocks()) + size_t(j) * TOKEN_ROWS) * layer.input_size;
                for (int gate = 0; gate < layer.gates; gate += 2)
                    P::save(to + gate / 2 * P::PAIR, load(sums[gate]), load(sums[gate + 1]));
            }
    }

    void scatter_columns(float* gradient, const RecurrentLayer<P>& layer, Range range) const {
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
        std::fill_n(gradient, size_t(a_.vocabulary_size) * a_.input_size, 0.0f);
        TableRows finish{gradient, distinct_, a_.input_size};
        gradient_below<Product>(d, heights(), weights_transposed_, width() / (2 * LANES), {0, panels_}, scratch_,
                                finish);
    }

    // The gradient of the embedding. The rows are the distinct tokens.
    struct TableRows {
        float* gradient;
        const std::vector<int>& distinct;
        int embedding;
        int panel = 0, pair = 0;

        void prefetch(int, int, int, PrefetchList&) const {}
        void begin(int panel_, int pair_) { panel = panel_, pair = pair_; }
        void rows(const float* z, int first, int last) {
            for (int row = first; row < last; row++)
                for (int side = 0; side < 2; side++) {
                    int s = panel * Product::ROWS + row, from = (2 * pair + side) * LANES;
                    if (s < int(distinct.size()) && from < embedding)
                        store_partial(load(z + side * TILE + row * LANES), gradient + size_t(distinct[s]) * embedding,
                                      from, embedding);
                }
        }
    };

    Architecture a_;
    int hidden_, panels_ = 0;
    std::vector<int> number_of_, distinct_;
    Buffer<int32_t> tokens_;
    Buffer<typename P::Saved> sums_;
    Buffer<float> x_, weights_, weights_transposed_, padding_, padding_back_, d_, scratch_;
};

}  // namespace charloom
