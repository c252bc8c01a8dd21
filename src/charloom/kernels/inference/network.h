// A network packed for writing: never changed once made, so that threads may share it.

#pragma once

#include <vector>

#include "inference/cells.h"
#include "inference/matrix.h"

namespace charloom::inference {

// A layer's parameters, in PyTorch's layouts and gate order.
struct LayerParameters {
    const float* below;      // [gates * hidden, columns]; null where `start` says what each token gives
    int columns;             // of `below`: the hidden size, or in the first layer that of an entry
    const float* recurrent;  // [gates * hidden, hidden]
    const float* start;      // [starts, gates * hidden]: one row of biases, or a row a token
    int starts;
    const float* new_bias;  // [hidden] of GRU's n gate, else null
};

struct Parameters {
    Cell cell;
    int hidden, vocabulary_size;
    std::vector<LayerParameters> layers;
    const float* head;       // [vocabulary_size, hidden]
    const float* head_bias;  // [vocabulary_size]
    const float* entries;    // [vocabulary_size, columns of the first layer], if it has a matrix below
    int reset;               // the token that is read from the zero state, or -1
};

struct Layer {
    Matrix below, recurrent;
    Buffer<float> start;  // [starts][strip][lane]
    size_t start_size = 0;
    bool start_per_token = false;
    Buffer<float> new_bias;
};

class Network {
public:
    Network(const Parameters& parameters, Precision precision, bool tiles);

    Cell cell;
    int gates, hidden, vocabulary_size;
    Precision precision;
    int reset;           // the token that is read from the zero state, or -1
    int width;           // hidden, padded
    int head_width;      // vocabulary_size, padded
    int entry_size = 0;  // of a token in the first layer; 0 where its start says it all
    std::vector<Layer> layers;
    Matrix head;
    Buffer<float> head_bias;  // -inf behind the last token
    Buffer<float> entries;    // [vocabulary_size][entry_size]

    size_t bytes() const;  // of all matrices: what is read for every character
};

}  // namespace charloom::inference
