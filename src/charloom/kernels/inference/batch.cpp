// The steps. Each thread of a team has a share of every matrix's panels. The share is always the same, so it stays in
// the core's own cache. The team meets at a barrier after each layer and after the head. With a single row, every
// thread chooses the next token itself, which costs less than one more barrier. With several rows, each thread chooses
// for some.

#include "inference/batch.h"

#include <algorithm>
#include <chrono>

namespace charloom::inference {
namespace {

// Extra words between the values of two rows, so that rows do not share cache sets.
constexpr size_t APART = 16;

// Up to this number of rows, sums are small beside the weights, and the order of reading weights decides: `run_ahead`.
constexpr int FEW_ROWS = 4;

// For the zero state: the hidden values of a block of units, and the recurrent sums of their gates.
alignas(64) constexpr float ZEROS[MOST_GATES * LANES] = {};

constexpr size_t BETWEEN = MOST_STRIPS * LANES;  // distance between two rows' sums of a panel

// The least number of bytes for each member of a team. With fewer, a barrier costs more than the member saves.
constexpr size_t LEAST_SHARE = 32 << 10;

// The time after which a team is formed again, or given up: short, so that other processes on a core cost little.
constexpr double TEAM_SECONDS = 500e-6;

template <class Number>
void enlarge(Buffer<Number>& buffer, size_t used, size_t capacity) {
    Buffer<Number> larger;
    larger.reserve(capacity);
    if (used) std::copy_n(buffer.get(), used, larger.get());
    buffer = std::move(larger);
}

}  // namespace

DecodingBatch::DecodingBatch(const PackedNetwork& network)
    : network_(network), stride_(network.width + APART),
      word_stride_(row_words(network.precision, network.width) + APART), values_(2 * network.layers.size()),
      memory_(network.layers.size()) {}

void DecodingBatch::grow(int rows) {
    if (rows <= capacity_) return;
    int capacity = std::max(rows, 2 * capacity_);
    for (Values& made : values_) {
        enlarge(made.floats, size() * stride_, capacity * stride_);
        enlarge(made.words, size() * word_stride_, capacity * word_stride_);
    }
    for (auto& memory : memory_) enlarge(memory, size() * stride_, capacity * stride_);
    capacity_ = capacity;
}

void DecodingBatch::join(Row row, const float* h, const float* c) {
    grow(size() + 1);
    int hidden = network_.hidden, number = size();
    std::vector<float> padded(network_.width);
    for (size_t layer = 0; layer < network_.layers.size(); layer++) {
        std::copy_n(h + layer * hidden, hidden, padded.begin());
        for (int unit = 0; unit < network_.width; unit += LANES)
            put(layer, 1 - first_parity_, number, unit, load(padded.data() + unit));
        if (carried_by(network_.cell) == Carried::c)
            std::copy_n(c + layer * hidden, hidden, memory_[layer] + number * stride_);
    }
    rows_.push_back(std::move(row));
}

void DecodingBatch::leave(int row) {
    int last = size() - 1;
    for (size_t layer = 0; row < last && layer < network_.layers.size(); layer++) {
        Values& now = values(layer, 1 - first_parity_);
        std::copy_n(now.floats + last * stride_, stride_, now.floats + row * stride_);
        std::copy_n(now.words + last * word_stride_, word_stride_, now.words + row * word_stride_);
        std::copy_n(memory_[layer] + last * stride_, stride_, memory_[layer] + row * stride_);
    }
    if (row < last) rows_[row] = std::move(rows_[last]);
    rows_.pop_back();
}

void DecodingBatch::copy_state(int row, float* h, float* c) const {
    int hidden = network_.hidden;
    for (size_t layer = 0; layer < network_.layers.size(); layer++) {
        std::copy_n(values(layer, 1 - first_parity_).floats + row * stride_, hidden, h + layer * hidden);
        if (carried_by(network_.cell) == Carried::c)
            std::copy_n(memory_[layer] + row * stride_, hidden, c + layer * hidden);
    }
}

// Runs the steps in parts of about half a millisecond. Each part uses as many threads as are fastest at the moment. Few
// rows take two steps at a time, so a part has an even number of steps, except for the last part.
int DecodingBatch::run(const Call& call, int threads, double seconds) {
    if (rows_.empty() || call.steps == 0) return 0;
    size_t shares = std::min<size_t>(Team::LARGEST, network_.bytes() / LEAST_SHARE + 1);
    threads = std::clamp(threads, 1, static_cast<int>(shares));
    if (size() > 2 * thread_choice_rows_ || thread_choice_rows_ > 2 * size()) {
        thread_choice_ = {};
        thread_choice_rows_ = size();
    }
    prepare(threads);
    auto begin = ThreadChoice::Clock::now(), now = begin;
    for (int part = 2; done_ < call.steps;) {
        int first = done_, count = std::min(part, call.steps - first);
        int asked = thread_choice_.threads(threads, now), came = advance(call, asked, first, count);
        auto then = ThreadChoice::Clock::now();
        ThreadChoice::Seconds time = then - now;
        thread_choice_.learn(asked, came, time, count, then);
        now = then;
        if (failed_.load() || ThreadChoice::Seconds(now - begin).count() >= seconds) break;
        part = std::clamp(static_cast<int>(std::min(1e6, TEAM_SECONDS / time.count() * count)), 2, 2 * count) / 2 * 2;
    }
    finish(done_);
    return done_;
}

void DecodingBatch::prepare(int threads) {
    few_rows_ = size() <= FEW_ROWS;
    each_chooses_ = size() == 1 && !rows_[0].sampling.needs_history();
    done_ = 0;
    failed_.store(false);
    logits_.reserve(size_t(size()) * network_.head_width);
    if (int(members_.size()) < threads) members_.resize(threads);
    for (Member& member : members_) {
        int panels = few_rows_ ? network_.layers[0].recurrent.panels() : 1;
        member.below.reserve(size() * BETWEEN * panels);
        member.recurrent.resize(network_.layers.size());
        for (auto& sums : member.recurrent) sums.reserve(size() * BETWEEN * panels);
        member.tokens.resize(size());
        member.features.reserve(size_t(size()) * padded_width(std::max(1, network_.feature_size)));
        if (!member.sampler) member.sampler = std::make_unique<Sampler>(network_.vocabulary_size, network_.head_width);
        for (int row = 0; row < size(); row++) read(member, row, rows_[row].token);
    }
}

int DecodingBatch::advance(const Call& call, int threads, int first, int count) {
    if (each_chooses_)  // a member that was not in the last team does not know its tokens
        for (Member& member : members_) read(member, 0, members_[0].tokens[0]);
    return run_team(
        threads, [&](int member, Team& team) { steps(call, member, team, first, first + count); },
        thread_choice_.patience(count));
}

// Prepares the rows for the next call. A row without a token to choose cannot continue: its next token has no meaning.
void DecodingBatch::finish(int steps) {
    first_parity_ = parity_of(steps);
    for (int row = 0; row < size(); row++) {
        rows_[row].token = members_[0].tokens[row];
        rows_[row].position += steps;
    }
}

// Few rows take steps in pairs in one call: the first step also computes the recurrent sums of the second.
void DecodingBatch::steps(const Call& call, int member, Team& team, int first, int end) {
    int layers = static_cast<int>(network_.layers.size());
    for (int step = first; step < end; step++) {
        bool second = few_rows_ && (step - first) % 2 == 1, first_of_two = few_rows_ && !second && step + 1 < end;
        if (call.given) read_given(call, member, team, step);
        for (int layer = 0; layer < layers; layer++) {
            run_layer(member, team.size(), step, layer, second);
            team.barrier(member);
            if (first_of_two) run_ahead(member, team.size(), step, layer);
        }
        if (call.logits || call.generated) {
            run_head(call, member, team.size(), step);
            team.barrier(member);
        }
        bool go_on = !call.generated || choose(call, member, team, step);
        if (member == 0) done_ = step + 1;
        if (!go_on) return;
    }
}

// The recurrent sums of a layer's next step, as soon as its hidden values are complete. Their weights have just been
// read, and the backwards order starts with the weights read last. If a member's share of all weights exceeds its
// core's cache, this reads recurrent weights from outside it about once in two steps, not in each step. The product
// with the layer below must wait for the next token; `run_panels` alternates the order of those weights between
// forwards and backwards.
void DecodingBatch::run_ahead(int member, int members, int step, int number) {
    const PackedMatrix& recurrent = network_.layers[number].recurrent;
    times(recurrent, view(number, parity_of(step)), Range::of(recurrent.panels(), member, members), true,
          members_[member].recurrent[number]);
}

// ahead: whether the recurrent sums are already computed. Then the weights of the layer below are read backwards.
void DecodingBatch::run_layer(int member, int members, int step, int number, bool ahead) {
    Range panels = Range::of(network_.layers[number].recurrent.panels(), member, members);
    int together = few_rows_ ? panels.count() : 1;
    for (int first = panels.first; first < panels.last; first += together)
        run_panels(member, step, number, {first, first + together}, ahead);
}

void DecodingBatch::run_panels(int member, int step, int number, Range panels, bool ahead) {
    const PackedLayer& layer = network_.layers[number];
    Member& self = members_[member];
    const Member& read = reader(member);
    const bool from_features = number == 0 && network_.feature_size > 0;
    const size_t feature_width = padded_width(network_.feature_size);
    const int gates = network_.gates, parity = parity_of(step);
    float *memory = memory_[number], *recurrent = self.recurrent[number];
    if (layer.below) {
        BatchView below = from_features ? BatchView{read.features, feature_width} : view(number - 1, parity);
        times(layer.below, below, panels, ahead, self.below);
    }
    if (!ahead) times(layer.recurrent, view(number, 1 - parity), panels, false, recurrent);
    for (int panel = panels.first; panel < panels.last; panel++) {
        int strip = layer.recurrent.first_strip(panel), strips = layer.recurrent.strips(panel);
        for (int row = 0; row < size(); row++)
            for (int n = 0; n < strips; n += gates) {
                int unit = (strip + n) / gates * LANES;
                size_t sums = ((panel - panels.first) * size() + row) * BETWEEN + n * LANES;
                size_t start = layer.table_per_token ? read.tokens[row] * layer.table_width : 0;
                bool reset = read.tokens[row] == network_.reset_id;
                if (reset) store(memory + row * stride_ + unit, Floats{});
                Block at{layer.table + start + size_t(strip + n) * LANES,
                         layer.below ? self.below + sums : nullptr,
                         reset ? ZEROS : recurrent + sums,
                         layer.hidden_bias + unit,
                         reset ? ZEROS : values(number, 1 - parity).floats + row * stride_ + unit,
                         memory + row * stride_ + unit};
                put(number, parity, row, unit, cell_step(network_.cell, at));
            }
    }
}

// sums[panel][row] of some panels, in their order or in reverse.
void DecodingBatch::times(const PackedMatrix& matrix, const BatchView& batch, Range panels, bool backwards,
                          float* sums) const {
    for (int n = 0; n < panels.count(); n++) {
        int at = backwards ? panels.count() - 1 - n : n;
        matrix.times(batch, size(), panels.first + at, sums + at * size() * BETWEEN, BETWEEN);
    }
}

void DecodingBatch::run_head(const Call& call, int member, int members, int step) {
    BatchView top = view(static_cast<int>(network_.layers.size()) - 1, parity_of(step));
    Range panels = Range::of(network_.head.panels(), member, members);
    for (int panel = panels.first; panel < panels.last; panel++) {
        int first = network_.head.first_strip(panel) * LANES, end = first + network_.head.strips(panel) * LANES;
        network_.head.times(top, size(), panel, logits_ + first, network_.head_width);
        for (int row = 0; row < size(); row++) {
            float* logits = logits_ + size_t(row) * network_.head_width;
            for (int n = first; n < end; n += LANES) store(logits + n, load(logits + n) + load(network_.head_bias + n));
            if (call.logits && first < network_.vocabulary_size)
                std::copy(logits + first, logits + std::min(end, network_.vocabulary_size),
                          call.logits + (size_t(row) * call.steps + step) * network_.vocabulary_size + first);
        }
    }
}

// Input that several threads read must not change while a thread still reads it.
void DecodingBatch::read_given(const Call& call, int member, Team& team, int step) {
    if (member == 0 || each_chooses_)
        for (int row = 0; row < size(); row++)
            read(reader(member), row, static_cast<int>(call.given[size_t(row) * call.steps + step]));
    if (!each_chooses_) team.barrier(member);
}

bool DecodingBatch::choose(const Call& call, int member, Team& team, int step) {
    if (each_chooses_) {
        choose_one(call, member, step, 0);
    } else {
        Range rows = Range::of(size(), member, team.size());
        for (int row = rows.first; row < rows.last; row++) choose_one(call, member, step, row);
        team.barrier(member);
    }
    return !failed_.load(std::memory_order_relaxed);
}

void DecodingBatch::choose_one(const Call& call, int member, int step, int number) {
    Row& row = rows_[number];
    Member& self = members_[member];
    const float* logits = logits_ + size_t(number) * network_.head_width;
    self.logits.assign(logits, logits + network_.head_width);
    double drawn = uniform(row.seed, row.index, row.position + step);
    int token =
        self.sampler->choose(self.logits.data(), row.sampling, row.history, reader(member).tokens[number], drawn);
    if (member == 0 || !each_chooses_) {
        size_t at = size_t(number) * call.steps + step;
        call.generated[at] = token;
        if (call.logprobs && row.logprobs >= 0 && token >= 0)
            self.sampler->log_probabilities(logits, token, row.logprobs, call.logprobs + at * (1 + call.top),
                                            call.top_ids + at * call.top);
        if (row.sampling.needs_history() && token >= 0) row.history.push(token);
    }
    if (token < 0) return failed_.store(true);
    read(reader(member), number, token);
}

void DecodingBatch::read(Member& by, int row, int token) {
    by.tokens[row] = token;
    if (network_.feature_size > 0)
        std::memcpy(by.features + size_t(row) * padded_width(network_.feature_size),
                    network_.features + size_t(token) * network_.feature_size, network_.feature_size * sizeof(float));
}

void DecodingBatch::put(int layer, int parity, int row, int unit, Floats h) {
    Values& to = values(layer, parity);
    store(to.floats + row * stride_ + unit, h);
    if (network_.precision != Precision::fp32) put_values(network_.precision, to.words + row * word_stride_, unit, h);
}

BatchView DecodingBatch::view(int layer, int parity) const {
    const Values& from = values(layer, parity);
    if (network_.precision == Precision::fp32) return {reinterpret_cast<const uint32_t*>(from.floats.get()), stride_};
    return {from.words, word_stride_};
}

}  // namespace charloom::inference
