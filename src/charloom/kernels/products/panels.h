// The memory layout of matrices in training.
//
// A matrix that a product reads row by row (states, gates' gradients) is stored in panels. A panel is up to ROWS of its
// rows, split into blocks of DEPTH columns. A block is 64 bytes of each row, one below the other. So a product reads
// memory in order, and no two rows are a multiple of 4 KiB apart, which would put them in the same cache set. The rows
// of a panel are sequences of a batch at one time step. The panels of a step precede those of the next.
//
// A unit block is LANES hidden units, one vector. Hidden sizes are padded to a multiple of GRAIN. The weights of padded
// units are zero, so their values do not affect other units.

#pragma once

#include <algorithm>
#include <vector>

#include "threads/range.h"
#include "vector.h"

namespace charloom {

constexpr int TILE_ROWS = 16;  // rows of scratch that a product may write
constexpr int TILE = TILE_ROWS * LANES;
constexpr int GRAIN = 32;  // the largest DEPTH, and two unit blocks of the widest vectors

constexpr int up_to_multiple(int n, int of) { return (n + of - 1) / of * of; }

// work<rows>(), so that the compiler knows the number of rows.
template <int MOST, class Work>
CHARLOOM_INLINE void with_rows(int rows, Work&& work) {
    if constexpr (MOST > 1)
        if (rows < MOST) return with_rows<MOST - 1>(rows, work);
    work.template operator()<MOST>();
}

// The distribution of B sequences over the panels of a step: even, with the same number of panels for each part of the
// work. No row is padding, so panels may differ by one row.
struct Layout {
    int sequences = 0, panels = 0;
    std::vector<int> first;  // the first sequence of each panel, then the end: divisions cost time in every product

    Layout() = default;
    Layout(int sequences, int panels) : sequences(sequences), panels(panels) {
        for (int panel = 0; panel <= panels; panel++) first.push_back(int(int64_t(sequences) * panel / panels));
    }

    static Layout of(int sequences, int most_rows, int parts) {
        int panels = (sequences + most_rows - 1) / most_rows;
        return {sequences, std::min(sequences, up_to_multiple(panels, parts))};
    }

    Range of_panels(Range range) const { return {first[range.first], first[range.last]}; }
    int panel(int sequence) const { return int(((sequence + int64_t(1)) * panels - 1) / sequences); }
    int row(int sequence) const { return sequence - first[panel(sequence)]; }
    int rows(int m) const {  // of a panel of any step
        int panel = m < panels ? m : m % panels;
        return first[panel + 1] - first[panel];
    }
    int most_rows() const { return (sequences + panels - 1) / panels; }
    size_t index(int step, int sequence, int most_rows) const {  // into an array with one element per step and sequence
        return (size_t(step) * panels + panel(sequence)) * most_rows + row(sequence);
    }
};

// The number of rows of each panel that a product reads: of the panels of all steps, or of those with these numbers.
struct Heights {
    Layout layout;
    const int* numbers = nullptr;

    int operator()(int i) const { return layout.rows(numbers ? numbers[i] : i); }
    int most() const { return layout.most_rows(); }
};

// Addresses in a matrix in panels, with `blocks` blocks for each row.
template <class Product>
struct Panels {
    using Number = typename Product::Number;
    Number* data = nullptr;
    int blocks = 0;

    static constexpr int BLOCK = Product::ROWS * Product::DEPTH;

    // One block more than is used, so that the panels' strides are not a multiple of 4 KiB.
    static size_t stride(int blocks) { return size_t(blocks + 1) * BLOCK; }
    static size_t size(int panels, int blocks) { return size_t(panels) * stride(blocks); }

    Number* panel(int m) const { return data + size_t(m) * stride(blocks); }

    // LANES columns of a row, starting with this column.
    Number* at(int m, int row, int column) const {
        return panel(m) + size_t(column / Product::DEPTH) * BLOCK + row * Product::DEPTH + column % Product::DEPTH;
    }

    // The same for a matrix of gates. Each block belongs to one gate; blocks of the same units are side by side.
    Number* at(int m, int row, int unit, int gate, int gates) const {
        return panel(m) + size_t(unit / Product::DEPTH * gates + gate) * BLOCK + row * Product::DEPTH +
               unit % Product::DEPTH;
    }

    Panels from(int first_panel) const { return {data + size_t(first_panel) * stride(blocks), blocks}; }
};

}  // namespace charloom
