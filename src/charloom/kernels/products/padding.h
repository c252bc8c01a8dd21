// Matrices whose sizes are padded to multiples of GRAIN.

#pragma once

#include "buffer.h"
#include "products/panels.h"

namespace charloom {

// `gates` row-major matrices one below the other. If a size is not a multiple of GRAIN, this is a copy in `scratch`,
// padded with zeros; otherwise it is the matrices themselves.
template <class Number>  // float, or const float
class Padded {
public:
    Padded(Number* given, int gates, int rows, int columns, Buffer<float>& scratch)
        : gates(gates), rows(up_to_multiple(rows, GRAIN)), columns(up_to_multiple(columns, GRAIN)), given_(given),
          given_rows_(rows), given_columns_(columns) {
        if (this->rows == rows && this->columns == columns) return;
        scratch.reserve(size_t(gates) * this->rows * this->columns);
        copy_ = scratch;
    }

    const int gates, rows, columns;  // rows: of one gate; both sizes are padded

    bool copied() const { return copy_; }
    Number* data() const { return copy_ ? copy_ : given_; }
    Number* row(int gate, int n) const { return data() + (size_t(gate) * rows + n) * columns; }

    // One part's share of the copy: from the given matrices to the padded ones, and back.
    void copy_in(int part, int parts) const {
        each_row(part, parts, [this](const float* given, float* copy) { copy_row(copy, given); });
    }
    void copy_out(int part, int parts) const {
        each_row(part, parts, [this](float* given, const float* copy) { copy_row(given, copy); });
    }

private:
    void copy_row(float* to, const float* from) const { std::memcpy(to, from, given_columns_ * sizeof(float)); }

    template <class Work>
    void each_row(int part, int parts, Work&& work) const {
        if (!copy_) return;
        Range range = Range::of(gates * given_rows_, part, parts);
        for (int n = range.first; n < range.last; n++)
            work(given_ + size_t(n) * given_columns_,
                 copy_ + (size_t(n / given_rows_) * rows + n % given_rows_) * columns);
    }

    Number* given_;
    float* copy_ = nullptr;
    int given_rows_, given_columns_;
};

using Weights = Padded<const float>;
using Gradient = Padded<float>;

}  // namespace charloom
