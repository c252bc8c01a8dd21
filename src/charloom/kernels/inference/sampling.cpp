// Random numbers, filters and the draw. All filters except the repetition penalty compute in float64, in the order of
// inference/sampling.py, including ties. Only the exponential may differ from NumPy's, in its last bit.

#include "inference/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "vector.h"

namespace charloom::inference {
namespace {

constexpr float FORBIDDEN = -std::numeric_limits<float>::infinity();
constexpr double EXCLUDED = -std::numeric_limits<double>::infinity();
constexpr int DOUBLES = LANES >= 2 ? LANES / 2 : 1;
using Doubles = double __attribute__((vector_size(8 * DOUBLES)));
using Longs = int64_t __attribute__((vector_size(8 * DOUBLES)));

Doubles load(const double* from) {
    Doubles x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

void store(double* to, Doubles x) { std::memcpy(to, &x, sizeof x); }

// e^x for x in [-708, 0], to about one unit in the last place: 2^n e^r, with r within ln(2)/2 of 0, by Taylor's series.
// The first term that is left out is below 5e-18.
CHARLOOM_INLINE Doubles exponential_bounded(Doubles x) {
    constexpr double ROUNDER = 6755399441055744.0;  // 1.5 * 2^52
    constexpr double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;
    constexpr double LOG2E_DOUBLE = 1.44269504088896338700;
    Doubles shifted = x * LOG2E_DOUBLE + ROUNDER;
    Doubles n = shifted - ROUNDER;
    Doubles r = (x - n * LN2_HIGH) - n * LN2_LOW;
    constexpr double OVER_FACTORIAL[] = {1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
                                         1.0 / 362880,     1.0 / 40320,     1.0 / 5040,     1.0 / 720,
                                         1.0 / 120,        1.0 / 24,        1.0 / 6,        0.5};
    Doubles p = r * 0.0;
    for (double coefficient : OVER_FACTORIAL) p = p * r + coefficient;
    p = (p * r) * r + r + 1.0;
    return (Doubles)((Longs)p + ((Longs)shifted << 52));
}

// weights = e^scores; all scores are at most 0. Scores below -708 are rare, and e^x is 0 in float64 below -746.
void exponentials(const double* scores, double* weights, int count) {
    constexpr double LEAST = -708;  // count is a multiple of LANES
    for (int n = 0; n < count; n += DOUBLES) {
        Doubles x = load(scores + n);
        store(weights + n, exponential_bounded(x > LEAST ? x : LEAST - Doubles{}));
    }
    for (int n = 0; n < count; n++)
        if (!(scores[n] > LEAST)) weights[n] = scores[n] > -746 ? std::exp(scores[n]) : 0;
}

struct Block4 {
    uint64_t word[4];
};

// Philox-4x64-10 (Salmon et al. 2011), as in Random123: encrypts a counter under a key.
Block4 philox(uint64_t counter, uint64_t key0, uint64_t key1) {
    constexpr uint64_t M0 = 0xD2E7470EE14C6C93, M1 = 0xCA5A826395121157;
    constexpr uint64_t W0 = 0x9E3779B97F4A7C15, W1 = 0xBB67AE8584CAA73B;
    Block4 x{{counter, 0, 0, 0}};
    for (int round = 0; round < 10; round++, key0 += W0, key1 += W1) {
        unsigned __int128 a = static_cast<unsigned __int128>(M0) * x.word[0];
        unsigned __int128 b = static_cast<unsigned __int128>(M1) * x.word[2];
        x = {{static_cast<uint64_t>(b >> 64) ^ x.word[1] ^ key0, static_cast<uint64_t>(b),
              static_cast<uint64_t>(a >> 64) ^ x.word[3] ^ key1, static_cast<uint64_t>(a)}};
    }
    return x;
}

// The id of the highest logit, the lowest id of equals; -1 if a logit is NaN or the highest is not finite.
int highest_logit(const float* logits, int padded) {
    Floats best = charloom::load(logits);
    Ints strange = best != best;
    for (int n = LANES; n < padded; n += LANES) {
        Floats x = charloom::load(logits + n);
        strange |= x != x;
        best = x > best ? x : best;
    }
    for (int lane = 0; lane < LANES; lane++)
        if (strange[lane]) return -1;
    float top = highest(best);
    if (!std::isfinite(top)) return -1;
    return static_cast<int>(std::find(logits, logits + padded, top) - logits);
}

}  // namespace

// NumPy increments the counter before it encrypts, so its first block is that of counter 1.
double uniform(uint64_t seed, uint64_t index, uint64_t position) {
    uint64_t raw = philox(position / 4 + 1, seed, index).word[position % 4];
    return static_cast<double>(raw >> 11) * 0x1p-53;
}

History::History(const SamplingParameters& parameters, int vocabulary_size)
    : penalised_(parameters.repetition_penalty != 1 ? parameters.repetition_window : 0),
      capacity_(std::max(penalised_, parameters.no_repeat_ngram_size > 0 ? parameters.ngram_window : 0)),
      counts_(capacity_ ? vocabulary_size : 0) {}

void History::push(int token) {
    if (capacity_ == 0) return;
    tokens_.push_back(token);
    counts_[token]++;
    size_t held = tokens_.size() - begin_;
    if (held > size_t(penalised_)) counts_[tokens_[tokens_.size() - 1 - penalised_]]--;
    if (held > size_t(capacity_)) begin_++;
    if (begin_ < size_t(capacity_)) return;
    tokens_.erase(tokens_.begin(), tokens_.begin() + begin_);
    begin_ = 0;
}

void History::penalise(float* logits, float penalty) const {
    for (size_t id = 0; id < counts_.size(); id++)
        if (counts_[id] > 0) logits[id] = logits[id] < 0 ? logits[id] * penalty : logits[id] / penalty;
}

void History::forbid_ngrams(float* logits, int size) const {
    size_t before = size_t(size) - 1;
    if (tokens_.size() - begin_ < size_t(size)) return;
    auto last = tokens_.end() - before;  // the tokens that a forbidden one would follow
    for (auto start = tokens_.begin() + begin_; start + before != tokens_.end(); start++)
        if (std::equal(last, tokens_.end(), start)) logits[start[before]] = FORBIDDEN;
}

Sampler::Sampler(int vocabulary_size, int padded)
    : vocabulary_size_(vocabulary_size), padded_(padded), scores_(padded), weights_(padded), order_(vocabulary_size) {}

int Sampler::choose(float* logits, const SamplingParameters& parameters, const History& history, int last,
                    double uniform) {
    if (parameters.repetition_penalty != 1) history.penalise(logits, parameters.repetition_penalty);
    if (parameters.no_repeat_ngram_size > 0) history.forbid_ngrams(logits, parameters.no_repeat_ngram_size);
    if (last == parameters.separator && last >= 0) logits[last] = FORBIDDEN;
    for (int id : parameters.suppressed) logits[id] = FORBIDDEN;
    int first = highest_logit(logits, padded_);
    if (first < 0 || parameters.greedy) return first;
    double top = logits[first];
    for (int n = 0; n < padded_; n++) scores_[n] = (static_cast<double>(logits[n]) - top) / parameters.temperature;
    filter(parameters);
    return draw(uniform);
}

void Sampler::log_probabilities(const float* logits, int token, int top, double* logprobs, int32_t* top_ids) {
    double highest = *std::max_element(logits, logits + vocabulary_size_), sum = 0;
    for (int n = 0; n < padded_; n++) scores_[n] = static_cast<double>(logits[n]) - highest;
    exponentials(scores_.data(), weights_.data(), padded_);
    for (int n = 0; n < vocabulary_size_; n++) sum += weights_[n];
    double log_sum = std::log(sum);
    logprobs[0] = scores_[token] - log_sum;
    std::iota(order_.begin(), order_.end(), 0);
    std::partial_sort(order_.begin(), order_.begin() + top, order_.end(),
                      [&](int a, int b) { return scores_[a] != scores_[b] ? scores_[a] > scores_[b] : a < b; });
    for (int n = 0; n < top; n++) {
        top_ids[n] = order_[n];
        logprobs[1 + n] = scores_[order_[n]] - log_sum;
    }
}

void Sampler::filter(const SamplingParameters& parameters) {
    if (parameters.top_k > 0 && parameters.top_k < vocabulary_size_) keep_top_k(parameters.top_k);
    if (parameters.top_p < 1) keep_top_p(parameters.top_p);
    if (parameters.min_log_p > EXCLUDED)
        for (double& score : scores_)
            if (!(score >= parameters.min_log_p)) score = EXCLUDED;
}

void Sampler::keep_top_k(int k) {
    std::copy_n(scores_.begin(), vocabulary_size_, weights_.begin());
    auto edge = weights_.begin() + k - 1;
    std::nth_element(weights_.begin(), edge, weights_.begin() + vocabulary_size_, std::greater<>());
    double least = *edge;
    auto equal = k - std::count_if(scores_.begin(), scores_.begin() + vocabulary_size_,
                                   [&](double score) { return score > least; });
    for (int n = 0; n < vocabulary_size_; n++)
        if (scores_[n] < least || (scores_[n] == least && equal-- <= 0)) scores_[n] = EXCLUDED;
}

void Sampler::keep_top_p(double p) {
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(), [&](int a, int b) { return scores_[a] > scores_[b]; });
    exponentials(scores_.data(), weights_.data(), padded_);
    double total = 0, before = 0;
    for (int id : order_) total += weights_[id];
    for (int id : order_) {
        if (!(before < p * total)) scores_[id] = EXCLUDED;
        before += weights_[id];
    }
}

// The first token whose cumulative weight exceeds the target.
int Sampler::draw(double uniform) {
    exponentials(scores_.data(), weights_.data(), padded_);
    double sum = 0;
    for (int n = 0; n < vocabulary_size_; n++) weights_[n] = sum += weights_[n];
    double target = uniform * sum;
    return static_cast<int>(std::upper_bound(weights_.begin(), weights_.begin() + vocabulary_size_, target) -
                            weights_.begin());
}

}  // namespace charloom::inference
