// A network packed for inference. It never changes once made, so threads may share it.

#pragma once

#include <vector>

#include "inference/cells.h"
#include "inference/matrix.h"

namespace charloom::inference {

// A layer's parameters, in PyTorch's layouts and gate order.
struct LayerParameters {
    const float* below;      // [gates * hidden, columns]; null if `table` has a row for each token
    int columns;             // of `below`: the hidden size, or in the first layer the size of a token's features
    const float* recurrent;  // [gates * hidden, hidden]
    const float* table;      // [table_rows, gates * hidden]: one row of biases, or a row for each token
    int table_rows;
    const float* hidden_bias;  // [hidden] of GRU's n gate, else null
};

struct Parameters {
    Cell cell;
    int hidden, vocabulary_size;
    std::vector<LayerParameters> layers;
    const float* head;       // [vocabulary_size, hidden]
    const float* head_bias;  // [vocabulary_size]
    const float* features;   // [vocabulary_size, columns of the first layer]; null if it has no `below`
    int reset_id;            // the token that is read from the zero state, or -1
};

struct PackedLayer {
    PackedMatrix below, recurrent;
    Buffer<float> table;  // [table_rows][strip][lane]
    size_t table_width = 0;
    bool table_per_token = false;
    Buffer<float> hidden_bias;
};

class PackedNetwork {
public:
    PackedNetwork(const Parameters& parameters, Precision precision, bool tiles);

    Cell cell;
    int gates, hidden, vocabulary_size;
    Precision precision;
    int reset_id;          // the token that is read from the zero state, or -1
    int width;             // hidden, padded
    int head_width;        // vocabulary_size, padded
    int feature_size = 0;  // of a token in the first layer; 0 if the table has a row for each token
    std::vector<PackedLayer> layers;
    PackedMatrix head;
    Buffer<float> head_bias;  // -inf after the last token
    Buffer<float> features;   // [vocabulary_size][feature_size]

    size_t bytes() const;  // of all matrices: every step reads them
};

}  // namespace charloom::inference
