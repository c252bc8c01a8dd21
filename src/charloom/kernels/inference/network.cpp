// Packs a network's parameters.

#include "inference/network.h"

#include <limits>

namespace charloom::inference {
namespace {

// Rows of [gates * hidden] numbers as [strip][lane].
void pack_table(const LayerParameters& from, int gates, int hidden, PackedLayer& to) {
    to.table_width = size_t(gates) * padded_width(hidden);
    to.table_per_token = from.table_rows > 1;
    to.table.reserve(from.table_rows * to.table_width);
    for (int row = 0; row < from.table_rows; row++)
        for (int gate = 0; gate < gates; gate++)
            for (int unit = 0; unit < hidden; unit++)
                to.table[row * to.table_width + (size_t(unit / LANES) * gates + gate) * LANES + unit % LANES] =
                    from.table[(size_t(row) * gates + gate) * hidden + unit];
}

void copy(const float* from, size_t count, Buffer<float>& to, size_t capacity) {
    to.reserve(capacity);
    std::memcpy(to.get(), from, count * sizeof(float));
}

}  // namespace

PackedNetwork::PackedNetwork(const Parameters& from, Precision precision, bool tiles)
    : cell(from.cell), gates(gates_of(from.cell)), hidden(from.hidden), vocabulary_size(from.vocabulary_size),
      precision(precision), reset_id(from.reset_id), width(padded_width(from.hidden)),
      head_width(padded_width(from.vocabulary_size)), layers(from.layers.size()) {
    for (size_t n = 0; n < layers.size(); n++) {
        const LayerParameters& given = from.layers[n];
        PackedLayer& layer = layers[n];
        // the first layer's input is not bounded like hidden values, and its product is small
        Precision below = n == 0 ? Precision::fp32 : precision;
        if (given.below) layer.below = PackedMatrix(below, tiles, given.below, gates, hidden, given.columns);
        layer.recurrent = PackedMatrix(precision, tiles, given.recurrent, gates, hidden, hidden);
        pack_table(given, gates, hidden, layer);
        if (given.hidden_bias) copy(given.hidden_bias, hidden, layer.hidden_bias, width);
    }
    // panels small enough that two threads share a small vocabulary's head
    int panel = std::max(1, std::min(MOST_STRIPS, (head_width / LANES + 1) / 2));
    head = PackedMatrix(precision, tiles, from.head, 1, vocabulary_size, hidden, panel);
    copy(from.head_bias, vocabulary_size, head_bias, head_width);
    std::fill(head_bias + vocabulary_size, head_bias + head_width, -std::numeric_limits<float>::infinity());
    if (from.features) {
        feature_size = from.layers[0].columns;
        copy(from.features, size_t(vocabulary_size) * feature_size, features, size_t(vocabulary_size) * feature_size);
    }
}

size_t PackedNetwork::bytes() const {
    size_t total = head.bytes();
    for (const PackedLayer& layer : layers) total += layer.below.bytes() + layer.recurrent.bytes();
    return total;
}

}  // namespace charloom::inference
