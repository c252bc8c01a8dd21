// A whole network, a training step at a time: what engines/bptt/network.py does, in the order it does it.
//
//   ids → distinct symbols → input sums → recurrent layer → (mask → input sums → recurrent layer)* → mask → head → nats
//
// Parameters and gradients are row-major float32 arrays in the order of `architecture.shapes`; what is packed is packed
// anew at each forward, because training has changed the weights.

#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#include "head.h"
#include "pool.h"
#include "recurrence.h"
#include "subnormals.h"

namespace charloom {

enum class Input { ONEHOT, EMBEDDING, SCALAR };

struct Architecture {
    std::string cell, nonlinearity;
    int layers, hidden, symbols;
    Input input;
    int embedding;  // numbers that a symbol enters as: 1 for a scalar

    bool has_table() const { return input == Input::EMBEDDING; }
    int input_size() const { return input == Input::ONEHOT ? symbols : embedding; }
};

// Arrays that Python holds. masks: [T, B, H] for each place between two layers, then [N, H] before the head, N targets in
// the order of [B, T]; none at all without dropout.
struct Batch {
    int texts, steps;
    const int32_t *inputs, *targets;  // [B, T]; a target below 0 is none
    const float *h, *c;               // [L, B, H] before, or nothing for zero
    std::vector<const float*> masks;
    float *h_after, *c_after;
};

struct Score {
    double nats = 0;
    int64_t count = 0, correct = 0;
};

class Network {
public:
    virtual ~Network() = default;
    // scale: of the nats, in the loss that `backward` differentiates; 0 where it will not follow.
    virtual Score forward(const std::vector<const float*>& parameters, const Batch& batch, float scale) = 0;
    // The gradients of the last `forward`, whose arrays must still be there. d_h, d_c: [L, B, H] of the state after, or
    // nothing for zero; d_h_before, d_c_before: of the state before, or nothing where nobody asks.
    virtual void backward(const std::vector<float*>& gradients, const float* d_h, const float* d_c, float* d_h_before,
                          float* d_c_before) = 0;
};

template <class P>
class NetworkOf : public Network {
public:
    using Number = typename P::Number;
    using Entry = SinglePrecision;  // a symbol's numbers are few, and need not lose any of their bits

    NetworkOf(Architecture architecture, int threads)
        : a_(architecture), threads_(threads), hidden_(up_to_multiple(architecture.hidden, GRAIN)),
          sums_(architecture.layers), masked_(architecture.layers), rooms_(threads),
          padding_(4 * architecture.layers + 3) {
        for (int n = 0; n < a_.layers; n++) layers_.push_back(layer_of<P>(a_.cell, a_.nonlinearity == "relu"));
    }

    Score forward(const std::vector<const float*>& parameters, const Batch& batch, float scale) override {
        SubnormalsAreZero here;
        parameters_ = parameters, batch_ = batch;
        bool keep = scale != 0;
        place_texts();
        Score score{.count = place_targets()};
        resize(keep);
        pack(keep);
        enter();
        for (int n = 0; n < a_.layers; n++) run_layer(n, keep);
        gather_targets();
        each_part([&](int part) {
            head_.forward(top_, layout_.rows, targets_.get(), active_range(part), scale, part);
        });
        for (const auto& found : head_.found()) score.nats += found.nats, score.correct += found.correct;
        return score;
    }

    void backward(const std::vector<float*>& gradients, const float* d_h, const float* d_c, float* d_h_before,
                  float* d_c_before) override {
        SubnormalsAreZero here;
        back_.reserve(hidden_, total_panels(), layout_, gates(), layers_[0]->past);
        head_gradients(gradients);
        for (int n = a_.layers - 1; n >= 0; n--) {
            size_t state = size_t(n) * layout_.texts * a_.hidden;
            auto of = [=](auto* array) { return array ? array + state : nullptr; };
            layers_[n]->set_d_state(back_, of(d_h), of(d_c), a_.hidden);
            each_part([&](int part) {
                layers_[n]->backward(back_, inputs(n), texts_range(part), part, of(d_h_before), of(d_c_before), a_.hidden,
                                    rooms_[part]);
            });
            layer_gradients(n, gradients);
        }
    }

private:
    // ---- where things are

    int gates() const { return layers_[0]->gates; }
    int total_panels() const { return batch_.steps * layout_.panels; }
    int weight(int layer) const { return a_.has_table() + 4 * layer; }  // W, U, b, b' follow one another
    int head_weight() const { return a_.has_table() + 4 * a_.layers; }
    Range texts_range(int part) const {
        return Range::of(layout_.panels, part, threads_, layout_.panels >= 2 * threads_ ? 2 : 1);
    }
    Range sequence_range(int part) const { return Range::of(total_panels(), part, threads_, 2); }
    Range active_range(int part) const { return Range::of(int(active_.size()), part, threads_, 2); }

    template <class Work>
    void each_part(Work&& work) {
        run_parts(threads_, threads_, [&](int part) {
            SubnormalsAreZero here;
            work(part);
        });
    }

    Padded padded_parameter(int index, int gates, int rows, int columns) {
        return padded(parameters_[index], gates, rows, columns, padding_[index]);
    }

    // ---- forward

    // Texts into panels; and the distinct symbols, numbered as they first come.
    void place_texts() {
        layout_ = Layout::of(batch_.texts, P::ROWS, threads_);
        symbols_.reserve(size_t(total_panels()) * P::ROWS);
        number_of_.assign(a_.symbols, -1);
        distinct_symbols_.clear();
        for (int t = 0; t < batch_.steps; t++)
            for (int text = 0; text < batch_.texts; text++) {
                int32_t id = batch_.inputs[size_t(text) * batch_.steps + t];
                if (id < 0 || id >= a_.symbols) throw std::out_of_range("an id must be below the number of symbols");
                if (number_of_[id] < 0) {
                    number_of_[id] = int(distinct_symbols_.size());
                    distinct_symbols_.push_back(id);
                }
                symbols_[place(t, text)] = symbol_place(number_of_[id], hidden_ / LANES);
            }
        for (int t = 0; t < batch_.steps; t++)
            for (int text = batch_.texts; text < layout_.panels * layout_.rows; text++) symbols_[place(t, text)] = 0;
        distinct_ = int(distinct_symbols_.size());
        symbol_panels_ = (distinct_ + SYMBOL_ROWS - 1) / SYMBOL_ROWS;
    }

    size_t place(int t, int text) const {
        return (size_t(t) * layout_.panels + layout_.panel(text)) * P::ROWS + layout_.row(text);
    }

    // Which row of a mask each place has, and where targets stand; returns how many there are.
    int64_t place_targets() {
        size_t places = size_t(total_panels()) * P::ROWS;
        for (auto* rows : {&mask_rows_, &head_mask_rows_, &all_targets_}) {
            rows->reserve(places);
            std::fill(rows->get(), rows->get() + places, -1);
        }
        int64_t count = 0;
        for (int text = 0; text < batch_.texts; text++)
            for (int t = 0; t < batch_.steps; t++) {
                size_t here = place(t, text);
                mask_rows_[here] = t * batch_.texts + text;
                int32_t target = batch_.targets[size_t(text) * batch_.steps + t];
                all_targets_[here] = target;
                if (target >= 0) head_mask_rows_[here] = int32_t(count++);
            }
        active_.clear();
        for (int m = 0; m < total_panels(); m++)
            for (int row = 0; row < layout_.rows; row++)
                if (all_targets_[size_t(m) * P::ROWS + row] >= 0) {
                    active_.push_back(m);
                    break;
                }
        return count;
    }

    void resize(bool keep) {
        int m = total_panels(), blocks = hidden_ / P::DEPTH;
        for (int n = 0; n < a_.layers; n++) {
            int symbols = n ? 1 : symbol_panels_ * SYMBOL_ROWS;
            layers_[n]->resize(hidden_, batch_.steps, layout_, threads_, symbols, keep);
            if (n > 0) sums_[n].reserve(size_t(m) * (hidden_ / LANES) * P::ROWS * layers_[0]->input_size);
            if (!batch_.masks.empty()) masked_[n].reserve(Panels<P>::size(m, blocks));
        }
        if (int(active_.size()) < m) compact_.reserve(Panels<P>::size(int(active_.size()), blocks));
        head_.resize(hidden_, a_.symbols, m, threads_);
        sums_[0].reserve(size_t(symbol_panels_) * (hidden_ / LANES) * Entry::ROWS * layers_[0]->input_size);
    }

    void pack(bool back) {
        const int GATES = gates();
        std::vector<Padded> recurrent, input;
        for (int n = 0; n < a_.layers; n++) {
            int w = weight(n);
            recurrent.push_back(padded_parameter(w + 1, GATES, a_.hidden, a_.hidden));
            input.push_back(n ? padded_parameter(w, GATES, a_.hidden, a_.hidden) : recurrent[0]);
            layers_[n]->set_biases(parameters_[w + 2], parameters_[w + 3], a_.hidden);
            size_t state = size_t(n) * batch_.texts * a_.hidden;
            layers_[n]->set_state(batch_.h ? batch_.h + state : nullptr, batch_.c ? batch_.c + state : nullptr, a_.hidden);
        }
        Padded head = padded_parameter(head_weight(), 1, a_.symbols, a_.hidden);
        head_.set_bias(parameters_[head_weight() + 1]);
        each_part([&](int part) {
            for (int n = 0; n < a_.layers; n++) layers_[n]->pack(recurrent[n], n ? &input[n] : nullptr, back, part, threads_);
            head_.pack(head, back, part, threads_);
        });
    }

    // The input sums of each distinct symbol.
    void enter() {
        if (a_.input == Input::ONEHOT) return gather_columns();
        int width = up_to_multiple(a_.embedding, GRAIN);
        entry_.reserve(Panels<Entry>::size(symbol_panels_, width / Entry::DEPTH));
        for (int s = 0; s < distinct_; s++)
            for (int e = 0; e < width; e += LANES)
                store(entry_panels().at(s / Entry::ROWS, s % Entry::ROWS, e), symbol_numbers(distinct_symbols_[s], e));
        Padded weights = padded_parameter(weight(0), gates(), a_.hidden, a_.embedding);
        entry_weights_.reserve(size_t(gates()) * hidden_ * width);
        entry_weights_back_.reserve(size_t(gates()) * hidden_ * width);
        pack_for_gates<Entry>(weights, entry_weights_, 0, 1);
        layers_[0]->sum_symbols(entry_panels(), entry_weights_, sums_[0], {0, symbol_panels_}, rooms_[0]);
        pack_for_gradients<Entry>(weights, entry_weights_back_, 0, 1);
    }

    Panels<Entry> entry_panels() const { return {entry_, up_to_multiple(a_.embedding, GRAIN) / Entry::DEPTH}; }

    // LANES of the numbers that a symbol enters as: its embedding, or its index/V.
    Floats symbol_numbers(int id, int from) const {
        if (a_.input == Input::EMBEDDING)
            return some(parameters_[0] + size_t(id) * a_.embedding, from, a_.embedding);
        float few[LANES] = {};
        if (from == 0) few[0] = float(id) / float(a_.symbols);
        return load(few);
    }

    // One-hot: what W x is, is a column of W.
    void gather_columns() {
        const float *w = parameters_[weight(0)], *bias = layers_[0]->bias();
        int unit_blocks = hidden_ / LANES;
        for (int s = 0; s < distinct_; s++)
            for (int j = 0; j < unit_blocks; j++) {
                float sums[5][LANES] = {};  // gates in pairs

                for (int gate = 0; gate < gates(); gate++)
                    for (int lane = 0; lane < LANES && j * LANES + lane < a_.hidden; lane++)
                        sums[gate][lane] = w[(size_t(gate) * a_.hidden + j * LANES + lane) * a_.symbols + distinct_symbols_[s]] +
                                           bias[(size_t(j) * gates() + gate) * LANES + lane];
                auto* to = sums_[0] + (symbol_place(s, unit_blocks) + size_t(j) * SYMBOL_ROWS) * layers_[0]->input_size;
                for (int gate = 0; gate < gates(); gate += 2)
                    P::keep(to + gate / 2 * P::PAIR, load(sums[gate]), load(sums[gate + 1]));
            }
    }

    void run_layer(int n, bool keep) {
        if (n > 0)
            each_part([&](int part) {
                layers_[n]->sum_inputs(passed(n - 1), layout_.rows, sums_[n], sequence_range(part), rooms_[part]);
            });
        each_part([&](int part) { layers_[n]->forward(inputs(n), mask(n), masked(n), texts_range(part), keep, rooms_[part]); });
        size_t state = size_t(n) * batch_.texts * a_.hidden;
        layers_[n]->get_state(batch_.h_after + state, batch_.c_after ? batch_.c_after + state : nullptr, a_.hidden);
    }

    Inputs<P> inputs(int n) const {
        if (n == 0) return {sums_[n], symbols_, SYMBOL_ROWS};
        return {sums_[n]};
    }

    // Of what goes up from layer n.
    Mask mask(int n) const {
        if (batch_.masks.empty()) return {};
        return {batch_.masks[n], n + 1 < a_.layers ? mask_rows_.get() : head_mask_rows_.get(), a_.hidden};
    }

    Panels<P> masked(int n) const { return {masked_[n], hidden_ / P::DEPTH}; }
    Panels<P> passed(int n) const { return batch_.masks.empty() ? layers_[n]->outputs() : masked(n); }

    // What the head reads: the top layer's panels in which targets stand, one after the other.
    void gather_targets() {
        top_ = passed(a_.layers - 1);
        int count = int(active_.size());
        targets_.reserve(size_t(count) * P::ROWS);
        for (int i = 0; i < count; i++)
            std::memcpy(targets_ + size_t(i) * P::ROWS, all_targets_ + size_t(active_[i]) * P::ROWS, P::ROWS * sizeof(int32_t));
        if (count == total_panels()) return;
        Panels<P> compact{compact_, top_.blocks};
        for (int i = 0; i < count; i++)
            std::memcpy(compact.panel(i), top_.panel(active_[i]), size_t(top_.blocks) * Panels<P>::BLOCK * sizeof(Number));
        top_ = compact;
    }

    // ---- backward

    // A weight's gradient goes straight to Python's array where that needs no padding.
    struct Destination {
        float* padded;
        float* given;
        int gates, rows, columns, all_rows, all_columns;
    };

    Destination destination(float* given, int gates, int rows, int columns, Buffer<float>& room) {
        int all_rows = up_to_multiple(rows, GRAIN), all_columns = up_to_multiple(columns, GRAIN);
        if (all_rows == rows && all_columns == columns) return {given, nullptr, gates, rows, columns, rows, columns};
        room.reserve(size_t(gates) * all_rows * all_columns);
        return {room, given, gates, rows, columns, all_rows, all_columns};
    }

    static void deliver(const Destination& d) {
        if (!d.given) return;
        for (int gate = 0; gate < d.gates; gate++)
            for (int n = 0; n < d.rows; n++)
                std::memcpy(d.given + (size_t(gate) * d.rows + n) * d.columns,
                            d.padded + (size_t(gate) * d.all_rows + n) * d.all_columns, d.columns * sizeof(float));
    }

    template <class Q>
    void gradient_of(Panels<Q> d, Panels<Q> x, int panels, int rows, const Destination& to, int part, int parts) {
        weight_gradient<Q>(d, to.gates, to.all_rows, x, panels, rows, Range::of(d.blocks, part, parts), rooms_[part],
                           to.padded);
    }

    void head_gradients(const std::vector<float*>& gradients) {
        if (int(active_.size()) < total_panels())
            std::fill_n(back_.outputs.get(), layers_[0]->output_place(total_panels(), 0, 0), Number(0));
        Mask of_head = mask(a_.layers - 1);
        auto finish = [&](const float* z, int i, int pair, int row) {
            size_t m = size_t(active_[i]);
            for (int side = 0; side < 2; side++) {
                int j = 2 * pair + side;
                Floats d = load(z + side * TILE);
                if (of_head) d *= of_head.at(m * P::ROWS + row, j * LANES);
                store(back_.outputs + layers_[0]->output_place(m, j, row), d);
            }
        };
        Destination to = destination(gradients[head_weight()], 1, a_.symbols, a_.hidden, gradient_rooms_[0]);
        each_part([&](int part) {
            product_down<P>(head_.d_logits(), layout_.rows, head_.weights_back(), hidden_ / (2 * LANES),
                            active_range(part), rooms_[part], finish);
            gradient_of<P>(head_.d_logits(), top_, int(active_.size()), layout_.rows, to, part, threads_);
        });
        deliver(to);
        head_.bias_gradient(gradients[head_weight() + 1]);
    }

    void layer_gradients(int n, const std::vector<float*>& gradients) {
        int w = weight(n), m = total_panels();
        Layer<P>& layer = *layers_[n];
        Destination recurrent = destination(gradients[w + 1], gates(), a_.hidden, a_.hidden, gradient_rooms_[0]);
        Destination input = n ? destination(gradients[w], gates(), a_.hidden, a_.hidden, gradient_rooms_[1])
                              : Destination{};
        Mask below = n ? mask(n - 1) : Mask{};
        auto finish = [&](const float* z, int panel, int pair, int row) {
            for (int side = 0; side < 2; side++) {
                int j = 2 * pair + side;
                Floats d = load(z + side * TILE);
                if (below) d *= below.at(size_t(panel) * P::ROWS + row, j * LANES);
                store(back_.outputs_below + layer.output_place(panel, j, row), d);
            }
        };
        each_part([&](int part) {
            if (n)
                product_down<P>(layer.d_inputs(back_), layout_.rows, layer.input_back(), hidden_ / (2 * LANES),
                                sequence_range(part), rooms_[part], finish);
            gradient_of<P>(layer.d_products(back_), layer.states(), m, layout_.rows, recurrent, part, threads_);
            if (n) gradient_of<P>(layer.d_inputs(back_), passed(n - 1), m, layout_.rows, input, part, threads_);
        });
        deliver(recurrent);
        if (n) deliver(input);
        layer.bias_gradients(gradients[w + 2], gradients[w + 3], a_.hidden);
        if (n) return std::swap(back_.outputs, back_.outputs_below);
        entry_gradients(gradients);
    }

    // From the sums of each distinct symbol to W, and to the embedding.
    void entry_gradients(const std::vector<float*>& gradients) {
        float* d_weights = gradients[weight(0)];
        Layer<P>& layer = *layers_[0];
        if (a_.input == Input::ONEHOT) {
            std::fill_n(d_weights, size_t(gates()) * a_.hidden * a_.symbols, 0.0f);
            for (int s = 0; s < distinct_; s++)
                for (int gate = 0; gate < gates(); gate++)
                    for (int unit = 0; unit < a_.hidden; unit += LANES) {
                        float few[LANES];
                        store(few, layer.symbol_gradient(s, unit, gate));
                        for (int lane = 0; lane < LANES && unit + lane < a_.hidden; lane++)
                            d_weights[(size_t(gate) * a_.hidden + unit + lane) * a_.symbols + distinct_symbols_[s]] = few[lane];
                    }
            return;
        }
        Panels<Entry> d{d_entry(), hidden_ / Entry::DEPTH * gates()};
        for (int s = 0; s < distinct_; s++)
            for (int gate = 0; gate < gates(); gate++)
                for (int unit = 0; unit < hidden_; unit += LANES)
                    store(d.at(s / Entry::ROWS, s % Entry::ROWS, unit, gate, gates()), layer.symbol_gradient(s, unit, gate));
        for (int s = distinct_; s < symbol_panels_ * Entry::ROWS; s++)  // what an earlier batch left
            for (int gate = 0; gate < gates(); gate++)
                for (int unit = 0; unit < hidden_; unit += LANES)
                    store(d.at(s / Entry::ROWS, s % Entry::ROWS, unit, gate, gates()), Floats{});
        Destination to = destination(d_weights, gates(), a_.hidden, a_.embedding, gradient_rooms_[1]);
        gradient_of<Entry>(d, entry_panels(), symbol_panels_, Entry::ROWS, to, 0, 1);
        deliver(to);
        if (!a_.has_table()) return;
        std::fill_n(gradients[0], size_t(a_.symbols) * a_.embedding, 0.0f);
        auto finish = [&](const float* z, int panel, int pair, int row) {
            int s = panel * Entry::ROWS + row;
            for (int side = 0; s < distinct_ && side < 2; side++)
                if (int from = (2 * pair + side) * LANES; from < a_.embedding)
                    put(load(z + side * TILE), gradients[0] + size_t(distinct_symbols_[s]) * a_.embedding, from,
                                 a_.embedding);
        };
        product_down<Entry>(d, Entry::ROWS, entry_weights_back_, up_to_multiple(a_.embedding, GRAIN) / (2 * LANES),
                            {0, symbol_panels_}, rooms_[0], finish);
    }

    float* d_entry() {
        d_entry_.reserve(Panels<Entry>::size(symbol_panels_, hidden_ / Entry::DEPTH * gates()));
        return d_entry_;
    }

    Architecture a_;
    int threads_, hidden_;
    std::vector<std::unique_ptr<Layer<P>>> layers_;
    std::vector<Buffer<typename P::Kept>> sums_;
    std::vector<Buffer<Number>> masked_;
    std::vector<Buffer<float>> rooms_, padding_;
    Buffer<float> gradient_rooms_[2];
    Head<P> head_;
    typename Layer<P>::Back back_;

    std::vector<const float*> parameters_;
    Batch batch_{};
    Layout layout_;
    int distinct_ = 0, symbol_panels_ = 0;
    std::vector<int> number_of_, distinct_symbols_, active_;
    Buffer<int32_t> symbols_, mask_rows_, head_mask_rows_, all_targets_, targets_;
    Buffer<Number> compact_;
    Buffer<float> entry_, entry_weights_, entry_weights_back_, d_entry_;
    Panels<P> top_;
};

}  // namespace charloom
