// A recurrent layer, but for what its cell makes different (`recurrence.h`): what it holds, and what lies where.
//
// Shapes: T steps, B texts, which lie in panels (`panels.h`); panel m = t * panels + p holds step t of the texts of panel
// p. H units, padded; J = H / LANES unit blocks. The work of a batch falls into parts, one a thread: for what goes step by
// step a part is some panels of texts, which know nothing of the others; for what does not, some panels of the sequence,
// blocks of units or rows of a matrix.

#pragma once

#include <vector>

#include "products/products.h"

namespace charloom {

// LANES numbers of a row that is not padded, from this column on; beyond its end they are zero, and stay out.
CHARLOOM_INLINE Floats some(const float* row, int unit, int units) {
    if (unit + LANES <= units) return load(row + unit);
    float few[LANES] = {};
    if (unit < units) std::memcpy(few, row + unit, (units - unit) * sizeof(float));
    return load(few);
}

CHARLOOM_INLINE void put(Floats x, float* row, int unit, int units) {
    if (unit + LANES <= units) return store(row + unit, x);
    float few[LANES];
    store(few, x);
    if (unit < units) std::memcpy(row + unit, few, (units - unit) * sizeof(float));
}

constexpr int MOST_GATES = 4;

// Dropout's mask of a matrix that lies in panels: the factors of a row, or nothing where it has none.
struct Mask {
    const float* factors = nullptr;
    const int32_t* rows = nullptr;  // [panel][ROWS]: which row of `factors`, or -1
    int columns = 0;                // not padded

    explicit operator bool() const { return factors; }

    CHARLOOM_INLINE Floats at(size_t place, int column) const {
        int32_t row = rows[place];
        if (row < 0) return Floats{};
        return some(factors + size_t(row) * columns, column, columns);
    }
};

// Tokens lie in panels of their own, as the product that makes their input sums has it.
constexpr int TOKEN_ROWS = SinglePrecision::ROWS;

inline int32_t token_place(int token, int unit_blocks) {
    return token / TOKEN_ROWS * unit_blocks * TOKEN_ROWS + token % TOKEN_ROWS;
}

// Where a layer's input sums lie: those of step and text one after the other, or those of the token that stands there.
template <class P>
struct Inputs {
    const typename P::Kept* sums;
    const int32_t* tokens = nullptr;  // [m][P::ROWS]: the place of the token's first unit block, or nothing
    int stride = P::ROWS;             // places from one unit block to the next

    // Where those of a unit block begin, to which its row or its token is added.
    CHARLOOM_INLINE size_t block(size_t m, int unit_blocks, int j) const {
        return (tokens ? size_t(j) : m * unit_blocks + j) * stride;
    }
    CHARLOOM_INLINE const int32_t* tokens_of(size_t m) const { return tokens ? tokens + m * P::ROWS : nullptr; }
};

// The sums that biases' gradients are, of one part. Where the inputs are tokens', each token has sums of its own.
struct Sums {
    Buffer<float> inputs;    // [place of a token, or j][gate][LANES]
    Buffer<float> products;  // [j][LANES]: of the gate whose product has a bias apart
};

// A gradient on its way down to the outputs below, dropout's mask taken into account.
template <class P>
struct GoesDown {
    typename P::Number* outputs;  // [m][j][row][LANES]
    int unit_blocks;
    Mask mask;
    const int* panels = nullptr;  // which they are, or nothing for all in their order

    size_t m = 0;
    int unit = 0;
    typename P::Number* to = nullptr;

    size_t place(int i, int pair) const {
        return (size_t(panels ? panels[i] : i) * unit_blocks + 2 * pair) * P::ROWS * LANES;
    }

    void want(int i, int pair, int rows, PrefetchList& wanted) const {
        wanted.add(outputs + place(i, pair), rows * LANES, 2, P::ROWS * LANES, true);
    }

    CHARLOOM_INLINE void begin(int i, int pair) {
        m = panels ? panels[i] : i;
        unit = 2 * pair * LANES;
        to = outputs + place(i, pair);
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
class Layer {
public:
    using Number = typename P::Number;
    using Kept = typename P::Kept;

    // Of the cell; `cells.h` says what they are. input_size, kept_size: numbers of a place in memory.
    const int gates, input_size, kept_size;
    const bool past;

    Layer(int gates, int inputs, int kept, bool past)
        : gates(gates), input_size(inputs * P::PAIR), kept_size(kept * P::PAIR), past(past) {}
    virtual ~Layer() = default;

    // H padded; a layer that is not the first has one sum for all tokens, and reads the one below, of as many units.
    // keep: whether there will be a way back, which needs more room than all else.
    void resize(int hidden, int steps, Layout layout, int parts, int tokens, bool keep) {
        hidden_ = hidden, steps_ = steps, layout_ = layout, tokens_ = tokens;
        unit_blocks_ = hidden / LANES;
        int blocks = hidden / P::DEPTH, m = steps * layout.panels;
        states_.reserve(Panels<P>::size(m + layout.panels, blocks));
        running_.reserve(size_t(layout.panels) * unit_blocks_ * P::ROWS * LANES);
        first_running_.reserve(size_t(layout.panels) * unit_blocks_ * P::ROWS * LANES);
        if (keep) kept_.reserve(size_t(m) * unit_blocks_ * P::ROWS * kept_size);
        size_t packed = size_t(gates) * hidden * hidden;
        for (auto* weights : {&recurrent_, &recurrent_back_}) weights->reserve(packed);
        if (tokens == 1)
            for (auto* weights : {&input_, &input_back_}) weights->reserve(packed);
        bias_.reserve(size_t(gates) * hidden);
        past_bias_.reserve(hidden);
        sums_.resize(parts);
        for (Sums& sums : sums_) {
            sums.inputs.reserve(size_t(tokens) * gates * hidden);
            sums.products.reserve(hidden);
        }
    }

    // Row-major weights and biases (their sizes padded by hidden units), packed by all parts.
    void pack(const Weights& recurrent, const Weights* input, bool back, int part, int parts) {
        pack_for_gates<P>(recurrent, recurrent_, part, parts);
        if (back) pack_for_gradients<P>(recurrent, recurrent_back_, part, parts);
        if (!input) return;
        pack_for_gates<P>(*input, input_, part, parts);
        if (back) pack_for_gradients<P>(*input, input_back_, part, parts);
    }

    // b + b', but for the gate whose product keeps its own; not padded.
    void set_biases(const float* of_inputs, const float* of_products, int units) {
        for (int gate = 0; gate < gates; gate++)
            for (int unit = 0; unit < units; unit++) {
                bool apart = past && gate == gates - 1;
                float past = of_products[gate * units + unit];
                bias_[(unit / LANES * gates + gate) * LANES + unit % LANES] =
                    of_inputs[gate * units + unit] + (apart ? 0 : past);
                if (apart) past_bias_[unit] = past;
            }
    }

    Panels<P> states() const { return {states_, hidden_ / P::DEPTH}; }   // one step ahead: panel 0 is before
    Panels<P> outputs() const { return states().from(layout_.panels); }  // panel m is step m's
    const float* bias() const { return bias_; }

    // The state before the first step, from row-major [B][units]; nothing stands for zero.
    void set_state(const float* h, const float* c, int units, Range panels) {
        const float* carried = past ? h : c;
        for (int text = panels.first * layout_.rows; text < panels.last * layout_.rows; text++)
            for (int unit = 0; unit < hidden_; unit += LANES) {
                bool there = text < layout_.texts;
                size_t place = running_place(layout_.panel(text), unit / LANES, layout_.row(text));
                store(states().at(layout_.panel(text), layout_.row(text), unit),
                      there && h ? some(h + size_t(text) * units, unit, units) : Floats{});
                Floats start = there && carried ? some(carried + size_t(text) * units, unit, units) : Floats{};
                store(running_ + place, start);
                store(first_running_ + place, start);
            }
    }

    // The state after the last step.
    void get_state(float* h, float* c, int units, Range panels) const {
        Range texts = layout_.of_panels(panels);
        for (int text = texts.first; text < texts.last; text++)
            for (int unit = 0; unit < units; unit += LANES) {
                int panel = layout_.panel(text), row = layout_.row(text);
                Floats running = load(running_ + running_place(panel, unit / LANES, row));
                Floats state = load(outputs().at((steps_ - 1) * layout_.panels + panel, row, unit));
                put(past ? running : state, h + size_t(text) * units, unit, units);
                if (c) put(running, c + size_t(text) * units, unit, units);
            }
    }

    // Room for the way back: gradients of the gates' sums, shared by the layers.
    struct Back {
        Buffer<Number> inputs, products, outputs, outputs_below;
        Buffer<float> running, state;

        void reserve(int hidden, int m, Layout layout, int gates, bool past) {
            int blocks = hidden / P::DEPTH * gates;
            inputs.reserve(Panels<P>::size(m, blocks));
            if (past) products.reserve(Panels<P>::size(m, blocks));
            for (auto* d : {&outputs, &outputs_below}) d->reserve(size_t(m) * hidden * P::ROWS);
            running.reserve(size_t(layout.panels) * hidden * P::ROWS);
            state.reserve(size_t(layout.panels) * hidden * P::ROWS);
        }
    };

    // The input sums, W x + b, of the panels in the range: of the layer below, or of tokens.
    virtual void sum_inputs(Panels<P> x, int rows, Kept* out, Range range, Buffer<float>& room) const = 0;
    virtual void sum_tokens(Panels<SinglePrecision> x, const float* weights, Kept* out, Range range,
                            Buffer<float>& room) const = 0;

    // All steps, for the panels of texts in the range. `passed` gets what goes up where a mask lies between.
    virtual void forward(Inputs<P> inputs, Mask mask, Panels<P> passed, Range range, bool keep,
                         Buffer<float>& room) = 0;

    // All steps, the last first, for the panels of texts in the range; at the end the gradient of the state before.
    virtual void backward(Back& back, Inputs<P> inputs, Range range, int part, float* d_h, float* d_c, int units,
                          Buffer<float>& room) = 0;

    Panels<P> d_inputs(Back& back) const { return {back.inputs, hidden_ / P::DEPTH * gates}; }
    Panels<P> d_products(Back& back) const { return {past ? back.products : back.inputs, hidden_ / P::DEPTH * gates}; }

    // Where an output's gradient lies: [m][j][row][LANES].
    CHARLOOM_INLINE size_t output_place(size_t m, int j, int row) const {
        return ((m * unit_blocks_ + j) * P::ROWS + row) * LANES;
    }

    // What reaches the last step from beyond it, from row-major [B][units].
    void set_d_state(Back& back, const float* d_h, const float* d_c, int units, Range panels) {
        for (int text = panels.first * layout_.rows; text < panels.last * layout_.rows; text++)
            for (int unit = 0; unit < hidden_; unit += LANES) {
                size_t place = running_place(layout_.panel(text), unit / LANES, layout_.row(text));
                bool there = text < layout_.texts;
                store(back.state + place, there && d_h ? some(d_h + size_t(text) * units, unit, units) : Floats{});
                store(back.running + place, there && d_c ? some(d_c + size_t(text) * units, unit, units) : Floats{});
            }
    }

    // The gradients of b and b', for the unit blocks in the range: the sums of all parts and tokens; not padded.
    void bias_gradients(float* of_inputs, float* of_products, int units, Range range) const {
        for (int j = range.first; j < range.last; j++) {
            Floats total[MOST_GATES]{}, apart{};
            for (int token = 0; token < tokens_; token++)
                for (int gate = 0; gate < gates; gate++) total[gate] += token_gradient(token, j, gate);
            for (const Sums& sums : sums_) apart += load(sums.products + j * LANES);
            for (int gate = 0; gate < gates; gate++) {
                put(total[gate], of_inputs + gate * units, j * LANES, units);
                put(past && gate == gates - 1 ? apart : total[gate], of_products + gate * units, j * LANES, units);
            }
        }
    }

    // The sums of all parts for one token, unit block and gate.
    CHARLOOM_INLINE Floats token_gradient(int token, int j, int gate) const {
        size_t place = tokens_ == 1 ? j : token_place(token, unit_blocks_) + size_t(j) * TOKEN_ROWS;
        Floats total{};
        for (const Sums& sums : sums_) total += load(sums.inputs + (place * gates + gate) * LANES);
        return total;
    }

    const Number* input_back() const { return input_back_; }

protected:
    CHARLOOM_INLINE size_t running_place(int panel, int j, int row) const {
        return (size_t(panel * unit_blocks_ + j) * P::ROWS + row) * LANES;
    }
    CHARLOOM_INLINE size_t kept_place(size_t m, int j, int row) const {
        return ((m * unit_blocks_ + j) * P::ROWS + row) * kept_size;
    }

    void give_d_state(Back& back, Range range, float* d_h, float* d_c, int units) const {
        Range texts = layout_.of_panels(range);
        for (int text = texts.first; text < texts.last; text++) {
            int panel = layout_.panel(text), row = layout_.row(text);
            for (int unit = 0; unit < units; unit += LANES) {
                size_t place = running_place(panel, unit / LANES, row);
                put(load(back.state + place), d_h + size_t(text) * units, unit, units);
                if (d_c) put(load(back.running + place), d_c + size_t(text) * units, unit, units);
            }
        }
    }

    int hidden_ = 0, steps_ = 0, unit_blocks_ = 0, tokens_ = 1;
    Layout layout_;
    Buffer<Number> states_, recurrent_, recurrent_back_, input_, input_back_;
    Buffer<float> running_, first_running_, bias_, past_bias_;
    Buffer<Kept> kept_;
    std::vector<Sums> sums_;
};

}  // namespace charloom
