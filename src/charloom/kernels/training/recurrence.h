// A recurrent layer of a cell: forward over a whole sequence, and back through time.

#pragma once

#include <memory>
#include <string>

#include "training/cells.h"
#include "training/layer.h"

namespace charloom {

template <class P, class Cell>
class Recurrence final : public Layer<P> {
public:
    using typename Layer<P>::Kept;
    using typename Layer<P>::Number;
    using typename Layer<P>::Back;
    static constexpr int GATES = Cell::GATES, INPUT = Cell::INPUTS * P::PAIR, KEPT = Cell::KEPT * P::PAIR,
                         UNITS = unit_blocks_of(GATES);

    Recurrence() : Layer<P>(GATES, Cell::INPUTS, Cell::KEPT, Cell::PAST) {}

    void sum_inputs(Panels<P> x, int rows, Kept* out, Range range, Buffer<float>& room) const override {
        input_product<P, P, Cell>(x, rows, this->input_, this->bias_, unit_blocks_, out, range, room);
    }

    void sum_tokens(Panels<SinglePrecision> x, const float* weights, Kept* out, Range range,
                    Buffer<float>& room) const override {
        input_product<P, SinglePrecision, Cell>(x, TOKEN_ROWS, weights, this->bias_, unit_blocks_, out, range, room);
    }

    void forward(Inputs<P> inputs, Mask mask, Panels<P> passed, Range range, bool keep, Buffer<float>& room) override {
        constexpr int VECTORS = GATES * UNITS;
        typename P::Session session(layout_.rows);
        Forward finish{*this, inputs, mask, passed, keep};
        Pipeline<P, VECTORS, Forward> pipeline(layout_.rows, room, finish);
        Panels<P> before = states();
        for (int& step = finish.step; step < steps_; step++) {
            Panels<P> h = before.from(step * layout_.panels);
            for (int item = 0; item < unit_blocks_ / UNITS; item++)
                for (int panel = range.first; panel < range.last; panel += 2)
                    pipeline.multiply(h.panel(panel), panel + 1 < range.last ? h.panel(panel + 1) : nullptr,
                                      recurrent_ + size_t(item) * VECTORS / 2 * h.blocks * P::PACKED_PAIR, h.blocks,
                                      panel, item);
            pipeline.flush();
        }
    }

    void backward(Back& back, Inputs<P> inputs, Range range, int part, float* d_h, float* d_c, int units,
                  Buffer<float>& room) override {
        typename P::Session session(layout_.rows);
        Sums& sums = sums_[part];
        std::memset(sums.inputs, 0, size_t(tokens_) * GATES * hidden_ * sizeof(float));
        std::memset(sums.products, 0, hidden_ * sizeof(float));
        Backward finish{*this, back, inputs, sums, steps_ - 1};
        for (int panel = range.first; panel < range.last; panel++) start_back(back, panel, finish);
        Pipeline<P, 2, Backward> pipeline(layout_.rows, room, finish);
        Panels<P> d_products = this->d_products(back);
        int& step = finish.step;
        for (step = steps_ - 2; step >= (d_h ? -1 : 0); step--) {
            Panels<P> d = d_products.from((step + 1) * layout_.panels);
            for (int pair = 0; pair < unit_blocks_ / 2; pair++)
                for (int panel = range.first; panel < range.last; panel += 2)
                    pipeline.multiply(d.panel(panel), panel + 1 < range.last ? d.panel(panel + 1) : nullptr,
                                      recurrent_back_ + size_t(pair) * d.blocks * P::PACKED_PAIR, d.blocks, panel,
                                      pair);
            pipeline.flush();
        }
        if (d_h) give_d_state(back, range, d_h, d_c, units);
    }

private:
    using Layer<P>::layout_, Layer<P>::steps_, Layer<P>::hidden_, Layer<P>::unit_blocks_, Layer<P>::tokens_;
    using Layer<P>::running_, Layer<P>::first_running_, Layer<P>::kept_, Layer<P>::past_bias_, Layer<P>::sums_;
    using Layer<P>::recurrent_, Layer<P>::recurrent_back_;
    using Layer<P>::states, Layer<P>::outputs, Layer<P>::d_inputs, Layer<P>::d_products, Layer<P>::output_place;
    using Layer<P>::running_place, Layer<P>::kept_place, Layer<P>::give_d_state;

    // One step's rows, forward. Where they lie is worked out once for a panel and unit block.
    struct Forward {
        Recurrence& layer;
        const Inputs<P> inputs;
        const Mask mask;
        const Panels<P> passed;
        const bool keep;
        int step = 0;

        size_t m = 0;
        int j = 0;
        const Kept* sums = nullptr;
        const int32_t* tokens = nullptr;
        float* running = nullptr;
        Kept* kept = nullptr;
        Number* out = nullptr;
        Kept unused[UNITS * P::ROWS * KEPT] = {};  // where nothing is kept, rows still write

        void want(int, int, int, PrefetchList&) const {}  // time runs forwards, which the processor foresees

        CHARLOOM_INLINE void begin(int panel, int item) {
            m = size_t(step) * layer.layout_.panels + panel;
            j = item * UNITS;
            sums = inputs.sums + inputs.block(m, layer.unit_blocks_, j) * INPUT;
            tokens = inputs.tokens_of(m);
            running = layer.running_ + layer.running_place(panel, j, 0);
            kept = keep ? layer.kept_ + layer.kept_place(m, j, 0) : unused;
            out = layer.outputs().at(m, 0, j * LANES);
        }

        CHARLOOM_INLINE void rows(const float* z, int first, int last) {
            const float* past_bias = layer.past_bias_ + j * LANES;
            for (int row = first; row < last; row++) {
                const Kept* x = sums + size_t(tokens ? tokens[row] : row) * INPUT;
                for (int unit = 0; unit < UNITS; unit++) {
                    Floats h = Cell::template forward<P>(
                        z + unit * GATES * TILE + row * LANES, x + size_t(unit) * inputs.stride * INPUT,
                        past_bias + unit * LANES, running + (unit * P::ROWS + row) * LANES,
                        kept + (unit * P::ROWS + row) * KEPT);
                    store(out + unit * NEXT_UNITS + row * P::DEPTH, h);
                    if (mask)
                        store(passed.at(m, row, (j + unit) * LANES),
                              h * mask.at(m * P::ROWS + row, (j + unit) * LANES));
                }
            }
        }
    };

    // One step's rows, back: of two unit blocks.
    struct Backward {
        Recurrence& layer;
        Back& back;
        const Inputs<P> inputs;
        Sums& part_sums;
        int step;

        float *running = nullptr, *state = nullptr, *sums = nullptr, *product_sums = nullptr;
        const Kept *kept = nullptr, *kept_before = nullptr, *early = nullptr;
        const float* first_running = nullptr;
        const Number *d_outputs = nullptr, *early_outputs = nullptr, *early_inputs = nullptr, *state_before = nullptr;
        Number *to_inputs = nullptr, *to_products = nullptr;
        const int32_t* tokens = nullptr;

        void want(int panel, int pair, int rows, PrefetchList& wanted) const {
            if (step < 0) return;
            int j = 2 * pair, unit = j * LANES;
            size_t m = size_t(step) * layer.layout_.panels + panel;
            constexpr int BLOCK = Panels<P>::BLOCK, BLOCKS = std::max(1, 2 * LANES / P::DEPTH);
            wanted.add(layer.kept_ + layer.kept_place(m, j, 0), rows * KEPT, 2, P::ROWS * KEPT, false);
            wanted.add(back.outputs + layer.output_place(m, j, 0), rows * LANES, 2, P::ROWS * LANES, false);
            wanted.add(layer.d_inputs(back).at(m, 0, unit, 0, GATES), rows * P::DEPTH, BLOCKS * GATES, BLOCK, true);
            if (!Cell::PAST) return;
            wanted.add(layer.d_products(back).at(m, 0, unit, 0, GATES), rows * P::DEPTH, BLOCKS * GATES, BLOCK, true);
            wanted.add(layer.states().at(m, 0, unit), rows * P::DEPTH, BLOCKS, BLOCK, false);
        }

        CHARLOOM_INLINE void begin(int panel, int pair) {
            int j = 2 * pair, unit = j * LANES;
            size_t place = layer.running_place(panel, j, 0), m = size_t(step) * layer.layout_.panels + panel;
            running = back.running + place;
            if (step < 0) {
                state = back.state + place;
                return;
            }
            size_t one_step = layer.kept_place(layer.layout_.panels, 0, 0);
            kept = layer.kept_ + layer.kept_place(m, j, 0);
            kept_before = step ? kept - one_step : nullptr;
            // Time runs backwards here, which the processor does not foresee. Where `want` is not asked, what lies two
            // steps before is fetched into the second-level cache: the whole of it is too large for that.
            size_t ahead = step >= 2 ? 2 : 0;
            early = kept - ahead * one_step;
            first_running = layer.first_running_ + place;
            d_outputs = back.outputs + layer.output_place(m, j, 0);
            early_outputs = d_outputs - ahead * layer.output_place(layer.layout_.panels, 0, 0);
            early_inputs = layer.d_inputs(back).at(m - ahead * layer.layout_.panels, 0, unit, 0, GATES);
            state_before = layer.states().at(m, 0, unit);
            to_inputs = layer.d_inputs(back).at(m, 0, unit, 0, GATES);
            to_products = layer.d_products(back).at(m, 0, unit, 0, GATES);
            tokens = inputs.tokens_of(m);
            sums = part_sums.inputs + (tokens ? inputs.block(m, layer.unit_blocks_, j) : j) * GATES * LANES;
            product_sums = part_sums.products + unit;
        }

        CHARLOOM_INLINE void rows(const float* z, int first, int last) {
            for (int row = first; row < last; row++)
                for (int side = 0; side < 2; side++) {
                    const float* comes_back = z + side * TILE + row * LANES;
                    if (step < 0)
                        finish_state(comes_back, (side * P::ROWS + row) * LANES);
                    else
                        finish_row(comes_back, side, row);
                }
        }

        CHARLOOM_INLINE void fetch_early(int side, int row) {
            int place = side * P::ROWS + row;
            for (int line = 0; line < KEPT; line += LINE) __builtin_prefetch(early + place * KEPT + line, 0, 2);
            __builtin_prefetch(early_outputs + place * LANES, 0, 2);
            if (!TOGETHER || side == 0)
                for (int gate = 0; gate < GATES; gate++)
                    __builtin_prefetch(early_inputs + side * NEXT_GATES + row * P::DEPTH + gate * Panels<P>::BLOCK, 1,
                                       2);
        }

        // Before the first step: what is left is the state's.
        CHARLOOM_INLINE void finish_state(const float* comes_back, int at) {
            store(state + at, Cell::PAST ? load(comes_back) + load(running + at) : load(comes_back));
        }

        CHARLOOM_INLINE void finish_row(const float* comes_back, int side, int row) {
            int place = side * P::ROWS + row, at = place * LANES;
            if (P::VECTORS_FREE) fetch_early(side, row);
            Floats cell_before =
                kept_before ? Cell::template before<P>(kept_before + place * KEPT) : load(first_running + at);
            Floats h_before = Cell::PAST ? load(state_before + side * NEXT_UNITS + row * P::DEPTH) : Floats{};
            Floats d_in[GATES], d_product[GATES];
            Cell::template backward<P>(load(comes_back) + load(d_outputs + at), kept + place * KEPT, cell_before,
                                       h_before, running + at, d_in, d_product);
            int to = side * NEXT_GATES + row * P::DEPTH;
            float* sum = sums + size_t(tokens ? tokens[row] + side * inputs.stride : side) * GATES * LANES;
            for (int gate = 0; gate < GATES; gate++) {
                store(to_inputs + to + gate * Panels<P>::BLOCK, d_in[gate]);
                if (Cell::PAST) store(to_products + to + gate * Panels<P>::BLOCK, d_product[gate]);
                store(sum + gate * LANES, load(sum + gate * LANES) + d_in[gate]);
            }
            if (!Cell::PAST) return;
            float* product_sum = product_sums + side * LANES;
            store(product_sum, load(product_sum) + d_product[GATES - 1]);
        }
    };

    // The last step: nothing has come back through a product yet.
    void start_back(Back& back, int panel, Backward& finish) {
        for (int pair = 0; pair < unit_blocks_ / 2; pair++) {
            float z[2 * TILE];
            for (int side = 0; side < 2; side++)
                std::memcpy(z + side * TILE, back.state + running_place(panel, 2 * pair + side, 0),
                            layout_.rows * LANES * sizeof(float));
            finish.begin(panel, pair);
            finish.rows(z, 0, layout_.rows);
        }
    }

    static constexpr int LINE = 64 / sizeof(Kept);  // of the cache
    // From an even unit block's place in a panel to that of the next: of states, and of gates.
    static constexpr bool TOGETHER = 2 * LANES <= P::DEPTH;
    static constexpr int NEXT_UNITS = TOGETHER ? LANES : Panels<P>::BLOCK;
    static constexpr int NEXT_GATES = TOGETHER ? LANES : GATES * Panels<P>::BLOCK;
};

template <class P>
std::unique_ptr<Layer<P>> layer_of(const std::string& cell, bool relu) {
    if (cell == "lstm") return std::make_unique<Recurrence<P, Lstm>>();
    if (cell == "gru") return std::make_unique<Recurrence<P, Gru>>();
    if (relu) return std::make_unique<Recurrence<P, Rnn<true>>>();
    return std::make_unique<Recurrence<P, Rnn<false>>>();
}

}  // namespace charloom
