// What training computes: the network, a batch, and what comes of it. `network.h` does it.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace charloom {

enum class Input { ONEHOT, EMBEDDING, SCALAR };

struct Architecture {
    std::string cell, nonlinearity;
    int layers, hidden, vocabulary_size;
    Input input;
    int embedding;  // numbers that a token enters as: 1 for a scalar

    bool has_table() const { return input == Input::EMBEDDING; }
};

// Arrays that Python holds. masks: [T, B, H] for each place between two layers, then [N, H] before the head, N targets in
// the order of [B, T]. Where they are locked: [1, B, H] and [B, H]. None at all without dropout.
struct Batch {
    int texts, steps;
    const int32_t *inputs, *targets;  // [B, T]; a target below 0 is none
    const float *h, *c;               // [L, B, H] before, or nothing for zero
    std::vector<const float*> masks;
    bool locked;
    float *h_after, *c_after;
};

struct Score {
    double nats = 0;
    int64_t correct = 0;
};

class Network {
public:
    virtual ~Network() = default;
    // scale: of the nats, in the loss that `backward` differentiates; 0 where it will not follow.
    virtual Score forward(const std::vector<const float*>& parameters, const Batch& batch, float scale) = 0;
    // The gradients of the last `forward`, whose arrays must still be there. d_h, d_c: [L, B, H] of the state after, or
    // nothing for zero; d_h_before, d_c_before: of the state before, or nothing where nobody asks.
    virtual void backward(const std::vector<float*>& gradients, const float* d_h, const float* d_c, float* d_h_before,
                          float* d_c_before) = 0;
};

}  // namespace charloom
