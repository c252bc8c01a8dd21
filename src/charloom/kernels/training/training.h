// A network to train, a batch, and the results. `network.h` implements the network.

#pragma once

#include <cstdint>
#include <vector>

#include "cells.h"

namespace charloom {

enum class Input { ONEHOT, EMBEDDING, SCALAR };

struct Architecture {
    Cell cell;
    int layers, hidden, vocabulary_size;
    Input input;
    int input_size;  // of x in the first layer: V for onehot, 1 for scalar

    bool has_table() const { return input == Input::EMBEDDING; }
};

// [L, B, H]. c: of an LSTM only. If both are null, the state is zero, or is not returned.
struct State {
    float *h = nullptr, *c = nullptr;

    State from(size_t offset) const { return {h ? h + offset : nullptr, c ? c + offset : nullptr}; }
};

// Arrays that Python owns.
struct Batch {
    int sequences, steps;
    const int32_t *inputs, *targets;  // [B, T]; a target below 0 means no target
    State state, state_after;         // before the first step; after the last step, written by the forward pass
    // Results of the forward pass for N targets in the order of [B, T]: the loss in nats, and whether the token with
    // the highest logit was the target.
    double* nats;
    bool* correct;
    // Dropout: [T, B, H] between each two layers, then [N, H] before the head. locked: [1, B, H] and [B, H]. Empty
    // without dropout.
    std::vector<const float*> masks;
    bool locked;
};

class TrainingNetwork {
public:
    virtual ~TrainingNetwork() = default;
    // save: whether a backward pass follows.
    virtual void forward(const std::vector<const float*>& parameters, const Batch& batch, bool save) = 0;
    // The gradients of the sum of nats of the last `forward`, whose arrays must still exist. d_state: the gradient of
    // the state after. d_before: receives the gradient of the state before.
    virtual void backward(const std::vector<float*>& gradients, State d_state, State d_before) = 0;
};

}  // namespace charloom
