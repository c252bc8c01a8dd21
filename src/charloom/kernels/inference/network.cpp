// Packing a network's parameters.

#include "inference/network.h"

#include <limits>

namespace charloom::inference {
namespace {

// Rows of [gates * hidden] numbers as [strip][lane].
void pack_start(const LayerParameters& from, int gates, int hidden, Layer& to) {
    to.start_size = size_t(gates) * padded_width(hidden);
    to.start_per_token = from.starts > 1;
    to.start.reserve(from.starts * to.start_size);
    for (int row = 0; row < from.starts; row++)
        for (int gate = 0; gate < gates; gate++)
            for (int unit = 0; unit < hidden; unit++)
                to.start[row * to.start_size + (size_t(unit / LANES) * gates + gate) * LANES + unit % LANES] =
                    from.start[(size_t(row) * gates + gate) * hidden + unit];
}

void copy(const float* from, size_t count, Buffer<float>& to, size_t room) {
    to.reserve(room);
    std::memcpy(to.get(), from, count * sizeof(float));
}

}  // namespace

Network::Network(const Parameters& from, Precision precision, bool tiles)
    : cell(from.cell), gates(gates_of(from.cell)), hidden(from.hidden), vocabulary_size(from.vocabulary_size),
      precision(precision), reset(from.reset), width(padded_width(from.hidden)),
      head_width(padded_width(from.vocabulary_size)), layers(from.layers.size()) {
    for (size_t n = 0; n < layers.size(); n++) {
        const LayerParameters& given = from.layers[n];
        Layer& layer = layers[n];
        // what enters the first layer is not bounded as hidden values are, and its product is small
        Precision below = n == 0 ? Precision::fp32 : precision;
        if (given.below) layer.below = Matrix(below, tiles, given.below, gates, hidden, given.columns);
        layer.recurrent = Matrix(precision, tiles, given.recurrent, gates, hidden, hidden);
        pack_start(given, gates, hidden, layer);
        if (given.new_bias) copy(given.new_bias, hidden, layer.new_bias, width);
    }
    // panels small enough that two threads share a small vocabulary's head
    int panel = std::max(1, std::min(MOST_STRIPS, (head_width / LANES + 1) / 2));
    head = Matrix(precision, tiles, from.head, 1, vocabulary_size, hidden, panel);
    copy(from.head_bias, vocabulary_size, head_bias, head_width);
    std::fill(head_bias + vocabulary_size, head_bias + head_width, -std::numeric_limits<float>::infinity());
    if (from.entries) {
        entry_size = from.layers[0].columns;
        copy(from.entries, size_t(vocabulary_size) * entry_size, entries, size_t(vocabulary_size) * entry_size);
    }
}

size_t Network::bytes() const {
    size_t total = head.bytes();
    for (const Layer& layer : layers) total += layer.below.bytes() + layer.recurrent.bytes();
    return total;
}

}  // namespace charloom::inference
