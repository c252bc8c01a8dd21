// A weight matrix packed for inference, in any precision.

#pragma once

#include <algorithm>

#include "buffer.h"
#include "inference/product.h"

namespace charloom::inference {

enum class Precision { fp32, bf16, int8 };

constexpr int WIDTH_GRAIN = 16;  // hidden units are padded with zeros to a multiple: for any vectors and whole words

constexpr int padded_width(int units) { return (units + WIDTH_GRAIN - 1) / WIDTH_GRAIN * WIDTH_GRAIN; }

// PyTorch's [gates * units, columns] as strips: those of one block of LANES units, gate after gate, then the next
// block's. A panel has whole blocks, with at most `most` strips.
class PackedMatrix {
public:
    PackedMatrix() = default;
    // tiles: whether AMX may multiply many rows of a batch.
    PackedMatrix(Precision precision, bool tiles, const float* rows, int gates, int units, int columns,
                 int most = MOST_STRIPS);

    explicit operator bool() const { return strips_ > 0; }
    int panels() const { return (strips_ + panel_ - 1) / panel_; }
    int strips(int panel) const { return std::min(panel_, strips_ - panel * panel_); }
    int first_strip(int panel) const { return panel * panel_; }
    size_t bytes() const { return size_t(strips_) * LANES * columns_ * sizeof(uint32_t); }

    // sums[b][strip][lane] of one panel. `sums_between` is the distance between the sums of two batch rows.
    void times(const BatchView& batch, int count, int panel, float* sums, size_t sums_between) const;

private:
    template <class Format>
    void pack(const float* rows, int gates, int units, int columns);
    size_t group_words() const { return size_t(group_) * LANES * columns_; }
    int groups() const { return (panel_ + group_ - 1) / group_; }
    PanelView view(int panel) const;
    template <class Format>
    void times_in(const BatchView& batch, int count, int panel, float* sums, size_t sums_between) const;

    Precision precision_ = Precision::fp32;
    bool tiles_ = false;
    int strips_ = 0, panel_ = 1, group_ = 1;  // number of strips: in all, in one panel, in one group
    int columns_ = 0;                         // counted in words
    Buffer<uint32_t> words_;                  // [panel][group][column][strip][lane]
    Buffer<float> scales_;                    // for Int8: scale of a row's weights times the values' scale
    Buffer<int32_t> added_;                   // for Int8: what the values' offset adds to a row's sum
};

// Stores LANES hidden values of a batch row in the format that matrices of a precision read.
inline void put_values(Precision precision, uint32_t* to, int unit, Floats h) {
    if (precision == Precision::int8)
        Int8::put(to, unit, h);
    else if (precision == Precision::bf16)
        Bfloat16::put(to, unit, h);
    else
        Fp32::put(to, unit, h);
}

constexpr int values_per_word(Precision precision) {
    return precision == Precision::int8 ? 4 : precision == Precision::bf16 ? 2 : 1;
}

// The words of a batch row with `width` hidden values.
constexpr int row_words(Precision precision, int width) {
    int columns = width / values_per_word(precision);
    return precision == Precision::int8 ? Int8::word(columns) : columns;
}

}  // namespace charloom::inference
