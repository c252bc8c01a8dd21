// The part of a recurrent layer that is the same for all cells: its arrays and their layouts. The other part is
// `recurrence.h`.
//
// Shapes: T steps; B sequences, which are stored in panels (`panels.h`); panel m = t * panels + p has step t of the
// sequences of panel p; H units, padded; J = H / LANES unit blocks. Each thread does one part of a batch. In work whose
// steps depend on one another, a part is some panels of sequences, which are independent. In other work, it is some
// panels of all steps, blocks of units or rows of a matrix.

#pragma once

#include <vector>

#include "cells.h"
#include "products/products.h"
#include "products/rows.h"
#include "threads/pool.h"
#include "training/training.h"

namespace charloom {

// LANES numbers of a row that is not padded, from this unit on. Numbers after its end are zero, and are not stored.
CHARLOOM_INLINE Floats load_partial(const float* row, int unit, int units) {
    if (unit + LANES <= units) return load(row + unit);
    float few[LANES] = {};
    if (unit < units) std::memcpy(few, row + unit, (units - unit) * sizeof(float));
    return load(few);
}

CHARLOOM_INLINE void store_partial(Floats x, float* row, int unit, int units) {
    if (unit + LANES <= units) return store(row + unit, x);
    float few[LANES];
    store(few, x);
    if (unit < units) std::memcpy(row + unit, few, (units - unit) * sizeof(float));
}

// Dropout's mask of a matrix that is stored in panels. A row without factors is zero.
struct Mask {
    const float* factors = nullptr;
    const int32_t* rows = nullptr;  // [panel_row]: the row of `factors`, or -1
    int columns = 0;                // not padded

    explicit operator bool() const { return factors; }

    CHARLOOM_INLINE Floats at(size_t panel_row, int column) const {
        int32_t row = rows[panel_row];
        if (row < 0) return Floats{};
        return load_partial(factors + size_t(row) * columns, column, columns);
    }
};

// Tokens have their own panels, in the layout of the product that computes their input sums.
constexpr int TOKEN_ROWS = SinglePrecision::ROWS;

inline int32_t token_offset(int token, int unit_blocks) {
    return token / TOKEN_ROWS * unit_blocks * TOKEN_ROWS + token % TOKEN_ROWS;
}

// A layer's input sums: one for each step and sequence in their order, or one for each distinct token.
template <class P>
struct Inputs {
    const typename P::Saved* sums;
    const int32_t* tokens = nullptr;  // [m][P::ROWS]: the offset of the token's first unit block, or null
    int stride = P::ROWS;             // distance between two unit blocks

    // The offset of a unit block. The offset of its row or token is added to it.
    CHARLOOM_INLINE size_t block(size_t m, int unit_blocks, int j) const {
        return (tokens ? size_t(j) : m * unit_blocks + j) * stride;
    }
    CHARLOOM_INLINE const int32_t* tokens_of(size_t m) const { return tokens ? tokens + m * P::ROWS : nullptr; }
};

// One part's gradients of the biases. If input sums belong to tokens, each token has its own gradient.
struct Sums {
    Buffer<float> inputs;    // [offset of a token, or j][gate][LANES]
    Buffer<float> products;  // [j][LANES]: of the gate with a separate bias
};

// Stores the gradient of the outputs of the layer below, multiplied by dropout's mask.
template <class P>
struct OutputGradient {
    typename P::Number* outputs;  // [m][j][row][LANES]
    int unit_blocks;
    Mask mask;
    const int* panels = nullptr;  // the panels' numbers, or null for all panels in their order

    size_t m = 0;
    int unit = 0;
    typename P::Number* to = nullptr;

    size_t offset(int i, int pair) const {
        return (size_t(panels ? panels[i] : i) * unit_blocks + 2 * pair) * P::ROWS * LANES;
    }

    void prefetch(int i, int pair, int rows, PrefetchList& prefetches) const {
        prefetches.add(outputs + offset(i, pair), rows * LANES, 2, P::ROWS * LANES, true);
    }

    CHARLOOM_INLINE void begin(int i, int pair) {
        m = panels ? panels[i] : i;
        unit = 2 * pair * LANES;
        to = outputs + offset(i, pair);
    }

    CHARLOOM_INLINE void rows(const float* z, int first, int last) {
        for (int row = first; row < last; row++)
            for (int side = 0; side < 2; side++) {
                Floats d = load(z + side * TILE + row * LANES);
                if (mask) d *= mask.at(m * P::ROWS + row, unit + side * LANES);
                store(to + (side * P::ROWS + row) * LANES, d);
            }
    }
};

template <class P>
class RecurrentLayer {
public:
    using Number = typename P::Number;
    using Saved = typename P::Saved;

    // Of the cell; see `cells.h`. input_size, saved_size: numbers for one unit block of one sequence.
    const int gates, input_size, saved_size;
    const Carried carried;
    const bool separate_bias;

    template <class CellType>
    explicit RecurrentLayer(CellType)
        : gates(CellType::GATES), input_size(CellType::INPUT_PAIRS * P::PAIR),
          saved_size(CellType::SAVED_PAIRS * P::PAIR), carried(CellType::CARRIED),
          separate_bias(CellType::SEPARATE_BIAS) {}
    virtual ~RecurrentLayer() = default;

    // hidden: padded. tokens: the number of tokens for which input sums are stored. It is 1 in every layer except the
    // first: the other layers read the layer below, which has as many units.
    // save: whether a backward pass follows. Its saved activations need more memory than everything else.
    void resize(int hidden, int steps, Layout layout, int parts, int tokens, bool save) {
        hidden_ = hidden, steps_ = steps, layout_ = layout, tokens_ = tokens;
        unit_blocks_ = hidden / LANES;
        int blocks = hidden / P::DEPTH, m = steps * layout.panels;
        states_.reserve(Panels<P>::size(m + layout.panels, blocks));
        carry_.reserve(size_t(layout.panels) * unit_blocks_ * P::ROWS * LANES);
        first_carry_.reserve(size_t(layout.panels) * unit_blocks_ * P::ROWS * LANES);
        if (save) saved_.reserve(size_t(m) * unit_blocks_ * P::ROWS * saved_size);
        size_t packed = size_t(gates) * hidden * hidden;
        for (auto* weights : {&recurrent_, &recurrent_transposed_}) weights->reserve(packed);
        if (tokens == 1)
            for (auto* weights : {&input_, &input_transposed_}) weights->reserve(packed);
        bias_.reserve(size_t(gates) * hidden);
        recurrent_bias_.reserve(hidden);
        sums_.resize(parts);
        for (Sums& sums : sums_) {
            sums.inputs.reserve(size_t(tokens) * gates * hidden);
            sums.products.reserve(hidden);
        }
    }

    // Packs row-major, padded weights. All parts together pack all of them.
    void pack(const Weights& recurrent, const Weights* input, bool for_backward, int part, int parts) {
        pack_for_gates<P>(recurrent, recurrent_, part, parts);
        if (for_backward) pack_for_gradients<P>(recurrent, recurrent_transposed_, part, parts);
        if (!input) return;
        pack_for_gates<P>(*input, input_, part, parts);
        if (for_backward) pack_for_gradients<P>(*input, input_transposed_, part, parts);
    }

    // b + b', except for a gate with a separate bias. Not padded.
    void set_biases(const float* of_inputs, const float* of_products, int units) {
        for (int gate = 0; gate < gates; gate++)
            for (int unit = 0; unit < units; unit++) {
                bool apart = separate_bias && gate == gates - 1;
                float recurrent = of_products[gate * units + unit];
                bias_[(unit / LANES * gates + gate) * LANES + unit % LANES] =
                    of_inputs[gate * units + unit] + (apart ? 0 : recurrent);
                if (apart) recurrent_bias_[unit] = recurrent;
            }
    }

    Panels<P> states() const { return {states_, hidden_ / P::DEPTH}; }   // one step ahead: panel 0 is the state before
    Panels<P> outputs() const { return states().from(layout_.panels); }  // panel m has the result of step m
    const float* bias() const { return bias_; }

    // The state before the first step, from row-major [B][units]; null is zero.
    void set_state(State given, int units, Range panels) {
        const float *h = given.h, *carry = carried == Carried::h ? given.h : given.c;
        Range sequences = layout_.of_panels(panels);
        for (int sequence = sequences.first; sequence < sequences.last; sequence++) {
            int panel = layout_.panel(sequence), row = layout_.row(sequence);
            for (int unit = 0; unit < hidden_; unit += LANES) {
                size_t offset = carry_offset(panel, unit / LANES, row);
                store(states().at(panel, row, unit),
                      h ? load_partial(h + size_t(sequence) * units, unit, units) : Floats{});
                Floats start = carry ? load_partial(carry + size_t(sequence) * units, unit, units) : Floats{};
                store(carry_ + offset, start);
                store(first_carry_ + offset, start);
            }
        }
    }

    // The state after the last step.
    void get_state(State to, int units, Range panels) const {
        Range sequences = layout_.of_panels(panels);
        for (int sequence = sequences.first; sequence < sequences.last; sequence++) {
            int panel = layout_.panel(sequence), row = layout_.row(sequence);
            for (int unit = 0; unit < units; unit += LANES) {
                Floats carry = load(carry_ + carry_offset(panel, unit / LANES, row));
                Floats state = load(outputs().at((steps_ - 1) * layout_.panels + panel, row, unit));
                store_partial(carried == Carried::h ? carry : state, to.h + size_t(sequence) * units, unit, units);
                if (to.c) store_partial(carry, to.c + size_t(sequence) * units, unit, units);
            }
        }
    }

    // Memory for the backward pass, shared by the layers. inputs, products: gradients of the gates' sums.
    struct BackwardBuffers {
        Buffer<Number> inputs, products, outputs, outputs_below;
        Buffer<float> carry, state;

        void reserve(int hidden, int m, Layout layout, int gates, bool separate_bias) {
            int blocks = hidden / P::DEPTH * gates;
            inputs.reserve(Panels<P>::size(m, blocks));
            if (separate_bias) products.reserve(Panels<P>::size(m, blocks));
            for (auto* d : {&outputs, &outputs_below}) d->reserve(size_t(m) * hidden * P::ROWS);
            carry.reserve(size_t(layout.panels) * hidden * P::ROWS);
            state.reserve(size_t(layout.panels) * hidden * P::ROWS);
        }
    };

    // The input sums, W x + b, of the panels in the range: from the layer below, or from tokens.
    virtual void sum_inputs(Panels<P> x, Saved* out, Range range, Buffer<float>& scratch) const = 0;
    virtual void sum_tokens(Panels<SinglePrecision> x, Heights heights, const float* weights, Saved* out, Range range,
                            Buffer<float>& scratch) const = 0;

    // All steps, for the panels of sequences in the range. masked: receives the outputs times the mask, if there is a
    // mask. save: whether activations are saved for a backward pass.
    virtual void forward(Inputs<P> inputs, Mask mask, Panels<P> masked, Range range, bool save,
                         Buffer<float>& scratch) = 0;

    // All steps, the last first, for the panels of sequences in the range; then the gradient of the state before the
    // steps.
    virtual void backward(BackwardBuffers& buffers, Inputs<P> inputs, Range range, int part, State d_before, int units,
                          Buffer<float>& scratch) = 0;

    // The same for few sequences, which are in one panel. The weights are read without packing. A team shares the units
    // of each step. In work whose steps are independent, each part has some units.
    virtual void sum_inputs_few(GateRows weights, Panels<P> x, Saved* out, int part, int parts) const = 0;
    virtual void forward_few(GateRows weights, Inputs<P> inputs, Mask mask, Panels<P> masked, bool save, int member,
                             Team& team) = 0;
    virtual void backward_few(GateRows weights, BackwardBuffers& buffers, Inputs<P> inputs, State d_before, int units,
                              int member, Team& team, Buffer<float>& scratch) = 0;
    virtual void gradient_below_few(GateRows weights, BackwardBuffers& buffers, OutputGradient<P>& finish, int part,
                                    int parts, Buffer<float>& scratch) const = 0;

    Panels<P> d_inputs(BackwardBuffers& buffers) const { return {buffers.inputs, hidden_ / P::DEPTH * gates}; }
    Panels<P> d_products(BackwardBuffers& buffers) const {
        return {separate_bias ? buffers.products : buffers.inputs, hidden_ / P::DEPTH * gates};
    }

    // Offset of an output's gradient: [m][j][row][LANES].
    CHARLOOM_INLINE size_t output_offset(size_t m, int j, int row) const {
        return ((m * unit_blocks_ + j) * P::ROWS + row) * LANES;
    }

    // The gradient of the state after the last step, from row-major [B][units].
    void set_d_state(BackwardBuffers& buffers, State d, int units, Range panels) {
        Range sequences = layout_.of_panels(panels);
        for (int sequence = sequences.first; sequence < sequences.last; sequence++) {
            int panel = layout_.panel(sequence), row = layout_.row(sequence);
            for (int unit = 0; unit < hidden_; unit += LANES) {
                size_t offset = carry_offset(panel, unit / LANES, row);
                store(buffers.state + offset,
                      d.h ? load_partial(d.h + size_t(sequence) * units, unit, units) : Floats{});
                store(buffers.carry + offset,
                      d.c ? load_partial(d.c + size_t(sequence) * units, unit, units) : Floats{});
            }
        }
    }

    // The gradients of b and b' for the unit blocks in the range: the sums of all parts and tokens. Not padded.
    void bias_gradients(float* of_inputs, float* of_products, int units, Range range) const {
        for (int j = range.first; j < range.last; j++) {
            Floats total[MOST_GATES]{}, apart{};
            for (int token = 0; token < tokens_; token++)
                for (int gate = 0; gate < gates; gate++) total[gate] += token_gradient(token, j, gate);
            for (const Sums& sums : sums_) apart += load(sums.products + j * LANES);
            for (int gate = 0; gate < gates; gate++) {
                store_partial(total[gate], of_inputs + gate * units, j * LANES, units);
                store_partial(separate_bias && gate == gates - 1 ? apart : total[gate], of_products + gate * units,
                              j * LANES, units);
            }
        }
    }

    void clear_sums(int part) {
        std::memset(sums_[part].inputs, 0, size_t(tokens_) * gates * hidden_ * sizeof(float));
        std::memset(sums_[part].products, 0, hidden_ * sizeof(float));
    }

    // The sums of all parts for one token, unit block and gate.
    CHARLOOM_INLINE Floats token_gradient(int token, int j, int gate) const {
        size_t offset = tokens_ == 1 ? j : token_offset(token, unit_blocks_) + size_t(j) * TOKEN_ROWS;
        Floats total{};
        for (const Sums& sums : sums_) total += load(sums.inputs + (offset * gates + gate) * LANES);
        return total;
    }

    const Number* input_transposed() const { return input_transposed_; }

protected:
    CHARLOOM_INLINE size_t carry_offset(int panel, int j, int row) const {
        return (size_t(panel * unit_blocks_ + j) * P::ROWS + row) * LANES;
    }
    CHARLOOM_INLINE size_t saved_offset(size_t m, int j, int row) const {
        return ((m * unit_blocks_ + j) * P::ROWS + row) * saved_size;
    }

    void get_d_state(BackwardBuffers& buffers, Range range, State to, int units) const {
        Range sequences = layout_.of_panels(range);
        for (int sequence = sequences.first; sequence < sequences.last; sequence++) {
            int panel = layout_.panel(sequence), row = layout_.row(sequence);
            for (int unit = 0; unit < units; unit += LANES) {
                size_t offset = carry_offset(panel, unit / LANES, row);
                store_partial(load(buffers.state + offset), to.h + size_t(sequence) * units, unit, units);
                if (to.c) store_partial(load(buffers.carry + offset), to.c + size_t(sequence) * units, unit, units);
            }
        }
    }

    int hidden_ = 0, steps_ = 0, unit_blocks_ = 0, tokens_ = 1;
    Layout layout_;
    Buffer<Number> states_, recurrent_, recurrent_transposed_, input_, input_transposed_;
    Buffer<float> carry_, first_carry_, bias_, recurrent_bias_;
    Buffer<Saved> saved_;
    std::vector<Sums> sums_;
};

}  // namespace charloom
