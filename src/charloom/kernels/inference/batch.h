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

// The parameters of one row. The row's next token uses random number `position` of the stream (seed, index).
struct Row {
    SamplingParameters sampling;
    uint64_t seed = 0, index = 0, position = 0;
    int token = 0;      // the next step reads it
    int logprobs = -1;  // the number of log-probabilities beside the token's own; -1 for none
    History history;
};

// The computation of one call. S steps, B rows, V vocabulary size, N log-probabilities beside the token's own.
struct Call {
    int steps;
    const int64_t* given = nullptr;  // [B, S]: the tokens to read; null if tokens are generated
    float* logits = nullptr;         // [B, S, V]: the logits after the given tokens; or null
    int64_t* generated = nullptr;    // [B, S]: the tokens; -1 if a row's logits leave none to choose
    double* logprobs = nullptr;      // [B, S, 1 + N]: set if a row asks for them; or null
    int32_t* top_ids = nullptr;      // [B, S, N]
    int top = 0;                     // N
};

// Rows 0 … size - 1. The batch keeps their state between calls.
class DecodingBatch {
public:
    explicit DecodingBatch(const PackedNetwork& network);

    int size() const { return static_cast<int>(rows_.size()); }
    const Row& row(int number) const { return rows_[number]; }

    // Adds a last row with this state: h and, for an LSTM, c, both [L, H].
    void join(Row row, const float* h, const float* c);
    // Removes a row. The last row takes its number.
    void leave(int row);
    void copy_state(int row, float* h, float* c) const;

    // Runs steps on at most `threads` threads. If tokens are generated, ends after a step in which a row has none to
    // choose. Ends after `seconds`, but not before two steps. Returns the number of steps.
    int run(const Call& call, int threads, double seconds);

private:
    struct Values {  // hidden values of a layer after a step: as numbers, and in the matrices' format
        Buffer<float> floats;
        Buffer<uint32_t> words;
    };
    struct Member {                            // the memory of each thread of a team
        Buffer<float> below;                   // sums of one panel; with few rows, of all its panels of a layer
        std::vector<Buffer<float>> recurrent;  // of each layer
        std::vector<int> tokens;               // with one row, every member chooses its token itself
        Buffer<uint32_t> features;
        std::vector<float> logits;  // of one row; sampling changes them
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
    }  // of the values that a step of this call computes
    Values& values(int layer, int parity) { return values_[2 * layer + parity]; }
    const Values& values(int layer, int parity) const { return values_[2 * layer + parity]; }
    BatchView view(int layer, int parity) const;
    Member& reader(int member) { return members_[each_chooses_ ? member : 0]; }

    const PackedNetwork& network_;
    const size_t stride_, word_stride_;  // distance between two rows' values
    std::vector<Row> rows_;
    int capacity_ = 0;
    std::vector<Values> values_;         // [layer][parity]: a step reads the values of the step before
    std::vector<Buffer<float>> memory_;  // [layer]: c
    int first_parity_ = 0;               // of the values that the next call's first step computes
    Buffer<float> logits_;
    std::vector<Member> members_;
    bool few_rows_ = false;      // see FEW_ROWS
    bool each_chooses_ = false;  // with one row, every member chooses its token itself
    int done_ = 0;               // steps of this call
    std::atomic<bool> failed_{false};
    ThreadChoice thread_choice_;
    int thread_choice_rows_ = 0;  // the number of rows for which the choice was learnt, within a factor of two
};

}  // namespace charloom::inference
