// Packs a weight matrix, and splits its products into blocks that fit the registers.

#include "inference/matrix.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "threads/range.h"

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
        reinterpret_cast<int8_t*>(word)[column % 4] =
            static_cast<int8_t>(std::nearbyint(weight / scale) + Int8::WEIGHT_OFFSET);
    }
}

float largest(const float* row, int columns) {
    float found = 0;
    for (int column = 0; column < columns; column++) found = std::max(found, std::fabs(row[column]));
    return found;
}

// Whether the whole numbers of a row fit 7 bits, and the sums of each stage 16 bits.
bool fits(const float* row, int columns, float scale) {
    constexpr int STAGE_COLUMNS = Int8::STAGE * Int8::PER_WORD;
    for (int first = 0; first < columns; first += STAGE_COLUMNS) {
        float half[2] = {};  // VPMADDUBSW adds the first two columns of a word, and the last two
        for (int column = first; column < std::min(columns, first + STAGE_COLUMNS); column++) {
            float weight = std::nearbyint(std::fabs(row[column]) / scale);
            if (weight > Int8::MOST_WEIGHT) return false;
            half[column / 2 % 2] += weight;
        }
        if (std::max(half[0], half[1]) > Int8::MOST_STAGE) return false;
    }
    return true;
}

// The value of a weight of 1 in a row: the same for all processors.
float row_scale(const float* row, int columns) {
    float scale = largest(row, columns) / Int8::MOST_WEIGHT;
    if (scale < std::numeric_limits<float>::min()) return 1;  // a subnormal number would not grow by 2%
    while (!fits(row, columns, scale)) scale *= 1.02f;
    return scale;
}

}  // namespace

PackedMatrix::PackedMatrix(Precision precision, bool tiles, const float* rows, int gates, int units, int columns,
                           int most)
    : precision_(precision), tiles_(tiles) {
    int blocks = padded_width(units) / LANES;
    strips_ = blocks * gates;
    panel_ = most / gates * gates;
    int least_groups = (panel_ + GROUP_STRIPS - 1) / GROUP_STRIPS;
    group_ = (panel_ + least_groups - 1) / least_groups;
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
            float scale = 1;
            if constexpr (std::is_same_v<Format, Int8>) scale = row_scale(row, columns);
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

// Rows of a batch and groups of strips that are multiplied together.
template <class Format, int GROUPS, int STRIPS, int BATCH_ROWS>
void block(const PanelView& panel, const BatchView& batch, float* sums, size_t sums_between, Piece piece) {
    if constexpr (Format::IN_STAGES)
        multiply_in_stages<Format, GROUPS, STRIPS, BATCH_ROWS>(panel, batch, sums, sums_between, piece);
    else
        multiply<Format, GROUPS, STRIPS, BATCH_ROWS>(panel, batch, sums, sums_between, piece);
}

// The strips of one group for BATCH_ROWS rows of a batch.
template <class Format, int BATCH_ROWS, int STRIPS = GROUP_STRIPS>
void across(const PanelView& group, int strips, const BatchView& batch, float* sums, size_t sums_between, Piece piece) {
    if (strips == STRIPS) return block<Format, 1, STRIPS, BATCH_ROWS>(group, batch, sums, sums_between, piece);
    if constexpr (STRIPS > 1) across<Format, BATCH_ROWS, STRIPS - 1>(group, strips, batch, sums, sums_between, piece);
}

// The same for `count` rows, a number that is known only now.
template <class Format, int BATCH_ROWS = Format::BATCH_ROWS>
void together(const PanelView& group, int strips, const BatchView& batch, int count, float* sums, size_t sums_between,
              Piece piece) {
    if (count == BATCH_ROWS) return across<Format, BATCH_ROWS>(group, strips, batch, sums, sums_between, piece);
    if constexpr (BATCH_ROWS > 1)
        together<Format, BATCH_ROWS - 1>(group, strips, batch, count, sums, sums_between, piece);
}

// The least number of blocks that share the prefetch of a piece. With 8, each asks for 32 lines; with 3 blocks of 85 lines
// each, generation of 16 sequences took 1.13 times as long.
constexpr int PREFETCH_BLOCKS = 8;

// Asks for weights from the third-level cache. The processor itself looks ahead only to the end of a page.
void prefetch(const uint32_t* from, Range words) {
    constexpr int LINE_WORDS = 16, INTO_SECOND_LEVEL = 2;
    for (int word = words.first; word < words.last; word += LINE_WORDS)
        __builtin_prefetch(from + word, 0, INTO_SECOND_LEVEL);
}

// All rows, in blocks of nearly equal size. Each of many blocks asks for a share of the next piece, which follows this one
// in memory.
template <class Format>
void down(const PanelView& group, int strips, const BatchView& batch, int count, float* sums, size_t sums_between,
          Piece piece) {
    int blocks = (count + Format::BATCH_ROWS - 1) / Format::BATCH_ROWS, words = group.columns * group.between;
    for (int n = 0; n < blocks; n++) {
        Range rows = Range::of(count, n, blocks);
        if (IN_PIECES && blocks >= PREFETCH_BLOCKS) prefetch(group.words + words, Range::of(words, n, blocks));
        together<Format>(group, strips, {batch.words + rows.first * batch.between, batch.between}, rows.count(),
                         sums + rows.first * sums_between, sums_between, piece);
    }
}

// A piece of columns after the other.
template <class Format>
void by_pieces(const PanelView& group, int strips, const BatchView& batch, int count, float* sums,
               size_t sums_between) {
    if (!IN_PIECES || count <= Format::BATCH_ROWS)
        return down<Format>(group, strips, batch, count, sums, sums_between, {});
    int length = PIECE_WORDS / group.between;
    for (int column = 0; column < group.columns; column += length) {
        PanelView piece = group;
        piece.words += size_t(column) * group.between;
        piece.columns = std::min(length, group.columns - column);
        down<Format>(piece, strips, {batch.words + Format::word(column), batch.between}, count, sums, sums_between,
                     {column == 0, column + length >= group.columns});
    }
}

// Several full groups by one row, or by a few, because the sums of one group are too few chains. Returns how many groups
// it multiplied; 0 means that each group goes alone.
template <class Format>
int several(const PanelView& panel, int groups, const BatchView& batch, int count, float* sums, size_t sums_between) {
    auto some = [&]<int GROUPS, int STRIPS, int BATCH_ROWS>() {
        if (groups < GROUPS || panel.between != STRIPS * LANES || count != BATCH_ROWS) return 0;
        block<Format, GROUPS, STRIPS, BATCH_ROWS>(panel, batch, sums, sums_between, {});
        return GROUPS;
    };
    int done = 0;
    if constexpr (GROUP_STRIPS == 4) {
        (done = some.template operator()<2, 4, 1>()) || (done = some.template operator()<2, 3, 1>());
    } else {
        (done = some.template operator()<4, 2, 1>()) || (done = some.template operator()<3, 2, 1>()) ||
            (done = some.template operator()<2, 2, 1>()) || (done = some.template operator()<2, 2, 2>()) ||
            (done = some.template operator()<2, 2, 3>());
    }
    return done;
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
    for (int left = strips(panel); left > 0;) {
        int done = several<Format>(rest, left / group_, batch, count, sums, sums_between);
        if (done == 0) {
            done = 1;
            by_pieces<Format>(rest, std::min(left, group_), batch, count, sums, sums_between);
        }
        rest = rest.after(done);
        sums += done * rest.between;
        left -= done * group_;
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
