// How matrices lie in memory while a network is trained.
//
// A matrix that a product reads row by row (states, gates' gradients) lies in panels: a panel is up to ROWS of its rows,
// cut into blocks of DEPTH columns, and a block is 64 bytes of each row, one below the other. What a product takes next
// is then always the next kilobyte; and no two rows lie a multiple of 4 KiB apart, which would make them fight for the
// same places of the cache. The rows of a panel are texts of a batch at one step of time; a sequence is step after step.
//
// A unit block is LANES hidden units: what the element-wise code takes at once. Hidden sizes are padded with zeros to a
// multiple of GRAIN, whose weights are zero, so what padded units hold reaches nothing else.

#pragma once

#include <algorithm>

#include "threads/range.h"
#include "vector.h"

namespace charloom {

constexpr int TILE_ROWS = 16;  // rows of scratch that a product may write
constexpr int TILE = TILE_ROWS * LANES;
constexpr int GRAIN = 32;  // the deepest block, and two unit blocks of the widest vectors

constexpr int up_to_multiple(int n, int of) { return (n + of - 1) / of * of; }

// work<rows>(), so that the compiler knows how many there are.
template <int MOST, class Work>
CHARLOOM_INLINE void with_rows(int rows, Work&& work) {
    if constexpr (MOST > 1)
        if (rows < MOST) return with_rows<MOST - 1>(rows, work);
    work.template operator()<MOST>();
}

// How B texts lie in panels: as evenly as can be, and as many panels for each part of the work.
struct Layout {
    int texts = 0, panels = 0, rows = 0;

    static Layout of(int texts, int most_rows, int parts) {
        int panels = (texts + most_rows - 1) / most_rows;
        panels = std::min(texts, up_to_multiple(panels, parts));
        return {texts, panels, (texts + panels - 1) / panels};
    }

    Range of_panels(Range range) const {
        return {std::min(range.first * rows, texts), std::min(range.last * rows, texts)};
    }
    int panel(int text) const { return text / rows; }
    int row(int text) const { return text % rows; }
    size_t place(int step, int text, int most_rows) const {  // of a number for each step and text
        return (size_t(step) * panels + panel(text)) * most_rows + row(text);
    }
};

// Where things are in a panelled matrix of so many blocks a row.
template <class Product>
struct Panels {
    using Number = typename Product::Number;
    Number* data = nullptr;
    int blocks = 0;

    static constexpr int BLOCK = Product::ROWS * Product::DEPTH;

    // One block more than is used, so that the panels' strides are no multiple of 4 KiB.
    static size_t stride(int blocks) { return size_t(blocks + 1) * BLOCK; }
    static size_t size(int panels, int blocks) { return size_t(panels) * stride(blocks); }

    Number* panel(int m) const { return data + size_t(m) * stride(blocks); }

    // LANES columns of a row, from this column on.
    Number* at(int m, int row, int column) const {
        return panel(m) + size_t(column / Product::DEPTH) * BLOCK + row * Product::DEPTH + column % Product::DEPTH;
    }

    // The same for a matrix of gates: blocks of one gate each, those of the same units side by side.
    Number* at(int m, int row, int unit, int gate, int gates) const {
        return panel(m) + size_t(unit / Product::DEPTH * gates + gate) * BLOCK + row * Product::DEPTH +
               unit % Product::DEPTH;
    }

    Panels from(int first_panel) const { return {data + size_t(first_panel) * stride(blocks), blocks}; }
};

}  // namespace charloom
