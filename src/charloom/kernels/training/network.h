// A training step of a network. NumPy twin: engines/numpy/network.py, with the same steps in the same order.
//
//   ids → input layer → input sums → recurrent layer → (mask → input sums → recurrent layer)* → mask → head → nats
//
// Parameters and gradients are row-major float32 arrays in the order of `architecture.shapes`. Each forward pass packs
// the weights again, because training has changed them.

#pragma once

#include "training/head.h"
#include "training/input_layer.h"
#include "training/recurrence.h"

namespace charloom {

// With at most this number of sequences, and recurrent weights of at least LARGE bytes, memory limits a step. With 4
// sequences, or weights in the second-level cache (LSTM 128, GRU 256), packed weights were up to 1.6 times as fast.
constexpr int FEW = 2;
constexpr size_t LARGE = size_t(1) << 20;

template <class P>
class TypedTrainingNetwork final : public TrainingNetwork {
public:
    using Number = typename P::Number;

    TypedTrainingNetwork(Architecture architecture, int threads)
        : a_(architecture), threads_(threads), hidden_(up_to_multiple(architecture.hidden, GRAIN)),
          input_layer_(architecture), sums_(architecture.layers), masked_(architecture.layers), scratch_(threads),
          padding_(4 * architecture.layers + 3) {
        for (int n = 0; n < a_.layers; n++) layers_.push_back(make_layer<P>(a_.cell));
    }

    void forward(const std::vector<const float*>& parameters, const Batch& batch, bool save) override {
        SubnormalsAreZero here;
        parameters_ = parameters, batch_ = batch;
        layout_ = Layout::of(batch_.sequences, P::ROWS, few() ? 1 : threads_);
        input_layer_.index_tokens(batch_, layout_);
        locate_targets();
        resize(save);
        pack(save);
        input_layer_.sum(parameters_, *layers_[0], threads_);
        for (int n = 0; n < a_.layers; n++) run_layer(n, save);
        gather_targets();
        each_part([&](int part) {
            head_.forward(top_, active_heights(), {targets_, places_}, batch_.nats, batch_.correct, active_panels(part),
                          save, part);
        });
    }

    void backward(const std::vector<float*>& gradients, State d_state, State d_before) override {
        SubnormalsAreZero here;
        buffers_.reserve(hidden_, total_panels(), layout_, gates(), layers_[0]->separate_bias);
        head_gradients(gradients);
        for (int n = a_.layers - 1; n >= 0; n--) {
            if (few())
                backward_few(n, d_state, d_before);
            else
                each_part([&](int part) {
                    layers_[n]->set_d_state(buffers_, of_layer(d_state, n), a_.hidden, step_panels(part));
                    layers_[n]->backward(buffers_, inputs(n), step_panels(part), part, of_layer(d_before, n), a_.hidden,
                                         scratch_[part]);
                });
            layer_gradients(n, gradients);
        }
    }

private:
    // ---- offsets and ranges

    int gates() const { return layers_[0]->gates; }
    int total_panels() const { return batch_.steps * layout_.panels; }
    int weight(int layer) const { return a_.has_table() + 4 * layer; }  // W, U, b, b' follow one another
    int head_weight() const { return a_.has_table() + 4 * a_.layers; }
    // Not in pairs, although products take two panels together: one panel alone costs less than a part with two more.
    Range step_panels(int part) const { return Range::of(layout_.panels, part, threads_); }
    Range all_panels(int part) const { return Range::of(total_panels(), part, threads_, 2); }
    Range active_panels(int part) const { return Range::of(int(active_.size()), part, threads_, 2); }

    Heights active_heights() const { return {layout_, active_.data()}; }

    State of_layer(State all, int n) const { return all.from(size_t(n) * layout_.sequences * a_.hidden); }

    template <class Work>
    void each_part(Work&& work) {
        charloom::each_part(threads_, work);
    }

    // Whether the recurrent layers read weights without packing. Then threads share the units of a step, and wait for
    // one another after it. Otherwise they share the sequences.
    bool few() const {
        size_t bytes = size_t(gates()) * hidden_ * hidden_ * sizeof(float);
        return std::is_same_v<P, SinglePrecision> && batch_.sequences <= FEW && bytes >= LARGE;
    }

    template <class Work>
    void team(Work&& work) {
        run_team(threads_, [&](int member, Team& team) {
            SubnormalsAreZero here;
            work(member, team);
        });
    }

    // A matrix of hidden units by hidden units, padded.
    GateRows rows_of(int w) const { return {a_.hidden == hidden_ ? parameters_[w] : padding_[w].get(), hidden_}; }

    // ---- forward

    // For each step and sequence: its row of a mask, its target, and the index of its target among all targets.
    void locate_targets() {
        size_t count_of_rows = size_t(total_panels()) * P::ROWS;
        for (auto* rows : {&mask_rows_, &all_places_, &all_targets_}) {
            rows->reserve(count_of_rows);
            std::fill(rows->get(), rows->get() + count_of_rows, -1);
        }
        int32_t count = 0;
        for (int sequence = 0; sequence < batch_.sequences; sequence++)
            for (int t = 0; t < batch_.steps; t++) {
                size_t here = layout_.index(t, sequence, P::ROWS);
                mask_rows_[here] = batch_.locked ? sequence : t * batch_.sequences + sequence;
                int32_t target = batch_.targets[size_t(sequence) * batch_.steps + t];
                all_targets_[here] = target;
                if (target >= 0) all_places_[here] = count++;
            }
        active_.clear();
        for (int m = 0; m < total_panels(); m++)
            for (int row = 0; row < layout_.rows(m); row++)
                if (all_targets_[size_t(m) * P::ROWS + row] >= 0) {
                    active_.push_back(m);
                    break;
                }
    }

    void resize(bool save) {
        int m = total_panels(), blocks = hidden_ / P::DEPTH;
        for (int n = 0; n < a_.layers; n++) {
            layers_[n]->resize(hidden_, batch_.steps, layout_, threads_, n ? 1 : input_layer_.tokens(), save);
            if (n > 0) sums_[n].reserve(size_t(m) * (hidden_ / LANES) * P::ROWS * layers_[0]->input_size);
            if (!batch_.masks.empty()) masked_[n].reserve(Panels<P>::size(m, blocks));
        }
        if (int(active_.size()) < m) compact_.reserve(Panels<P>::size(int(active_.size()), blocks));
        head_.resize(hidden_, a_.vocabulary_size, m, threads_);
    }

    void pack(bool for_backward) {
        std::vector<Weights> all;  // U and W of each layer, but not the first layer's W; the head's
        for (int n = 0; n < a_.layers; n++) {
            for (int w = weight(n) + 1; w >= weight(n) + (n == 0); w--)
                all.emplace_back(parameters_[w], gates(), a_.hidden, a_.hidden, padding_[w]);
            layers_[n]->set_biases(parameters_[weight(n) + 2], parameters_[weight(n) + 3], a_.hidden);
        }
        int head = head_weight();
        all.emplace_back(parameters_[head], 1, a_.vocabulary_size, a_.hidden, padding_[head]);
        head_.set_bias(parameters_[head + 1]);
        if (std::any_of(all.begin(), all.end(), [](const Weights& weights) { return weights.copied(); }))
            each_part([&](int part) {
                for (const Weights& weights : all) weights.copy_in(part, threads_);
            });
        each_part([&](int part) {
            for (int n = 0; n < a_.layers; n++) {
                if (!few())
                    layers_[n]->pack(all[n ? 2 * n - 1 : 0], n ? &all[2 * n] : nullptr, for_backward, part, threads_);
                layers_[n]->set_state(of_layer(batch_.state, n), a_.hidden, step_panels(part));
            }
            head_.pack(all.back(), for_backward, part, threads_);
        });
    }

    void run_layer(int n, bool save) {
        if (n > 0)
            each_part([&](int part) {
                if (few())
                    layers_[n]->sum_inputs_few(rows_of(weight(n)), layer_output(n - 1), sums_[n], part, threads_);
                else
                    layers_[n]->sum_inputs(layer_output(n - 1), sums_[n], all_panels(part), scratch_[part]);
            });
        if (few())
            team([&](int member, Team& team) {
                layers_[n]->forward_few(rows_of(weight(n) + 1), inputs(n), mask(n), masked(n), save, member, team);
            });
        each_part([&](int part) {
            if (!few()) layers_[n]->forward(inputs(n), mask(n), masked(n), step_panels(part), save, scratch_[part]);
            layers_[n]->get_state(of_layer(batch_.state_after, n), a_.hidden, step_panels(part));
        });
    }

    Inputs<P> inputs(int n) const { return n ? Inputs<P>{sums_[n]} : input_layer_.inputs(); }

    // The mask of the outputs of layer n.
    Mask mask(int n) const {
        if (batch_.masks.empty()) return {};
        return {batch_.masks[n], n + 1 < a_.layers || batch_.locked ? mask_rows_.get() : all_places_.get(), a_.hidden};
    }

    Panels<P> masked(int n) const { return {masked_[n], hidden_ / P::DEPTH}; }
    Panels<P> layer_output(int n) const { return batch_.masks.empty() ? layers_[n]->outputs() : masked(n); }

    // The head reads only the top layer's panels that have targets. They are copied side by side.
    void gather_targets() {
        top_ = layer_output(a_.layers - 1);
        int count = int(active_.size());
        for (auto [to, from] : {std::pair(&targets_, &all_targets_), std::pair(&places_, &all_places_)}) {
            to->reserve(size_t(count) * P::ROWS);
            for (int i = 0; i < count; i++)
                std::memcpy(*to + size_t(i) * P::ROWS, *from + size_t(active_[i]) * P::ROWS, P::ROWS * sizeof(int32_t));
        }
        if (count == total_panels()) return;
        Panels<P> compact{compact_, top_.blocks};
        for (int i = 0; i < count; i++)
            std::memcpy(compact.panel(i), top_.panel(active_[i]),
                        size_t(top_.blocks) * Panels<P>::BLOCK * sizeof(Number));
        top_ = compact;
    }

    // ---- backward

    void backward_few(int n, State d_state, State d_before) {
        layers_[n]->set_d_state(buffers_, of_layer(d_state, n), a_.hidden, {0, 1});
        for (int part = 0; part < threads_; part++) layers_[n]->clear_sums(part);
        team([&](int member, Team& team) {
            layers_[n]->backward_few(rows_of(weight(n) + 1), buffers_, inputs(n), of_layer(d_before, n), a_.hidden,
                                     member, team, scratch_[member]);
        });
    }

    void head_gradients(const std::vector<float*>& gradients) {
        if (int(active_.size()) < total_panels())
            std::fill_n(buffers_.outputs.get(), layers_[0]->output_offset(total_panels(), 0, 0), Number(0));
        Gradient to(gradients[head_weight()], 1, a_.vocabulary_size, a_.hidden, gradient_padding_[0]);
        each_part([&](int part) {
            OutputGradient<P> below{buffers_.outputs, hidden_ / LANES, mask(a_.layers - 1), active_.data()};
            gradient_below<P>(head_.d_logits(), active_heights(), head_.weights_transposed(), hidden_ / (2 * LANES),
                              active_panels(part), scratch_[part], below);
            weight_gradient<P>(head_.d_logits(), top_, int(active_.size()), active_heights(), to, part, threads_,
                               scratch_[part]);
        });
        if (to.copied()) each_part([&](int part) { to.copy_out(part, threads_); });
        head_.bias_gradient(gradients[head_weight() + 1]);
    }

    void layer_gradients(int n, const std::vector<float*>& gradients) {
        int w = weight(n), m = total_panels();
        RecurrentLayer<P>& layer = *layers_[n];
        Gradient recurrent(gradients[w + 1], gates(), a_.hidden, a_.hidden, gradient_padding_[0]);
        // with respect to the layer below; the input layer computes that of the first layer
        Gradient input(gradients[w], gates(), a_.hidden, a_.hidden, gradient_padding_[1]);
        each_part([&](int part) {
            if (n) {
                OutputGradient<P> below{buffers_.outputs_below, hidden_ / LANES, mask(n - 1)};
                if (few())
                    layer.gradient_below_few(rows_of(w), buffers_, below, part, threads_, scratch_[part]);
                else
                    gradient_below<P>(layer.d_inputs(buffers_), {layout_}, layer.input_transposed(),
                                      hidden_ / (2 * LANES), all_panels(part), scratch_[part], below);
            }
            weight_gradient<P>(layer.d_products(buffers_), layer.states(), m, {layout_}, recurrent, part, threads_,
                               scratch_[part]);
            if (n)
                weight_gradient<P>(layer.d_inputs(buffers_), layer_output(n - 1), m, {layout_}, input, part, threads_,
                                   scratch_[part]);
        });
        each_part([&](int part) {
            recurrent.copy_out(part, threads_);
            if (n) input.copy_out(part, threads_);
            layer.bias_gradients(gradients[w + 2], gradients[w + 3], a_.hidden,
                                 Range::of(hidden_ / LANES, part, threads_));
        });
        if (n) return std::swap(buffers_.outputs, buffers_.outputs_below);
        input_layer_.gradients(gradients, layer, threads_);
    }

    Architecture a_;
    int threads_, hidden_;
    InputLayer<P> input_layer_;
    std::vector<std::unique_ptr<RecurrentLayer<P>>> layers_;
    std::vector<Buffer<typename P::Saved>> sums_;
    std::vector<Buffer<Number>> masked_;
    std::vector<Buffer<float>> scratch_, padding_;
    Buffer<float> gradient_padding_[2];
    Head<P> head_;
    typename RecurrentLayer<P>::BackwardBuffers buffers_;

    std::vector<const float*> parameters_;
    Batch batch_{};
    Layout layout_;
    std::vector<int> active_;  // panels that have targets
    Buffer<int32_t> mask_rows_, all_targets_, all_places_, targets_, places_;
    Buffer<Number> compact_;
    Panels<P> top_;
};

}  // namespace charloom
