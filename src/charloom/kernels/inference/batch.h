// Sequences side by side: their recurrent state, and steps of the network for all of them by a team of threads.

#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "inference/network.h"
#include "inference/sampling.h"
#include "inference/thread_choice.h"
#include "threads/pool.h"
#include "threads/range.h"

namespace charloom::inference {

// What belongs to one row. The row's next token takes random number `position` of the stream (seed, index).
struct Row {
    SamplingParameters sampling;
    uint64_t seed = 0, index = 0, position = 0;
    int token = 0;      // is read next
    int logprobs = -1;  // how many log-probabilities are wanted beside that of the token; -1 for none at all
    History history;
};

// What one call computes. S steps, B rows, V vocabulary size, N log-probabilities beside that of the token.
struct Call {
    int steps;
    const int64_t* given = nullptr;  // [B, S]: the tokens that are read; null where tokens are generated
    float* logits = nullptr;         // [B, S, V]: what came of the given ones; or null
    int64_t* generated = nullptr;    // [B, S]: the tokens, -1 where a row's logits leave none to choose
    double* logprobs = nullptr;      // [B, S, 1 + N], set as far as a row asks for them; or null
    int32_t* top_ids = nullptr;      // [B, S, N]
    int top = 0;                     // N
};

// Rows 0 … size - 1. Their state stays here from call to call.
class DecodingBatch {
public:
    explicit DecodingBatch(const PackedNetwork& network);

    int size() const { return static_cast<int>(rows_.size()); }
    const Row& row(int number) const { return rows_[number]; }

    // A new last row, with this state: h and, for an LSTM, c, both [L, H].
    void join(Row row, const float* h, const float* c);
    // The last row takes the number of the one that leaves.
    void leave(int row);
    void copy_state(int row, float* h, float* c) const;

    // At most so many threads go so many steps, or, of generated tokens, to the step in which a row has none to choose.
    // Ends after so many seconds, but not before two steps. Returns how many steps were done.
    int run(const Call& call, int threads, double seconds);

private:
    struct Values {  // hidden values of a layer after a step: as numbers, and as matrices take them
        Buffer<float> floats;
        Buffer<uint32_t> words;
    };
    struct Member {           // what each thread of a team has for itself
        Buffer<float> below;  // sums of one panel, or, of few rows, of all panels that it has of a layer
        std::vector<Buffer<float>> recurrent;  // of each layer
        std::vector<int> tokens;               // of one row, whose token every member chooses for itself
        Buffer<uint32_t> features;
        std::vector<float> logits;  // of one row, to be changed
        std::unique_ptr<Sampler> sampler;
    };

    void grow(int rows);
    void prepare(int threads);
    int advance(const Call& call, int threads, int first, int count);
    void finish(int steps);
    void steps(const Call& call, int member, Team& team, int first, int end);
    void times(const PackedMatrix& matrix, const BatchView& batch, Range panels, bool backwards, float* sums) const;
    void run_ahead(int member, int members, int step, int number);
    void run_layer(int member, int members, int step, int number, bool ahead);
    void run_panels(int member, int step, int number, Range panels, bool ahead);
    void run_head(const Call& call, int member, int members, int step);
    void read_given(const Call& call, int member, Team& team, int step);
    bool choose(const Call& call, int member, Team& team, int step);
    void choose_one(const Call& call, int member, int step, int row);
    void read(Member& by, int row, int token);
    void put(int layer, int parity, int row, int unit, Floats h);
    int parity_of(int step) const {
        return (step + first_parity_) % 2;
    }  // of the values that a step of this call makes
    Values& values(int layer, int parity) { return values_[2 * layer + parity]; }
    const Values& values(int layer, int parity) const { return values_[2 * layer + parity]; }
    BatchView view(int layer, int parity) const;
    Member& reader(int member) { return members_[each_chooses_ ? member : 0]; }

    const PackedNetwork& network_;
    const size_t stride_, word_stride_;  // from one row's values to the next row's
    std::vector<Row> rows_;
    int capacity_ = 0;
    std::vector<Values> values_;         // [layer][parity]: a step reads what the step before made
    std::vector<Buffer<float>> memory_;  // [layer]: c
    int first_parity_ = 0;               // of the values that the next call's first step makes
    Buffer<float> logits_;
    std::vector<Member> members_;
    bool few_rows_ = false;      // so that the order in which weights are read decides
    bool each_chooses_ = false;  // one row: every member chooses its token, which costs less than another barrier
    int done_ = 0;               // steps of this call
    std::atomic<bool> failed_{false};
    ThreadChoice thread_choice_;
    int thread_choice_rows_ = 0;  // about how many rows it was learnt with
};

}  // namespace charloom::inference
