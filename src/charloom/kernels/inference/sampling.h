// From a text's logits to its next token: the twin of inference/sampling.py, to the order of every sum.

#pragma once

#include <cstdint>
#include <vector>

namespace charloom::inference {

// What inference/sampling.py calls `Sampling`, with every filter that is off at the value that lets all through.
struct Sampling {
    double temperature = 1;
    int top_k = 0;     // 0 is off
    double top_p = 1;  // 1 is off
    double floor;      // ln of min_p; -inf is off
    bool likeliest = false;
    std::vector<int> never;  // ids that are not written
    int separator = -1;      // an id that never follows itself
};

// Number `position` of a sequence, in [0, 1): NumPy's Philox-4x64 under the key (seed, sequence).
double uniform(uint64_t seed, uint64_t sequence, uint64_t position);

// Chooses tokens; what it computes with is kept between one and the next. A thread needs one of its own.
class Sampler {
public:
    // `padded` is a multiple of LANES, at least the vocabulary size: logits has as many, the last of them -inf.
    Sampler(const Sampling& sampling, int vocabulary_size, int padded);

    // The next token after `before`, or -1 where the logits leave no finite one. Changes logits.
    int choose(float* logits, int before, double uniform);

private:
    void filter();
    void keep_top_k();
    void keep_top_p();
    int draw(double uniform);

    const Sampling& sampling_;
    int vocabulary_size_, padded_;
    std::vector<double> scores_, weights_;
    std::vector<int> order_;
};

}  // namespace charloom::inference
