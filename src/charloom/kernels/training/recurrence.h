// A recurrent layer of a cell: the forward pass over all steps, and backpropagation through time.

#pragma once

#include <memory>
#include <type_traits>

#include "training/layer.h"

namespace charloom {

template <class P, class CellType>
class Recurrence final : public RecurrentLayer<P> {
public:
    using typename RecurrentLayer<P>::Saved;
    using typename RecurrentLayer<P>::Number;
    using typename RecurrentLayer<P>::BackwardBuffers;
    static constexpr int GATES = CellType::GATES, INPUT = CellType::INPUT_PAIRS * P::PAIR,
                         SAVED = CellType::SAVED_PAIRS * P::PAIR, UNITS = unit_blocks_of(GATES);

    Recurrence() : RecurrentLayer<P>(CellType()) {}

    void sum_inputs(Panels<P> x, Saved* out, Range range, Buffer<float>& scratch) const override {
        input_product<P, P, CellType>(x, {layout_}, this->input_, this->bias_, unit_blocks_, out, range, scratch);
    }

    void sum_tokens(Panels<SinglePrecision> x, Heights heights, const float* weights, Saved* out, Range range,
                    Buffer<float>& scratch) const override {
        input_product<P, SinglePrecision, CellType>(x, heights, weights, this->bias_, unit_blocks_, out, range,
                                                    scratch);
    }

    void forward(Inputs<P> inputs, Mask mask, Panels<P> masked, Range range, bool save,
                 Buffer<float>& scratch) override {
        constexpr int VECTORS = GATES * UNITS;
        typename P::ThreadSetup setup(layout_.most_rows());
        Forward finish{*this, inputs, mask, masked, save};
        Pipeline<P, VECTORS, Forward> pipeline({layout_}, scratch, finish);
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

    void backward(BackwardBuffers& buffers, Inputs<P> inputs, Range range, int part, State d_before, int units,
                  Buffer<float>& scratch) override {
        typename P::ThreadSetup setup(layout_.most_rows());
        this->clear_sums(part);
        Backward finish{*this, buffers, inputs, sums_[part], steps_ - 1};
        for (int panel = range.first; panel < range.last; panel++)
            start_backward(buffers, panel, {0, unit_blocks_ / 2}, finish);
        Pipeline<P, 2, Backward> pipeline({layout_}, scratch, finish);
        Panels<P> d_products = this->d_products(buffers);
        int& step = finish.step;
        for (step = steps_ - 2; step >= (d_before.h ? -1 : 0); step--) {
            Panels<P> d = d_products.from((step + 1) * layout_.panels);
            for (int pair = 0; pair < unit_blocks_ / 2; pair++)
                for (int panel = range.first; panel < range.last; panel += 2)
                    pipeline.multiply(d.panel(panel), panel + 1 < range.last ? d.panel(panel + 1) : nullptr,
                                      recurrent_transposed_ + size_t(pair) * d.blocks * P::PACKED_PAIR, d.blocks, panel,
                                      pair);
            pipeline.flush();
        }
        if (d_before.h) get_d_state(buffers, range, d_before, units);
    }

    void sum_inputs_few(GateRows weights, Panels<P> x, Saved* out, int part, int parts) const override {
        if constexpr (READS_ROWS) {
            constexpr int VECTORS = GATES * UNITS;
            InputSums<P, CellType, P::ROWS> finish{this->bias_, unit_blocks_, out};
            Range items = Range::of(unit_blocks_ / UNITS, part, parts);
            float z[VECTORS * TILE];
            for (int item = items.first; item < items.last; item++)
                for (int m = 0; m < steps_; m++) {
                    for (int v = 0; v < VECTORS; v++)
                        multiply_rows(weights.template vector<GATES, UNITS>(item, v), hidden_, x.panel(m),
                                      layout_.sequences, z + v * TILE);
                    finish.begin(m, item);
                    finish.rows(z, 0, layout_.sequences);
                }
        }
    }

    void forward_few(GateRows weights, Inputs<P> inputs, Mask mask, Panels<P> masked, bool save, int member,
                     Team& team) override {
        if constexpr (READS_ROWS) {
            constexpr int VECTORS = GATES * UNITS;
            Forward finish{*this, inputs, mask, masked, save};
            Range items = Range::of(unit_blocks_ / UNITS, member, team.size());
            float z[VECTORS * TILE];
            for (int& step = finish.step; step < steps_; step++) {
                const float* h = states().panel(step);
                for (int n = 0; n < items.count(); n++) {
                    int item = alternating_order(n, items, step);
                    for (int v = 0; v < VECTORS; v++)
                        multiply_rows(weights.template vector<GATES, UNITS>(item, v), hidden_, h, layout_.sequences,
                                      z + v * TILE);
                    finish.begin(0, item);
                    finish.rows(z, 0, layout_.sequences);
                }
                team.barrier(member);
            }
        }
    }

    void backward_few(GateRows weights, BackwardBuffers& buffers, Inputs<P> inputs, State d_before, int units,
                      int member, Team& team, Buffer<float>& scratch) override {
        if constexpr (READS_ROWS) {
            Backward finish{*this, buffers, inputs, sums_[0], steps_ - 1};
            Range pairs = Range::of(unit_blocks_ / 2, member, team.size());
            start_backward(buffers, 0, pairs, finish);
            team.barrier(member);
            int& step = finish.step;
            for (step = steps_ - 2; step >= (d_before.h ? -1 : 0); step--) {
                below_few(weights, this->d_products(buffers).from(step + 1), 1, pairs, step, scratch, finish);
                team.barrier(member);
            }
            if (member == 0 && d_before.h) get_d_state(buffers, {0, 1}, d_before, units);
        }
    }

    void gradient_below_few(GateRows weights, BackwardBuffers& buffers, OutputGradient<P>& finish, int part, int parts,
                            Buffer<float>& scratch) const override {
        if constexpr (READS_ROWS) {
            Range pairs = Range::of(unit_blocks_ / 2, part, parts);
            below_few(weights, this->d_inputs(buffers), steps_, pairs, 0, scratch, finish);
        }
    }

private:
    static constexpr bool READS_ROWS = std::is_same_v<P, SinglePrecision>;

    // The n-th index of a range. Odd steps use the reverse order, so a step begins with data that the last one left in
    // the cache.
    static int alternating_order(int n, Range range, int step) {
        return step % 2 ? range.last - 1 - n : range.first + n;
    }

    // Wᵀ d of these panels, for pairs of column vectors, to `finish`. Each block of W is read for all panels together.
    template <class Finish>
    void below_few(GateRows weights, Panels<P> d, int panels, Range pairs, int step, Buffer<float>& scratch,
                   Finish& finish) const {
        size_t size = size_t(layout_.sequences) * hidden_;
        scratch.reserve(panels * size);
        std::memset(scratch, 0, panels * size * sizeof(float));
        Range columns{pairs.first * 2 * LANES, pairs.last * 2 * LANES};
        for (int n = 0; n < d.blocks; n++) {
            int block = alternating_order(n, {0, d.blocks}, step);
            for (int m = 0; m < panels; m++)
                add_columns(weights.block(GATES, block), d.panel(m) + block * Panels<P>::BLOCK, layout_.sequences,
                            columns, scratch + m * size, hidden_);
        }
        float z[2 * TILE];
        for (int m = 0; m < panels; m++)
            for (int pair = pairs.first; pair < pairs.last; pair++) {
                copy_pair(scratch + m * size, hidden_, layout_.sequences, pair, z);
                finish.begin(m, pair);
                finish.rows(z, 0, layout_.sequences);
            }
    }

    using RecurrentLayer<P>::layout_, RecurrentLayer<P>::steps_, RecurrentLayer<P>::hidden_,
        RecurrentLayer<P>::unit_blocks_, RecurrentLayer<P>::tokens_;
    using RecurrentLayer<P>::carry_, RecurrentLayer<P>::first_carry_, RecurrentLayer<P>::saved_,
        RecurrentLayer<P>::recurrent_bias_, RecurrentLayer<P>::sums_;
    using RecurrentLayer<P>::recurrent_, RecurrentLayer<P>::recurrent_transposed_;
    using RecurrentLayer<P>::states, RecurrentLayer<P>::outputs, RecurrentLayer<P>::d_inputs,
        RecurrentLayer<P>::d_products, RecurrentLayer<P>::output_offset;
    using RecurrentLayer<P>::carry_offset, RecurrentLayer<P>::saved_offset, RecurrentLayer<P>::get_d_state;

    // The inputs and results of a cell in one step (`cells.h`). z: the products with h_{t-1}, a TILE apart.
    struct At {
        const float* z;
        const Saved* x;
        const float* bias;
        Saved* saved;

        CHARLOOM_INLINE Floats input(int gate) const {
            const Saved* pair = x + gate / 2 * P::PAIR;
            return gate % 2 ? P::second(pair) : P::first(pair);
        }
        CHARLOOM_INLINE Floats product(int gate) const { return load(z + gate * TILE); }
        CHARLOOM_INLINE Floats sum(int gate) const { return product(gate) + input(gate); }
        CHARLOOM_INLINE Floats recurrent_bias() const { return load(bias); }
        CHARLOOM_INLINE void save(int pair, Floats a, Floats b) const { P::save(saved + pair * P::PAIR, a, b); }

        static CHARLOOM_INLINE Floats sigmoid(Floats x) { return P::sigmoid(x); }
        static CHARLOOM_INLINE Floats tanh(Floats x) { return P::tanh(x); }
    };

    // The rows of one step of the forward pass. `begin` computes their addresses for a panel and a unit block.
    struct Forward {
        Recurrence& layer;
        const Inputs<P> inputs;
        const Mask mask;
        const Panels<P> masked;
        const bool save;
        int step = 0;

        size_t m = 0;
        int j = 0;
        const Saved* sums = nullptr;
        const int32_t* tokens = nullptr;
        float* carry = nullptr;
        Saved* saved = nullptr;
        Number* out = nullptr;
        Saved unused[UNITS * P::ROWS * SAVED] = {};  // written if no backward pass follows

        void prefetch(int, int, int, PrefetchList&) const {}  // addresses ascend, so the hardware prefetches

        CHARLOOM_INLINE void begin(int panel, int item) {
            m = size_t(step) * layer.layout_.panels + panel;
            j = item * UNITS;
            sums = inputs.sums + inputs.block(m, layer.unit_blocks_, j) * INPUT;
            tokens = inputs.tokens_of(m);
            carry = layer.carry_ + layer.carry_offset(panel, j, 0);
            saved = save ? layer.saved_ + layer.saved_offset(m, j, 0) : unused;
            out = layer.outputs().at(m, 0, j * LANES);
        }

        CHARLOOM_INLINE void rows(const float* z, int first, int last) {
            const float* recurrent_bias = layer.recurrent_bias_ + j * LANES;
            for (int row = first; row < last; row++) {
                const Saved* x = sums + size_t(tokens ? tokens[row] : row) * INPUT;
                for (int unit = 0; unit < UNITS; unit++) {
                    float* carry_at = carry + (unit * P::ROWS + row) * LANES;
                    Floats carried = HAS_CARRY ? load(carry_at) : Floats{};
                    Floats h = CellType::forward(
                        At{z + unit * GATES * TILE + row * LANES, x + size_t(unit) * inputs.stride * INPUT,
                           recurrent_bias + unit * LANES, saved + (unit * P::ROWS + row) * SAVED},
                        carried);
                    if (HAS_CARRY) store(carry_at, carried);
                    store(out + unit * NEXT_UNITS + row * P::DEPTH, h);
                    if (mask)
                        store(masked.at(m, row, (j + unit) * LANES),
                              h * mask.at(m * P::ROWS + row, (j + unit) * LANES));
                }
            }
        }
    };

    // The rows of one step of the backward pass, of two unit blocks.
    struct Backward {
        Recurrence& layer;
        BackwardBuffers& buffers;
        const Inputs<P> inputs;
        Sums& part_sums;
        int step;

        float *carry = nullptr, *state = nullptr, *sums = nullptr, *product_sums = nullptr;
        const Saved *saved = nullptr, *saved_before = nullptr, *early = nullptr;
        const float* first_carry = nullptr;
        const Number *d_outputs = nullptr, *early_outputs = nullptr, *early_inputs = nullptr, *state_before = nullptr;
        Number *to_inputs = nullptr, *to_products = nullptr;
        const int32_t* tokens = nullptr;

        void prefetch(int panel, int pair, int rows, PrefetchList& prefetches) const {
            if (step < 0) return;
            int j = 2 * pair, unit = j * LANES;
            size_t m = size_t(step) * layer.layout_.panels + panel;
            constexpr int BLOCK = Panels<P>::BLOCK, BLOCKS = std::max(1, 2 * LANES / P::DEPTH);
            prefetches.add(layer.saved_ + layer.saved_offset(m, j, 0), rows * SAVED, 2, P::ROWS * SAVED, false);
            prefetches.add(buffers.outputs + layer.output_offset(m, j, 0), rows * LANES, 2, P::ROWS * LANES, false);
            prefetches.add(layer.d_inputs(buffers).at(m, 0, unit, 0, GATES), rows * P::DEPTH, BLOCKS * GATES, BLOCK,
                           true);
            if (!CellType::SEPARATE_BIAS) return;
            prefetches.add(layer.d_products(buffers).at(m, 0, unit, 0, GATES), rows * P::DEPTH, BLOCKS * GATES, BLOCK,
                           true);
            prefetches.add(layer.states().at(m, 0, unit), rows * P::DEPTH, BLOCKS, BLOCK, false);
        }

        CHARLOOM_INLINE void begin(int panel, int pair) {
            int j = 2 * pair, unit = j * LANES;
            size_t offset = layer.carry_offset(panel, j, 0), m = size_t(step) * layer.layout_.panels + panel;
            carry = buffers.carry + offset;
            if (step < 0) {
                state = buffers.state + offset;
                return;
            }
            size_t one_step = layer.saved_offset(layer.layout_.panels, 0, 0);
            saved = layer.saved_ + layer.saved_offset(m, j, 0);
            saved_before = step ? saved - one_step : nullptr;
            // Addresses descend from step to step, so the hardware does not prefetch. If `prefetch` is not called, the
            // data of two steps before is prefetched into the second-level cache. All data would not fit.
            size_t ahead = step >= 2 ? 2 : 0;
            early = saved - ahead * one_step;
            first_carry = layer.first_carry_ + offset;
            d_outputs = buffers.outputs + layer.output_offset(m, j, 0);
            early_outputs = d_outputs - ahead * layer.output_offset(layer.layout_.panels, 0, 0);
            early_inputs = layer.d_inputs(buffers).at(m - ahead * layer.layout_.panels, 0, unit, 0, GATES);
            state_before = layer.states().at(m, 0, unit);
            to_inputs = layer.d_inputs(buffers).at(m, 0, unit, 0, GATES);
            to_products = layer.d_products(buffers).at(m, 0, unit, 0, GATES);
            tokens = inputs.tokens_of(m);
            sums = part_sums.inputs + (tokens ? inputs.block(m, layer.unit_blocks_, j) : j) * GATES * LANES;
            product_sums = part_sums.products + unit;
        }

        CHARLOOM_INLINE void rows(const float* z, int first, int last) {
            for (int row = first; row < last; row++)
                for (int side = 0; side < 2; side++) {
                    const float* product = z + side * TILE + row * LANES;
                    if (step < 0)
                        finish_state(product, (side * P::ROWS + row) * LANES);
                    else
                        finish_row(product, side, row);
                }
        }

        CHARLOOM_INLINE void prefetch_early(int side, int row) {
            int place = side * P::ROWS + row;
            for (int line = 0; line < SAVED; line += LINE) __builtin_prefetch(early + place * SAVED + line, 0, 2);
            __builtin_prefetch(early_outputs + place * LANES, 0, 2);
            if (!TOGETHER || side == 0)
                for (int gate = 0; gate < GATES; gate++)
                    __builtin_prefetch(early_inputs + side * NEXT_GATES + row * P::DEPTH + gate * Panels<P>::BLOCK, 1,
                                       2);
        }

        // c or h before the step; the cell determines which.
        CHARLOOM_INLINE Floats carry_before(int side, int row) const {
            int place = side * P::ROWS + row;
            if constexpr (CellType::CARRIED == Carried::c)
                return saved_before ? CellType::template saved_carry<P>(saved_before + place * SAVED)
                                    : load(first_carry + place * LANES);
            else
                return HAS_CARRY ? load(state_before + side * NEXT_UNITS + row * P::DEPTH) : Floats{};
        }

        // Before the first step: the gradient of the state before it.
        CHARLOOM_INLINE void finish_state(const float* product, int at) {
            store(state + at, CellType::CARRIED == Carried::h ? load(product) + load(carry + at) : load(product));
        }

        CHARLOOM_INLINE void finish_row(const float* product, int side, int row) {
            int place = side * P::ROWS + row, at = place * LANES;
            if (P::VECTORS_FREE) prefetch_early(side, row);
            Floats d_carry = HAS_CARRY ? load(carry + at) : Floats{}, d_in[GATES], d_product[GATES];
            CellType::template backward<P>(load(product) + load(d_outputs + at), saved + place * SAVED,
                                           carry_before(side, row), d_carry, d_in, d_product);
            if (HAS_CARRY) store(carry + at, d_carry);
            int to = side * NEXT_GATES + row * P::DEPTH;
            float* sum = sums + size_t(tokens ? tokens[row] + side * inputs.stride : side) * GATES * LANES;
            for (int gate = 0; gate < GATES; gate++) {
                store(to_inputs + to + gate * Panels<P>::BLOCK, d_in[gate]);
                if (CellType::SEPARATE_BIAS) store(to_products + to + gate * Panels<P>::BLOCK, d_product[gate]);
                store(sum + gate * LANES, load(sum + gate * LANES) + d_in[gate]);
            }
            if (!CellType::SEPARATE_BIAS) return;
            float* product_sum = product_sums + side * LANES;
            store(product_sum, load(product_sum) + d_product[GATES - 1]);
        }
    };

    // The last step. It has no product with a later step's gradient.
    void start_backward(BackwardBuffers& buffers, int panel, Range pairs, Backward& finish) {
        int rows = layout_.rows(panel);
        for (int pair = pairs.first; pair < pairs.last; pair++) {
            float z[2 * TILE];
            for (int side = 0; side < 2; side++)
                std::memcpy(z + side * TILE, buffers.state + carry_offset(panel, 2 * pair + side, 0),
                            rows * LANES * sizeof(float));
            finish.begin(panel, pair);
            finish.rows(z, 0, rows);
        }
    }

    static constexpr bool HAS_CARRY = CellType::CARRIED != Carried::nothing;
    static constexpr int LINE = 64 / sizeof(Saved);  // of a cache line
    // The distances from an even unit block to the next one in a panel, in states and in gates. TOGETHER: both are in
    // one block.
    static constexpr bool TOGETHER = 2 * LANES <= P::DEPTH;
    static constexpr int NEXT_UNITS = TOGETHER ? LANES : Panels<P>::BLOCK;
    static constexpr int NEXT_GATES = TOGETHER ? LANES : GATES * Panels<P>::BLOCK;
};

template <class P>
std::unique_ptr<RecurrentLayer<P>> make_layer(Cell cell) {
    return with_cell(cell, []<class CellType>(CellType) -> std::unique_ptr<RecurrentLayer<P>> {
        return std::make_unique<Recurrence<P, CellType>>();
    });
}

}  // namespace charloom
