// Weights times hidden values, in each precision, for a few rows of a batch at a time.
//
// The speed of reading weights from memory limits the generation of one sequence, so weights are stored in reading
// order. A strip is LANES rows of weights side by side. A group has the strips that are multiplied by several batch
// rows together. A panel is a few groups. Few batch rows are multiplied by several full groups together. A word is 32
// bits: one float, two bfloat16 or four bytes, so a strip's next columns are always one vector of words. Lanes are rows
// of weights: nothing is summed across lanes, and each sum is one chain over the columns in their order. So a batch row
// is bit for bit the same alone and in any batch, at any number of threads.

#pragma once

#include "inference/formats.h"
#include "products/tiles.h"

#include <algorithm>
#include <type_traits>

namespace charloom::inference {

constexpr int MOST_STRIPS = 8;  // of a panel: enough chains to hide an addition's latency

// Many rows are multiplied by a piece of a group's columns at a time, which stays in the first-level cache for all rows.
// With 32 registers the second-level cache is fast enough, because more rows share what is read.
constexpr bool IN_PIECES = REGISTERS == 16;
constexpr int PIECE_WORDS = 4 << 10;  // 16 KiB: half of a small first-level cache

// What `multiply` needs from a panel and from a batch.
struct PanelView {
    const uint32_t* words;  // the first group's
    size_t apart;           // distance between two groups, in words
    int between;            // distance between two columns of a group, in words
    int columns;            // counted in words
    const float* scales;    // of the strips' rows
    const int32_t* added;

    const uint32_t* strip(int number) const {
        int group = between / LANES;
        return words + number / group * apart + number % group * LANES;
    }
    // Without the first groups.
    PanelView after(int groups) const {
        return {words + groups * apart, apart, between, columns, scales + groups * between, added + groups * between};
    }
};

struct BatchView {
    const uint32_t* words;
    size_t between;  // distance between two batch rows, in words
};

// Which columns a product has: the first ones, the last ones, or both.
struct Piece {
    bool first = true, last = true;
};

// Adds a column's products: sum[b][strip] for BATCH_ROWS rows and the first STRIPS strips of each of GROUPS groups.
template <class Format, int GROUPS, int STRIPS, int BATCH_ROWS, class Sum>
CHARLOOM_INLINE void add_column(const PanelView& panel, const uint32_t* words, const uint32_t* values, size_t between,
                                Sum (&sum)[BATCH_ROWS][GROUPS * STRIPS]) {
#pragma GCC unroll 8
    for (int group = 0; group < GROUPS; group++, words += panel.apart) {
        Words weights[STRIPS];
#pragma GCC unroll 8
        for (int strip = 0; strip < STRIPS; strip++) weights[strip] = load(words + strip * LANES);
#pragma GCC unroll 8
        for (int b = 0; b < BATCH_ROWS; b++) {
            Words value = in_all_lanes(values[b * between]);
#pragma GCC unroll 8
            for (int strip = 0; strip < STRIPS; strip++) {
                Sum& to = sum[b][group * STRIPS + strip];
                to = Format::add(to, weights[strip], value);
            }
        }
    }
}

// sums[b][strip][lane], with the strips of several groups side by side. With several groups, STRIPS is all strips of
// each. The sums of two rows are `sums_between` numbers apart. Columns may come in several pieces, one after the other:
// `sums` holds the unfinished sums in between, so the order of the additions stays the same.
template <class Format, int GROUPS, int STRIPS, int BATCH_ROWS>
inline void multiply(const PanelView& panel, const BatchView& batch, float* sums, size_t sums_between, Piece piece) {
    constexpr int ALL = GROUPS * STRIPS;
    typename Format::Sum sum[BATCH_ROWS][ALL] = {};
    if (IN_PIECES && !piece.first)
#pragma GCC unroll 8
        for (int b = 0; b < BATCH_ROWS; b++)
#pragma GCC unroll 8
            for (int strip = 0; strip < ALL; strip++)
                std::memcpy(&sum[b][strip], sums + b * sums_between + strip * LANES, sizeof sum[b][strip]);
    const uint32_t* words = panel.words;
    for (int column = 0; column < panel.columns; column++, words += panel.between)
        add_column<Format, GROUPS, STRIPS, BATCH_ROWS>(panel, words, batch.words + column, batch.between, sum);
#pragma GCC unroll 8
    for (int b = 0; b < BATCH_ROWS; b++)
#pragma GCC unroll 8
        for (int strip = 0; strip < ALL; strip++) {
            float* to = sums + b * sums_between + strip * LANES;
            if (!IN_PIECES || piece.last)
                store(to, Format::total(sum[b][strip], panel.scales + strip * LANES, panel.added + strip * LANES));
            else
                std::memcpy(to, &sum[b][strip], sizeof sum[b][strip]);
        }
}

// The same with partial sums of each stage in the registers. The whole sums are in `sums`.
template <class Format, int GROUPS, int STRIPS, int BATCH_ROWS>
inline void multiply_in_stages(const PanelView& panel, const BatchView& batch, float* sums, size_t sums_between,
                               Piece piece) {
    constexpr int ALL = GROUPS * STRIPS, STAGE = Format::STAGE;
    const uint32_t *words = panel.words, *values = batch.words;
    for (int column = 0; column < panel.columns; column += STAGE, values += STAGE + 1) {
        typename Format::Partial partial[BATCH_ROWS][ALL];
#pragma GCC unroll 8
        for (int b = 0; b < BATCH_ROWS; b++)
#pragma GCC unroll 8
            for (int strip = 0; strip < ALL; strip++)
                partial[b][strip] = (typename Format::Partial)(values[b * batch.between + STAGE] - Words{});
#pragma GCC unroll 8
        for (int n = 0; n < STAGE; n++, words += panel.between)
            add_column<Format, GROUPS, STRIPS, BATCH_ROWS>(panel, words, values + n, batch.between, partial);
        const bool first = piece.first && column == 0, last = piece.last && column + STAGE >= panel.columns;
#pragma GCC unroll 8
        for (int b = 0; b < BATCH_ROWS; b++)
#pragma GCC unroll 8
            for (int strip = 0; strip < ALL; strip++) {
                float* to = sums + b * sums_between + strip * LANES;
                typename Format::Sum sum = Format::widened(partial[b][strip]);
                if (!first) sum += (typename Format::Sum)bits(load(to));
                if (last)
                    store(to, Format::total(sum, panel.scales + strip * LANES, panel.added + strip * LANES));
                else
                    store(to, from_bits((Words)sum));
            }
    }
}

#if defined(__AMX_INT8__)

// Many batch rows in int8 with AMX's tiles: the same integer sums. The 16 words of a strip are the rows of a tile.
struct ByTiles {
    static constexpr int BATCH_ROWS = 16, WORDS = 16;  // of a tile

    static bool fit(int columns, int count) { return columns % WORDS == 0 && count >= BATCH_ROWS; }

    // Multiplies groups of rows together. The last group may repeat some rows.
    static void multiply(const PanelView& panel, int strips, const BatchView& batch, int count, float* sums,
                         size_t sums_between) {
        Tiles here(BATCH_ROWS);
        for (int strip = 0; strip < strips; strip += 2)
            for (int b = 0; b < count; b += 2 * BATCH_ROWS) {
                int firsts[2] = {std::min(b, count - BATCH_ROWS), std::min(b + BATCH_ROWS, count - BATCH_ROWS)};
                int pair[2] = {strip, std::min(strip + 1, strips - 1)};
                alignas(64) int32_t found[2][2][BATCH_ROWS][LANES];
                four(panel, pair, batch, firsts, found);
                for (int group = 0; group < 2; group++)
                    for (int n = 0; n < BATCH_ROWS; n++)
                        for (int side = 0; side < 2; side++) {
                            Ints sum;
                            std::memcpy(&sum, found[group][side][n], sizeof sum);
                            int rows = pair[side] * LANES;
                            store(sums + (firsts[group] + n) * sums_between + rows,
                                  Int8::total(sum, panel.scales + rows, panel.added + rows));
                        }
            }
    }

private:
    static void four(const PanelView& panel, const int (&strips)[2], const BatchView& batch, const int (&firsts)[2],
                     int32_t (&found)[2][2][BATCH_ROWS][LANES]) {
        const uint32_t *left = panel.strip(strips[0]), *right = panel.strip(strips[1]);
        const uint32_t *upper = batch.words + firsts[0] * batch.between,
                       *lower = batch.words + firsts[1] * batch.between;
        size_t weights = panel.between * sizeof(uint32_t), values = batch.between * sizeof(uint32_t);
        asm volatile("" ::: "memory");
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int column = 0; column < panel.columns; column += WORDS) {
            _tile_loadd(4, upper + column, values);
            _tile_loadd(6, left + size_t(column) * panel.between, weights);
            _tile_loadd(7, right + size_t(column) * panel.between, weights);
            _tile_loadd(5, lower + column, values);
            _tile_dpbusd(0, 4, 6);
            _tile_dpbusd(1, 4, 7);
            _tile_dpbusd(2, 5, 6);
            _tile_dpbusd(3, 5, 7);
        }
        _tile_stored(0, found[0][0], 64);
        _tile_stored(1, found[0][1], 64);
        _tile_stored(2, found[1][0], 64);
        _tile_stored(3, found[1][1], 64);
        asm volatile("" ::: "memory");
    }
};

#endif

}  // namespace charloom::inference
