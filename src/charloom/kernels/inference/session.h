// Texts in the making: steps of a network for several texts side by side, by a team of threads.

#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "inference/network.h"
#include "inference/sampling.h"
#include "threads/pool.h"
#include "threads/range.h"

namespace charloom::inference {

// What is asked of one call. B texts, L layers, H hidden units, V vocabulary size, S steps.
struct Task {
    int texts;
    int steps;              // at most
    double seconds;         // after which it ends, after two steps at least
    float *h, *c;           // [L, B, H]: the state, changed; c for LSTM only
    int64_t* ids;           // [B]: the token that each text reads first, then the one it is to read next
    const int64_t* forced;  // [B, S]: what is read, instead; or null
    float* logits;          // [B, S, V]: what came of it; or null
    int64_t* chosen;        // [B, S]: what is written; null where everything is forced
    const Sampling* sampling;
    uint64_t seed, position;    // of the first random number
    const uint64_t* sequences;  // [B]
};

struct Outcome {
    int steps;    // done
    bool failed;  // whether the next one's logits left nothing to choose
};

class Session {
public:
    Session(const Network& network, const Task& task, int members);

    // Some threads go so many steps further; returns how many they were: `run_team`.
    int advance(int threads, int steps);

    Outcome outcome() const { return {done_, failed_.load()}; }
    void hand_back() const;  // the state and the tokens to be read next

private:
    struct Values {  // of a layer after a step: as numbers, and as its readers take them
        Buffer<float> numbers;
        Buffer<uint32_t> words;
    };
    struct Member {           // what each thread has for itself
        Buffer<float> below;  // sums of one panel, or where `few_texts_`, of all that it has of a layer
        std::vector<Buffer<float>> recurrent;  // of each layer
        std::vector<int> ids;                  // of one text, which every member chooses for itself
        Buffer<uint32_t> entries;
        std::vector<float> logits;  // a text's, to be changed
        std::unique_ptr<Sampler> sampler;
    };

    void load_state();
    void steps(int member, Team& team, int first, int end);
    void times(const Matrix& matrix, const TextsView& texts, Range panels, bool backwards, float* sums) const;
    void run_ahead(int member, int members, int step, int number);
    void run_layer(int member, int members, int step, int number, bool ahead);
    void run_panels(int member, int step, int number, Range panels, bool ahead);
    void run_head(int member, int members, int step);
    void read_forced(int member, Team& team, int step);
    bool choose(int member, Team& team, int step);
    void choose_one(int member, int step, int text);
    void read(Member& by, int text, int token);
    void put(int layer, int parity, int text, int unit, Floats h);
    Values& values(int layer, int parity) { return values_[2 * layer + parity]; }
    TextsView view(int layer, int parity);
    Member& reader(int member) { return members_[task_.texts == 1 ? member : 0]; }

    const Network& network_;
    const Task& task_;
    const bool few_texts_;               // so that the order in which weights are read decides
    size_t stride_, word_stride_;        // from one text's values to the next
    std::vector<Values> values_;         // [layer][parity of the step]: a step reads what the one before wrote
    std::vector<Buffer<float>> memory_;  // [layer]: c
    Buffer<float> logits_;
    std::vector<Member> members_;
    int done_ = 0;
    std::atomic<bool> failed_{false};
};

}  // namespace charloom::inference
