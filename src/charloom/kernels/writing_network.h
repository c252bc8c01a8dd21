// A network packed for writing: never changed once made, so that threads may share it.

#pragma once

#include <vector>

#include "writing_cells.h"
#include "writing_matrix.h"

namespace charloom::writing {

// A layer's parameters, in PyTorch's layouts and gate order.
struct LayerParameters {
    const float* below;      // [gates * hidden, columns]; null where `start` says what each symbol gives
    int columns;             // of `below`: the hidden size, or in the first layer that of an entry
    const float* recurrent;  // [gates * hidden, hidden]
    const float* start;      // [starts, gates * hidden]: one row of biases, or a row a symbol
    int starts;
    const float* new_bias;  // [hidden] of GRU's n gate, else null
};

struct Parameters {
    Cell cell;
    int hidden, symbols;
    std::vector<LayerParameters> layers;
    const float* head;       // [symbols, hidden]
    const float* head_bias;  // [symbols]
    const float* entries;    // [symbols, columns of the first layer], if it has a matrix below
    int reset;               // the symbol that is read from the zero state, or -1
};

struct Layer {
    Matrix below, recurrent;
    Buffer<float> start;  // [starts][strip][lane]
    size_t start_size = 0;
    bool a_start_a_symbol = false;
    Buffer<float> new_bias;
};

class Network {
public:
    Network(const Parameters& parameters, Precision precision, bool tiles);

    Cell cell;
    int gates, hidden, symbols;
    Precision precision;
    int reset;           // the symbol that is read from the zero state, or -1
    int width;           // hidden, padded
    int head_width;      // symbols, padded
    int entry_size = 0;  // of a symbol in the first layer; 0 where its start says it all
    std::vector<Layer> layers;
    Matrix head;
    Buffer<float> head_bias;  // -inf behind the last symbol
    Buffer<float> entries;    // [symbols][entry_size]

    size_t bytes() const;  // of all matrices: what is read for every character
};

}  // namespace charloom::writing
