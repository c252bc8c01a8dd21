// The steps. Each thread of a team has its share of every matrix's panels, always the same, so that it stays in its
// core's own cache; they meet after each layer and after the head. One text's next token is chosen by every thread for
// itself, which costs less than meeting once more; of several texts each thread chooses some.

#include "inference/session.h"

#include <algorithm>

namespace charloom::inference {
namespace {

// Words between two texts' values beyond their number: keeps them off each other's cache sets.
constexpr size_t APART = 16;

// Of so few texts the sums are small beside the weights, and the order in which weights are read decides: `run_ahead`.
constexpr int FEW_TEXTS = 4;

// What comes of the zero state: the hidden values of a block of units, and the recurrent sums of their gates.
alignas(64) constexpr float ZEROS[MOST_GATES * LANES] = {};

constexpr size_t BETWEEN = MOST_STRIPS * LANES;  // from one text's sums of a panel to the next one's

}  // namespace

Session::Session(const Network& network, const Task& task, int members)
    : network_(network), task_(task), few_texts_(task.texts <= FEW_TEXTS), stride_(network.width + APART),
      word_stride_(network.width / values_per_word(network.precision) + APART), values_(2 * network.layers.size()),
      memory_(network.layers.size()), members_(members) {
    for (Values& made : values_) {
        made.numbers.reserve(task.texts * stride_);
        made.words.reserve(task.texts * word_stride_);
    }
    for (auto& memory : memory_) memory.reserve(task.texts * stride_);
    logits_.reserve(size_t(task.texts) * network.head_width);
    for (Member& member : members_) {
        int panels = few_texts_ ? network.layers[0].recurrent.panels() : 1;
        member.below.reserve(task.texts * BETWEEN * panels);
        for (size_t n = 0; n < network.layers.size(); n++)
            member.recurrent.emplace_back().reserve(task.texts * BETWEEN * panels);
        member.ids.resize(task.texts);
        member.entries.reserve(size_t(task.texts) * padded_width(std::max(1, network.entry_size)));
        if (task.sampling)
            member.sampler = std::make_unique<Sampler>(*task.sampling, network.vocabulary_size, network.head_width);
        for (int text = 0; text < task.texts; text++) read(member, text, static_cast<int>(task.ids[text]));
    }
    load_state();
}

// The state before step 0 is of odd parity.
void Session::load_state() {
    int hidden = network_.hidden;
    std::vector<float> row(network_.width);
    for (size_t layer = 0; layer < network_.layers.size(); layer++)
        for (int text = 0; text < task_.texts; text++) {
            size_t at = (layer * task_.texts + text) * hidden;
            std::copy_n(task_.h + at, hidden, row.begin());
            for (int unit = 0; unit < network_.width; unit += LANES) put(layer, 1, text, unit, load(row.data() + unit));
            if (network_.cell == Cell::lstm) std::copy_n(task_.c + at, hidden, memory_[layer] + text * stride_);
        }
}

void Session::hand_back() const {
    int hidden = network_.hidden;
    for (size_t layer = 0; layer < network_.layers.size(); layer++)
        for (int text = 0; text < task_.texts; text++) {
            size_t at = (layer * task_.texts + text) * hidden;
            const Values& last = values_[2 * layer + (done_ + 1) % 2];
            std::copy_n(last.numbers + text * stride_, hidden, task_.h + at);
            if (network_.cell == Cell::lstm) std::copy_n(memory_[layer] + text * stride_, hidden, task_.c + at);
        }
    std::copy_n(members_[0].ids.begin(), task_.texts, task_.ids);
}

int Session::advance(int threads, int count) {
    int first = done_, end = done_ + count;
    if (task_.texts == 1)  // a member that had no part in the last steps does not know what was chosen in them
        for (Member& member : members_) read(member, 0, members_[0].ids[0]);
    return run_team(threads, [&](int member, Team& team) { steps(member, team, first, end); });
}

// Of few texts steps go two by two, in one call: the first one makes the second one's recurrent sums, too.
void Session::steps(int member, Team& team, int first, int end) {
    int layers = static_cast<int>(network_.layers.size());
    bool wants_logits = task_.logits || task_.chosen;
    for (int step = first; step < end; step++) {
        bool second = few_texts_ && (step - first) % 2 == 1, first_of_two = few_texts_ && !second && step + 1 < end;
        if (task_.forced) read_forced(member, team, step);
        for (int layer = 0; layer < layers; layer++) {
            run_layer(member, team.size(), step, layer, second);
            team.barrier(member);
            if (first_of_two) run_ahead(member, team.size(), step, layer);
        }
        if (wants_logits) {
            run_head(member, team.size(), step);
            team.barrier(member);
        }
        if (task_.chosen && !choose(member, team, step)) return;
        if (member == 0) done_ = step + 1;
    }
}

// The recurrent sums of a layer's next step, as soon as its hidden values are whole: their weights have just been read,
// and going backwards starts with those that were read last. Where a member's share of all weights is larger than its
// core's cache, recurrent weights thus come from beyond it about once in two steps, and not in each. What a layer reads
// from below waits for the next token; `run_panels` goes over those weights forwards and backwards in turn.
void Session::run_ahead(int member, int members, int step, int number) {
    const Matrix& recurrent = network_.layers[number].recurrent;
    times(recurrent, view(number, step % 2), Range::of(recurrent.panels(), member, members), true,
          members_[member].recurrent[number]);
}

// ahead: whether the recurrent sums are there; what is read from below is then gone over backwards.
void Session::run_layer(int member, int members, int step, int number, bool ahead) {
    Range panels = Range::of(network_.layers[number].recurrent.panels(), member, members);
    int together = few_texts_ ? panels.count() : 1;
    for (int first = panels.first; first < panels.last; first += together)
        run_panels(member, step, number, {first, first + together}, ahead);
}

void Session::run_panels(int member, int step, int number, Range panels, bool ahead) {
    const Layer& layer = network_.layers[number];
    Member& self = members_[member];
    const Member& read = reader(member);
    const bool from_entries = number == 0 && network_.entry_size > 0;
    const size_t entry_width = padded_width(network_.entry_size);
    const int gates = network_.gates, parity = step % 2;
    float *memory = memory_[number], *recurrent = self.recurrent[number];
    if (layer.below) {
        TextsView below = from_entries ? TextsView{read.entries, entry_width} : view(number - 1, parity);
        times(layer.below, below, panels, ahead, self.below);
    }
    if (!ahead) times(layer.recurrent, view(number, 1 - parity), panels, false, recurrent);
    for (int panel = panels.first; panel < panels.last; panel++) {
        int strip = layer.recurrent.first_strip(panel), strips = layer.recurrent.strips(panel);
        for (int text = 0; text < task_.texts; text++)
            for (int n = 0; n < strips; n += gates) {
                int unit = (strip + n) / gates * LANES;
                size_t sums = ((panel - panels.first) * task_.texts + text) * BETWEEN + n * LANES;
                size_t start = layer.start_per_token ? read.ids[text] * layer.start_size : 0;
                bool reset = read.ids[text] == network_.reset;
                if (reset) store(memory + text * stride_ + unit, Floats{});
                Block at{layer.start + start + size_t(strip + n) * LANES,
                         layer.below ? self.below + sums : nullptr,
                         reset ? ZEROS : recurrent + sums,
                         layer.new_bias + unit,
                         reset ? ZEROS : values(number, 1 - parity).numbers + text * stride_ + unit,
                         memory + text * stride_ + unit};
                put(number, parity, text, unit, cell_step(network_.cell, at));
            }
    }
}

// sums[panel][text] of some panels, in their order or from the last to the first.
void Session::times(const Matrix& matrix, const TextsView& texts, Range panels, bool backwards, float* sums) const {
    for (int n = 0; n < panels.count(); n++) {
        int at = backwards ? panels.count() - 1 - n : n;
        matrix.times(texts, task_.texts, panels.first + at, sums + at * task_.texts * BETWEEN, BETWEEN);
    }
}

void Session::run_head(int member, int members, int step) {
    TextsView top = view(static_cast<int>(network_.layers.size()) - 1, step % 2);
    Range panels = Range::of(network_.head.panels(), member, members);
    for (int panel = panels.first; panel < panels.last; panel++) {
        int first = network_.head.first_strip(panel) * LANES, end = first + network_.head.strips(panel) * LANES;
        network_.head.times(top, task_.texts, panel, logits_ + first, network_.head_width);
        for (int text = 0; text < task_.texts; text++) {
            float* logits = logits_ + size_t(text) * network_.head_width;
            for (int n = first; n < end; n += LANES) store(logits + n, load(logits + n) + load(network_.head_bias + n));
            if (task_.logits && first < network_.vocabulary_size)
                std::copy(logits + first, logits + std::min(end, network_.vocabulary_size),
                          task_.logits + (size_t(text) * task_.steps + step) * network_.vocabulary_size + first);
        }
    }
}

// What several threads read must not change while one of them still reads it.
void Session::read_forced(int member, Team& team, int step) {
    if (member == 0 || task_.texts == 1)
        for (int text = 0; text < task_.texts; text++)
            read(members_[member], text, static_cast<int>(task_.forced[size_t(text) * task_.steps + step]));
    if (task_.texts > 1) team.barrier(member);
}

bool Session::choose(int member, Team& team, int step) {
    if (task_.texts == 1) {
        choose_one(member, step, 0);
    } else {
        Range texts = Range::of(task_.texts, member, team.size());
        for (int text = texts.first; text < texts.last; text++) choose_one(member, step, text);
        team.barrier(member);
    }
    return !failed_.load(std::memory_order_relaxed);
}

void Session::choose_one(int member, int step, int text) {
    Member& by = reader(member);
    double number = uniform(task_.seed, task_.sequences[text], task_.position + step);
    std::vector<float>& logits = members_[member].logits;
    logits.assign(logits_ + size_t(text) * network_.head_width, logits_ + size_t(text + 1) * network_.head_width);
    int token = members_[member].sampler->choose(logits.data(), by.ids[text], number);
    if (token < 0) return failed_.store(true);
    if (task_.texts > 1 || member == 0) task_.chosen[size_t(text) * task_.steps + step] = token;
    read(by, text, token);
}

void Session::read(Member& by, int text, int token) {
    by.ids[text] = token;
    if (network_.entry_size > 0)
        std::memcpy(by.entries + size_t(text) * padded_width(network_.entry_size),
                    network_.entries + size_t(token) * network_.entry_size, network_.entry_size * sizeof(float));
}

void Session::put(int layer, int parity, int text, int unit, Floats h) {
    Values& to = values(layer, parity);
    store(to.numbers + text * stride_ + unit, h);
    if (network_.precision != Precision::fp32) put_values(network_.precision, to.words + text * word_stride_, unit, h);
}

TextsView Session::view(int layer, int parity) {
    const Values& from = values(layer, parity);
    if (network_.precision == Precision::fp32) return {reinterpret_cast<const uint32_t*>(from.numbers.get()), stride_};
    return {from.words, word_stride_};
}

}  // namespace charloom::inference
