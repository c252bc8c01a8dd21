// Products whose results are worked on, a row at a time, while the next product runs.

#pragma once

#include "panels.h"

namespace charloom {

// For each call of `multiply`, finish(z, panel, item, row) is called for every row, one call later: with AMX the vector
// units are free while tiles multiply, and the last product's rows are still in the first-level cache. z points at the
// row in the first of VECTORS column vectors; the next lies a TILE further.
template <class P, int VECTORS, class Finish>
class Pipeline {
public:
    Pipeline(int rows, Buffer<float>& room, Finish finish) : finish_(finish), rows_(rows) {
        static_assert(VECTORS % 2 == 0);
        room.reserve(4 * VECTORS * TILE);
        now_ = room;
        last_ = now_ + 2 * VECTORS * TILE;
    }

    // panel1 may be nothing. `weights` are those of the item: VECTORS / 2 packed pairs of so many blocks.
    void multiply(const typename P::Number* panel0, const typename P::Number* panel1,
                  const typename P::Number* weights, int blocks, int panel, int item) {
        int each = (pending_ - done_ + VECTORS / 2 * blocks - 1) / (VECTORS / 2 * blocks);
        for (int pair = 0; pair < VECTORS / 2; pair++)
            P::multiply(panel0, panel1, weights + size_t(pair) * blocks * P::PACKED_PAIR, blocks, rows_,
                        now_ + 2 * pair * TILE, now_ + (VECTORS + 2 * pair) * TILE, [&] { finish_some(each); });
        flush();
        std::swap(now_, last_);
        pending_ = panel1 ? 2 * rows_ : rows_;
        done_ = 0;
        panel_ = panel;
        item_ = item;
    }

    void flush() { finish_some(pending_); }

private:
    CHARLOOM_INLINE void finish_some(int count) {
        for (; count > 0 && done_ < pending_; count--, done_++) {
            bool second = done_ >= rows_;
            int row = second ? done_ - rows_ : done_;
            finish_(last_ + (second ? VECTORS * TILE : 0) + row * LANES, panel_ + second, item_, row);
        }
    }

    Finish finish_;
    int rows_, pending_ = 0, done_ = 0, panel_ = 0, item_ = 0;
    float *now_, *last_;
};

}  // namespace charloom
