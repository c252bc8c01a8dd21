// A recurrent layer of a cell: forward over a whole sequence, and back through time.

#pragma once

#include <memory>
#include <string>

#include "cells.h"
#include "layer.h"

namespace charloom {

template <class P, class Cell>
class Recurrence final : public Layer<P> {
public:
    using typename Layer<P>::Kept;
    using typename Layer<P>::Back;
    static constexpr int GATES = Cell::GATES, INPUT = Cell::INPUTS * P::PAIR, KEPT = Cell::KEPT * P::PAIR;

    Recurrence() : Layer<P>(GATES, Cell::INPUTS, Cell::KEPT, Cell::PAST) {}

    void sum_inputs(Panels<P> x, int rows, Kept* out, Range range, Buffer<float>& room) const override {
        input_product<P, P, Cell>(x, rows, this->input_, this->bias_, unit_blocks_, out, range, room);
    }

    void sum_symbols(Panels<SinglePrecision> x, const float* weights, Kept* out, Range range,
                     Buffer<float>& room) const override {
        input_product<P, SinglePrecision, Cell>(x, SYMBOL_ROWS, weights, this->bias_, unit_blocks_, out, range, room);
    }

    void forward(Inputs<P> inputs, Mask mask, Panels<P> passed, Range range, bool keep, Buffer<float>& room) override {
        constexpr int UNITS = unit_blocks_of(GATES), VECTORS = GATES * UNITS;
        typename P::Session session(layout_.rows);
        int step = 0;
        Panels<P> out = outputs();
        Kept unused[KEPT];
        auto finish = [&, this](const float* z, int panel, int item, int row) CHARLOOM_INLINE_LAMBDA {
            size_t m = size_t(step) * layout_.panels + panel;
            for (int unit = 0; unit < UNITS; unit++) {
                int j = item * UNITS + unit;
                Floats h = Cell::template forward<P>(
                    z + unit * GATES * TILE, inputs.sums + inputs.place(m, unit_blocks_, j, row) * INPUT, past_bias_ + j * LANES,
                    running_ + running_place(panel, j, row), keep ? kept_ + kept_place(m, j, row) : unused);
                store(out.at(m, row, j * LANES), h);
                if (mask) store(passed.at(m, row, j * LANES), h * mask.at(m * P::ROWS + row, j * LANES));
            }
        };
        Pipeline<P, VECTORS, decltype(finish)> pipeline(layout_.rows, room, finish);
        Panels<P> before = states();
        for (step = 0; step < steps_; step++) {
            Panels<P> h = before.from(step * layout_.panels);
            for (int item = 0; item < unit_blocks_ / UNITS; item++)
                for (int panel = range.first; panel < range.last; panel += 2)
                    pipeline.multiply(h.panel(panel), panel + 1 < range.last ? h.panel(panel + 1) : nullptr,
                                      recurrent_ + size_t(item) * VECTORS / 2 * h.blocks * P::PACKED_PAIR, h.blocks, panel,
                                      item);
            pipeline.flush();
        }
    }

    void backward(Back& back, Inputs<P> inputs, Range range, int part, float* d_h, float* d_c, int units,
                  Buffer<float>& room) override {
        typename P::Session session(layout_.rows);
        Panels<P> to_inputs = d_inputs(back), to_products = d_products(back), before = states();
        Sums& sums = sums_[part];
        std::memset(sums.inputs, 0, size_t(symbols_) * GATES * hidden_ * sizeof(float));
        std::memset(sums.products, 0, hidden_ * sizeof(float));
        int step = 0;
        auto finish = [&, this](const float* z, int panel, int item, int row) CHARLOOM_INLINE_LAMBDA {
            for (int side = 0; side < 2; side++, z += TILE) {
                int j = 2 * item + side, unit = j * LANES;
                size_t place = running_place(panel, j, row);
                Floats comes_back = load(z);
                if (step < 0) {  // before the first step: what is left is the state's
                    if (Cell::PAST) comes_back += load(back.running + place);
                    store(back.state + place, comes_back);
                    continue;
                }
                size_t m = size_t(step) * layout_.panels + panel;
                Floats d_out = comes_back + load(back.outputs + output_place(m, j, row));
                const Kept* kept = kept_ + kept_place(m, j, row);
                if (step >= 2) fetch_early(kept - 2 * kept_place(layout_.panels, 0, 0));
                Floats cell_before = step ? Cell::template before<P>(kept_ + kept_place(m - layout_.panels, j, row))
                                          : load(first_running_ + place);
                Floats d_in[GATES], d_product[GATES];
                Cell::template backward<P>(d_out, kept, cell_before, Cell::PAST ? load(before.at(m, row, unit)) : Floats{},
                                           back.running + place, d_in, d_product);
                float* sum = sums.inputs + (inputs.symbols ? inputs.place(m, unit_blocks_, j, row) : j) * GATES * LANES;
                for (int gate = 0; gate < GATES; gate++) {
                    store(to_inputs.at(m, row, unit, gate, GATES), d_in[gate]);
                    if (Cell::PAST) store(to_products.at(m, row, unit, gate, GATES), d_product[gate]);
                    store(sum + gate * LANES, load(sum + gate * LANES) + d_in[gate]);
                }
                if (Cell::PAST) store(sums.products + unit, load(sums.products + unit) + d_product[GATES - 1]);
            }
        };
        Pipeline<P, 2, decltype(finish)> pipeline(layout_.rows, room, finish);
        step = steps_ - 1;
        for (int panel = range.first; panel < range.last; panel++) start_back(back, panel, finish);
        int blocks = to_products.blocks;
        for (step = steps_ - 2; step >= (d_h ? -1 : 0); step--) {
            Panels<P> d = to_products.from((step + 1) * layout_.panels);
            for (int pair = 0; pair < unit_blocks_ / 2; pair++)
                for (int panel = range.first; panel < range.last; panel += 2)
                    pipeline.multiply(d.panel(panel), panel + 1 < range.last ? d.panel(panel + 1) : nullptr,
                                      recurrent_back_ + size_t(pair) * blocks * P::PACKED_PAIR, blocks, panel, pair);
            pipeline.flush();
        }
        if (d_h) give_d_state(back, range, d_h, d_c, units);
    }

private:
    using Layer<P>::layout_, Layer<P>::steps_, Layer<P>::hidden_, Layer<P>::unit_blocks_, Layer<P>::symbols_;
    using Layer<P>::running_, Layer<P>::first_running_, Layer<P>::kept_, Layer<P>::past_bias_, Layer<P>::sums_;
    using Layer<P>::recurrent_, Layer<P>::recurrent_back_;
    using Layer<P>::states, Layer<P>::outputs, Layer<P>::d_inputs, Layer<P>::d_products, Layer<P>::output_place;
    using Layer<P>::running_place, Layer<P>::kept_place, Layer<P>::give_d_state;

    // What was kept two steps before is fetched into the second-level cache: the whole of it is too large for that, and
    // time runs backwards here, which the processor does not foresee.
    static CHARLOOM_INLINE void fetch_early(const Kept* kept) {
        constexpr int LINE = 64 / sizeof(Kept);
        for (int at = 0; at < KEPT; at += LINE) __builtin_prefetch(kept + at, 0, 2);
    }

    // The last step: nothing has come back through a product yet.
    template <class Finish>
    void start_back(Back& back, int panel, Finish& finish) {
        for (int pair = 0; pair < unit_blocks_ / 2; pair++)
            for (int row = 0; row < layout_.rows; row++) {
                float z[TILE + LANES];
                store(z, load(back.state + running_place(panel, 2 * pair, row)));
                store(z + TILE, load(back.state + running_place(panel, 2 * pair + 1, row)));
                finish(z, panel, pair, row);
            }
    }
};

template <class P>
std::unique_ptr<Layer<P>> layer_of(const std::string& cell, bool relu) {
    if (cell == "lstm") return std::make_unique<Recurrence<P, Lstm>>();
    if (cell == "gru") return std::make_unique<Recurrence<P, Gru>>();
    if (relu) return std::make_unique<Recurrence<P, Rnn<true>>>();
    return std::make_unique<Recurrence<P, Rnn<false>>>();
}

}  // namespace charloom
