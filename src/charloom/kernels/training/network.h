// A whole network, a training step at a time: what engines/bptt/network.py does, in the order it does it.
//
//   ids → distinct tokens → input sums → recurrent layer → (mask → input sums → recurrent layer)* → mask → head → nats
//
// Parameters and gradients are row-major float32 arrays in the order of `architecture.shapes`; what is packed is packed
// anew at each forward, because training has changed the weights.

#pragma once

#include "training/head.h"
#include "training/input_layer.h"
#include "training/recurrence.h"

namespace charloom {

template <class P>
class NetworkOf : public Network {
public:
    using Number = typename P::Number;

    NetworkOf(Architecture architecture, int threads)
        : a_(architecture), threads_(threads), hidden_(up_to_multiple(architecture.hidden, GRAIN)),
          entry_(architecture), sums_(architecture.layers), masked_(architecture.layers), rooms_(threads),
          padding_(4 * architecture.layers + 3) {
        for (int n = 0; n < a_.layers; n++) layers_.push_back(layer_of<P>(a_.cell, a_.nonlinearity == "relu"));
    }

    Score forward(const std::vector<const float*>& parameters, const Batch& batch, float scale) override {
        SubnormalsAreZero here;
        parameters_ = parameters, batch_ = batch;
        bool keep = scale != 0;
        layout_ = Layout::of(batch_.texts, P::ROWS, threads_);
        entry_.place(batch_, layout_);
        place_targets();
        resize(keep);
        pack(keep);
        entry_.sum(parameters_, *layers_[0], threads_);
        for (int n = 0; n < a_.layers; n++) run_layer(n, keep);
        gather_targets();
        each_part(
            [&](int part) { head_.forward(top_, layout_.rows, targets_.get(), active_range(part), scale, part); });
        Score score;
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
            each_part([&](int part) {
                layers_[n]->set_d_state(back_, of(d_h), of(d_c), a_.hidden, texts_range(part));
                layers_[n]->backward(back_, inputs(n), texts_range(part), part, of(d_h_before), of(d_c_before),
                                     a_.hidden, rooms_[part]);
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
    // As many for each part, though products take two at once: an odd one alone costs less than two more to wait for.
    Range texts_range(int part) const { return Range::of(layout_.panels, part, threads_); }
    Range sequence_range(int part) const { return Range::of(total_panels(), part, threads_, 2); }
    Range active_range(int part) const { return Range::of(int(active_.size()), part, threads_, 2); }

    template <class Work>
    void each_part(Work&& work) {
        charloom::each_part(threads_, work);
    }

    // ---- forward

    // Which row of a mask each place has, and where targets stand.
    void place_targets() {
        size_t places = size_t(total_panels()) * P::ROWS;
        for (auto* rows : {&mask_rows_, &head_mask_rows_, &all_targets_}) {
            rows->reserve(places);
            std::fill(rows->get(), rows->get() + places, -1);
        }
        int32_t count = 0;
        for (int text = 0; text < batch_.texts; text++)
            for (int t = 0; t < batch_.steps; t++) {
                size_t here = layout_.place(t, text, P::ROWS);
                mask_rows_[here] = batch_.locked ? text : t * batch_.texts + text;
                int32_t target = batch_.targets[size_t(text) * batch_.steps + t];
                all_targets_[here] = target;
                if (target >= 0) head_mask_rows_[here] = batch_.locked ? text : count++;
            }
        active_.clear();
        for (int m = 0; m < total_panels(); m++)
            for (int row = 0; row < layout_.rows; row++)
                if (all_targets_[size_t(m) * P::ROWS + row] >= 0) {
                    active_.push_back(m);
                    break;
                }
    }

    void resize(bool keep) {
        int m = total_panels(), blocks = hidden_ / P::DEPTH;
        for (int n = 0; n < a_.layers; n++) {
            layers_[n]->resize(hidden_, batch_.steps, layout_, threads_, n ? 1 : entry_.tokens(), keep);
            if (n > 0) sums_[n].reserve(size_t(m) * (hidden_ / LANES) * P::ROWS * layers_[0]->input_size);
            if (!batch_.masks.empty()) masked_[n].reserve(Panels<P>::size(m, blocks));
        }
        if (int(active_.size()) < m) compact_.reserve(Panels<P>::size(int(active_.size()), blocks));
        head_.resize(hidden_, a_.vocabulary_size, m, threads_);
    }

    void pack(bool back) {
        std::vector<Weights> all;  // U and W of each layer, the first layer's W apart; the head's
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
                for (const Weights& weights : all) weights.take(part, threads_);
            });
        each_part([&](int part) {
            for (int n = 0; n < a_.layers; n++) {
                layers_[n]->pack(all[n ? 2 * n - 1 : 0], n ? &all[2 * n] : nullptr, back, part, threads_);
                size_t state = size_t(n) * batch_.texts * a_.hidden;
                layers_[n]->set_state(batch_.h ? batch_.h + state : nullptr, batch_.c ? batch_.c + state : nullptr,
                                      a_.hidden, texts_range(part));
            }
            head_.pack(all.back(), back, part, threads_);
        });
    }

    void run_layer(int n, bool keep) {
        if (n > 0)
            each_part([&](int part) {
                layers_[n]->sum_inputs(passed(n - 1), layout_.rows, sums_[n], sequence_range(part), rooms_[part]);
            });
        size_t state = size_t(n) * batch_.texts * a_.hidden;
        each_part([&](int part) {
            layers_[n]->forward(inputs(n), mask(n), masked(n), texts_range(part), keep, rooms_[part]);
            layers_[n]->get_state(batch_.h_after + state, batch_.c_after ? batch_.c_after + state : nullptr, a_.hidden,
                                  texts_range(part));
        });
    }

    Inputs<P> inputs(int n) const { return n ? Inputs<P>{sums_[n]} : entry_.inputs(); }

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
            std::memcpy(targets_ + size_t(i) * P::ROWS, all_targets_ + size_t(active_[i]) * P::ROWS,
                        P::ROWS * sizeof(int32_t));
        if (count == total_panels()) return;
        Panels<P> compact{compact_, top_.blocks};
        for (int i = 0; i < count; i++)
            std::memcpy(compact.panel(i), top_.panel(active_[i]),
                        size_t(top_.blocks) * Panels<P>::BLOCK * sizeof(Number));
        top_ = compact;
    }

    // ---- backward

    void head_gradients(const std::vector<float*>& gradients) {
        if (int(active_.size()) < total_panels())
            std::fill_n(back_.outputs.get(), layers_[0]->output_place(total_panels(), 0, 0), Number(0));
        Gradient to(gradients[head_weight()], 1, a_.vocabulary_size, a_.hidden, gradient_rooms_[0]);
        each_part([&](int part) {
            GoesDown<P> down{back_.outputs, hidden_ / LANES, mask(a_.layers - 1), active_.data()};
            product_down<P>(head_.d_logits(), layout_.rows, head_.weights_back(), hidden_ / (2 * LANES),
                            active_range(part), rooms_[part], down);
            weight_gradient<P>(head_.d_logits(), top_, int(active_.size()), layout_.rows, to, part, threads_,
                               rooms_[part]);
        });
        if (to.copied()) each_part([&](int part) { to.deliver(part, threads_); });
        head_.bias_gradient(gradients[head_weight() + 1]);
    }

    void layer_gradients(int n, const std::vector<float*>& gradients) {
        int w = weight(n), m = total_panels();
        Layer<P>& layer = *layers_[n];
        Gradient recurrent(gradients[w + 1], gates(), a_.hidden, a_.hidden, gradient_rooms_[0]);
        // of the layer below, where there is one; the first layer's is the entry's
        Gradient input(gradients[w], gates(), a_.hidden, a_.hidden, gradient_rooms_[1]);
        each_part([&](int part) {
            if (n) {
                GoesDown<P> down{back_.outputs_below, hidden_ / LANES, mask(n - 1)};
                product_down<P>(layer.d_inputs(back_), layout_.rows, layer.input_back(), hidden_ / (2 * LANES),
                                sequence_range(part), rooms_[part], down);
            }
            weight_gradient<P>(layer.d_products(back_), layer.states(), m, layout_.rows, recurrent, part, threads_,
                               rooms_[part]);
            if (n)
                weight_gradient<P>(layer.d_inputs(back_), passed(n - 1), m, layout_.rows, input, part, threads_,
                                   rooms_[part]);
        });
        each_part([&](int part) {
            recurrent.deliver(part, threads_);
            if (n) input.deliver(part, threads_);
            layer.bias_gradients(gradients[w + 2], gradients[w + 3], a_.hidden,
                                 Range::of(hidden_ / LANES, part, threads_));
        });
        if (n) return std::swap(back_.outputs, back_.outputs_below);
        entry_.gradients(gradients, layer, threads_);
    }

    Architecture a_;
    int threads_, hidden_;
    InputLayer<P> entry_;
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
    std::vector<int> active_;  // panels in which targets stand
    Buffer<int32_t> mask_rows_, head_mask_rows_, all_targets_, targets_;
    Buffer<Number> compact_;
    Panels<P> top_;
};

}  // namespace charloom
