// A weight matrix packed for inference, in any precision.

#pragma once

#include <algorithm>

#include "buffer.h"
#include "inference/product.h"

namespace charloom::inference {

enum class Precision { fp32, bf16, int8 };

constexpr int WIDTH_GRAIN = 16;  // hidden units are padded with zeros to a multiple: a vector of any width, whole words

constexpr int padded_width(int units) { return (units + WIDTH_GRAIN - 1) / WIDTH_GRAIN * WIDTH_GRAIN; }

// [gates * units, columns] of PyTorch's, as strips: those of one block of LANES units, gate after gate, then the next
// block's. A panel holds whole blocks, of at most `most` strips.
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

    // sums[b][strip][lane] of one panel; the sums of two batch rows lie `sums_between` apart.
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
    int strips_ = 0, panel_ = 1, group_ = 1;  // all of them; in one panel, in one group
    int columns_ = 0;                         // counted in words
    Buffer<uint32_t> words_;                  // [panel][group][column][strip][lane]
    Buffer<float> scales_;                    // of a row's weights and the values, for Int8
    Buffer<int32_t> added_;                   // to a row's sum by the values' offset, for Int8
};

// LANES hidden values of a batch row in the form in which matrices of a precision take them.
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

}  // namespace charloom::inference
