// From a row's logits to its next token. NumPy twin: inference/sampling.py, with the same order of every sum.

#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace charloom::inference {

// The sampling parameters of one row. A filter that is off has the value that lets all tokens through.
struct SamplingParameters {
    double temperature = 1;
    int top_k = 0;                                                // 0 is off
    double top_p = 1;                                             // 1 is off
    double min_log_p = -std::numeric_limits<double>::infinity();  // ln of min_p; -inf is off
    bool greedy = false;
    float repetition_penalty = 1;  // 1 is off
    int repetition_window = 0;     // the number of last tokens that the penalty uses
    int no_repeat_ngram_size = 0;  // 0 is off
    int ngram_window = 0;          // the number of last tokens in which n-grams are searched
    std::vector<int> suppressed;   // ids that are never generated
    int separator = -1;            // an id that never follows itself

    bool needs_history() const { return repetition_penalty != 1 || no_repeat_ngram_size > 0; }
};

// The last tokens of a row, as many as its filters use.
class History {
public:
    History() = default;
    History(const SamplingParameters& parameters, int vocabulary_size);

    void push(int token);

    // Divides positive logits of the tokens in the repetition window by the penalty, and multiplies negative ones by it
    // (Keskar et al. 2019).
    void penalise(float* logits, float penalty) const;

    // Forbids each token that would repeat a sequence of `size` tokens of this history (Paulus et al. 2017).
    void forbid_ngrams(float* logits, int size) const;

private:
    int penalised_ = 0, capacity_ = 0;  // numbers of last tokens: penalised, and stored
    std::vector<int> tokens_;           // the oldest one at begin_; at most twice the capacity
    size_t begin_ = 0;
    std::vector<int> counts_;  // [V]: how often each token is among the penalised tokens
};

// Number `position` of a random stream, in [0, 1): NumPy's Philox-4x64 under the key (seed, index).
double uniform(uint64_t seed, uint64_t index, uint64_t position);

// Chooses tokens. It has only working memory; each thread needs its own.
class Sampler {
public:
    // `padded`: the number of logits, a multiple of LANES, at least the vocabulary size. The last ones are -inf.
    Sampler(int vocabulary_size, int padded);

    // The next token after `last`, or -1 if the logits leave no finite one. Changes logits.
    int choose(float* logits, const SamplingParameters& parameters, const History& history, int last, double uniform);

    // ln softmax(logits)[token] in logprobs[0], then the `top` highest in logprobs[1…], and their ids. Of equals, the
    // lowest id is first.
    void log_probabilities(const float* logits, int token, int top, double* logprobs, int32_t* top_ids);

private:
    void filter(const SamplingParameters& parameters);
    void keep_top_k(int k);
    void keep_top_p(double p);
    int draw(double uniform);

    int vocabulary_size_, padded_;
    std::vector<double> scores_, weights_;
    std::vector<int> order_;
};

}  // namespace charloom::inference
