// Packs a weight matrix, and splits its products into blocks that fit the registers.

#include "inference/matrix.h"

#include <algorithm>
#include <type_traits>

namespace charloom::inference {
namespace {

Bf16 rounded(float x) {
    uint32_t word;
    std::memcpy(&word, &x, sizeof word);
    return (word + 0x7fff + ((word >> 16) & 1)) >> 16;
}

// Stores weight `column` of a row in its position among the weights that share a word.
template <class Format>
void put_weight(uint32_t* word, int column, float weight, float scale) {
    if constexpr (std::is_same_v<Format, Fp32>) {
        std::memcpy(word, &weight, sizeof weight);
    } else if constexpr (std::is_same_v<Format, Bfloat16>) {
        reinterpret_cast<Bf16*>(word)[column % 2] = rounded(weight);
    } else {
        reinterpret_cast<int8_t*>(word)[column % 4] = static_cast<int8_t>(std::nearbyint(weight / scale));
    }
}

float largest(const float* row, int columns) {
    float found = 0;
    for (int column = 0; column < columns; column++) found = std::max(found, std::fabs(row[column]));
    return found;
}

}  // namespace

PackedMatrix::PackedMatrix(Precision precision, bool tiles, const float* rows, int gates, int units, int columns,
                           int most)
    : precision_(precision), tiles_(tiles) {
    int blocks = padded_width(units) / LANES;
    strips_ = blocks * gates;
    panel_ = most / gates * gates;
    group_ = panel_ > GROUP_STRIPS ? (panel_ + 1) / 2 : panel_;
    columns_ = padded_width(columns) / values_per_word(precision);
    words_.reserve(panels() * groups() * group_words());
    scales_.reserve(size_t(strips_) * LANES);
    added_.reserve(size_t(strips_) * LANES);
    if (precision == Precision::int8)
        pack<Int8>(rows, gates, units, columns);
    else if (precision == Precision::bf16)
        pack<Bfloat16>(rows, gates, units, columns);
    else
        pack<Fp32>(rows, gates, units, columns);
}

template <class Format>
void PackedMatrix::pack(const float* rows, int gates, int units, int columns) {
    for (int gate = 0; gate < gates; gate++)
        for (int unit = 0; unit < units; unit++) {
            const float* row = rows + (size_t(gate) * units + unit) * columns;
            int strip = unit / LANES * gates + gate, lane = unit % LANES;
            float scale = largest(row, columns) / 127;
            if (scale == 0) scale = 1;
            int at = strip % panel_;
            uint32_t* group = words_ + (strip / panel_ * groups() + at / group_) * group_words();
            uint32_t* first = group + at % group_ * LANES + lane;
            for (int column = 0; column < columns; column++)
                put_weight<Format>(first + size_t(column / Format::PER_WORD) * group_ * LANES, column, row[column],
                                   scale);
            if constexpr (std::is_same_v<Format, Int8>) {
                int32_t sum = 0;
                for (int column = 0; column < columns; column++)
                    sum += static_cast<int32_t>(std::nearbyint(row[column] / scale));
                scales_[strip * LANES + lane] = scale * Int8::VALUE;
                added_[strip * LANES + lane] = sum * Int8::OFFSET;
            }
        }
}

namespace {

// The strips of one group for BATCH_ROWS rows of a batch.
template <class Format, int BATCH_ROWS, int STRIPS = GROUP_STRIPS>
void across(const PanelView& group, int strips, const BatchView& batch, float* sums, size_t sums_between, Piece piece) {
    if (strips == STRIPS) return multiply<Format, 1, STRIPS, BATCH_ROWS>(group, batch, sums, sums_between, piece);
    if constexpr (STRIPS > 1) across<Format, BATCH_ROWS, STRIPS - 1>(group, strips, batch, sums, sums_between, piece);
}

// The same for all rows.
template <class Format>
void down(const PanelView& group, int strips, const BatchView& batch, int count, float* sums, size_t sums_between,
          Piece piece) {
    int b = 0;
    auto some = [&]<int BATCH_ROWS>(std::integral_constant<int, BATCH_ROWS>) {
        for (; b + BATCH_ROWS <= count; b += BATCH_ROWS)
            across<Format, BATCH_ROWS>(group, strips, {batch.words + b * batch.between, batch.between},
                                       sums + b * sums_between, sums_between, piece);
    };
    constexpr int MOST = MOST_BATCH_ROWS<Format>;
    some(std::integral_constant<int, MOST>{});
    if constexpr (MOST > 4) some(std::integral_constant<int, 4>{});
    some(std::integral_constant<int, 2>{});
    some(std::integral_constant<int, 1>{});
}

// A piece of columns after the other.
template <class Format>
void by_pieces(const PanelView& group, int strips, const BatchView& batch, int count, float* sums,
               size_t sums_between) {
    if (!IN_PIECES || count <= MOST_BATCH_ROWS<Format>)
        return down<Format>(group, strips, batch, count, sums, sums_between, {});
    int length = PIECE_WORDS / group.between;
    for (int column = 0; column < group.columns; column += length) {
        PanelView piece = group;
        piece.words += size_t(column) * group.between;
        piece.columns = std::min(length, group.columns - column);
        down<Format>(piece, strips, {batch.words + column, batch.between}, count, sums, sums_between,
                     {column == 0, column + length >= group.columns});
    }
}

}  // namespace

PanelView PackedMatrix::view(int panel) const {
    int strip = first_strip(panel);
    return {words_ + panel * groups() * group_words(),
            group_words(),
            group_ * LANES,
            columns_,
            scales_ + strip * LANES,
            added_ + strip * LANES};
}

template <class Format>
void PackedMatrix::times_in(const BatchView& batch, int count, int panel, float* sums, size_t sums_between) const {
    PanelView rest = view(panel);
    int left = strips(panel);
    if (count == 1 && left == 2 * group_) {  // the sums of one group would be too few chains
        if (group_ == 4) return multiply<Format, 2, 4, 1>(rest, batch, sums, sums_between);
        if (group_ == 3) return multiply<Format, 2, 3, 1>(rest, batch, sums, sums_between);
    }
    for (; left > 0; left -= group_) {
        by_pieces<Format>(rest, std::min(left, group_), batch, count, sums, sums_between);
        rest.words += rest.apart;
        rest.scales += group_ * LANES;
        rest.added += group_ * LANES;
        sums += group_ * LANES;
    }
}

void PackedMatrix::times(const BatchView& batch, int count, int panel, float* sums, size_t sums_between) const {
#if defined(__AMX_INT8__)
    if (precision_ == Precision::int8 && tiles_ && ByTiles::fit(columns_, count))
        return ByTiles::multiply(view(panel), strips(panel), batch, count, sums, sums_between);
#endif
    if (precision_ == Precision::int8)
        times_in<Int8>(batch, count, panel, sums, sums_between);
    else if (precision_ == Precision::bf16)
        times_in<Bfloat16>(batch, count, panel, sums, sums_between);
    else
        times_in<Fp32>(batch, count, panel, sums, sums_between);
}

}  // namespace charloom::inference
