// Products whose results are worked on, a row at a time, while the next product runs.

#pragma once

#include "panels.h"

namespace charloom {

// The rows of each product are finished one call later: with AMX the vector units are free while tiles multiply, and the
// last product's rows are still in the first-level cache. For each panel of a product, finish.begin(panel, item), then
// finish.rows(z, first, last) until all its rows are done, some at a time: row r of the first of VECTORS column vectors
// stands at z + r * LANES, of the next a TILE further.
template <class P, int VECTORS, class Finish>
class Pipeline {
public:
    Pipeline(int rows, Buffer<float>& room, Finish& finish) : finish_(finish), rows_(rows), row_(rows) {
        static_assert(VECTORS % 2 == 0);
        room.reserve(4 * VECTORS * TILE);
        now_ = room;
        last_ = now_ + 2 * VECTORS * TILE;
    }

    // panel1 may be nothing. `weights` are those of the item: VECTORS / 2 packed pairs of so many blocks.
    void multiply(const typename P::Number* panel0, const typename P::Number* panel1, const typename P::Number* weights,
                  int blocks, int panel, int item) {
        int each = (rows_left() + VECTORS / 2 * blocks - 1) / (VECTORS / 2 * blocks);
        for (int pair = 0; pair < VECTORS / 2; pair++)
            P::multiply(panel0, panel1, weights + size_t(pair) * blocks * P::PACKED_PAIR, blocks, rows_,
                        now_ + 2 * pair * TILE, now_ + (VECTORS + 2 * pair) * TILE, [&] { finish_some(each); });
        flush();
        std::swap(now_, last_);
        panel_ = panel;
        item_ = item;
        another_ = panel1;
        row_ = 0;
        z_ = last_;
        finish_.begin(panel, item);
    }

    void flush() { finish_some(rows_left()); }

private:
    int rows_left() const { return rows_ - row_ + (another_ ? rows_ : 0); }

    CHARLOOM_INLINE void finish_some(int count) {
        while (count > 0) {
            if (row_ == rows_) {
                if (!another_) return;
                another_ = false;
                row_ = 0;
                z_ += VECTORS * TILE;
                finish_.begin(panel_ + 1, item_);
            }
            int last = std::min(row_ + count, rows_);
            finish_.rows(z_, row_, last);
            count -= last - row_;
            row_ = last;
        }
    }

    Finish& finish_;
    int rows_, row_, panel_ = 0, item_ = 0;
    bool another_ = false;  // a panel, of which nothing is finished yet
    float *now_, *last_, *z_ = nullptr;
};

}  // namespace charloom
