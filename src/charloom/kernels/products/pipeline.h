// Products whose results are finished row by row: while the next product runs, if the vector units are free, or
// otherwise after their own product.

#pragma once

#include "products/panels.h"

namespace charloom {

// Memory that rows will read or write. It is prefetched line by line while their product runs. If all lines were
// prefetched together, they would occupy the memory system and the product would wait.
class PrefetchList {
public:
    void clear() {
        now_ = end_ = prefetches_;
        lines_ = line_ = 0;
    }

    // Adds `times` runs of `count` adjacent numbers; `apart` is the distance between two runs.
    template <class Number>
    void add(const Number* from, int count, int times, size_t apart, bool to_write) {
        int lines = int((count * sizeof(Number) + LINE - 1) / LINE);
        *end_++ = {reinterpret_cast<const char*>(from), lines, times, apart * sizeof(Number), to_write};
        lines_ += lines * times;
    }

    int lines() const { return lines_; }

    CHARLOOM_INLINE void fetch(int lines) {
        for (; lines > 0 && now_ != end_; lines--) {
            const char* line = now_->from + line_ * LINE;
            if (now_->to_write)
                __builtin_prefetch(line, 1, 2);
            else
                __builtin_prefetch(line, 0, 2);
            if (++line_ < now_->count) continue;
            line_ = 0;
            now_->from += now_->apart;
            if (--now_->times == 0) now_++;
        }
    }

private:
    static constexpr size_t LINE = 64;  // bytes
    struct Lines {
        const char* from;
        int count, times;
        size_t apart;
        bool to_write;
    };
    Lines prefetches_[10];  // five for each of two panels
    Lines *now_ = prefetches_, *end_ = prefetches_;
    int lines_ = 0, line_ = 0;  // lines in all; the next line of the current run
};

// For each panel of a product, calls finish.begin(panel, item), then finish.rows(z, first, last) for some rows at a
// time, until all are done. Row r of the first of VECTORS column vectors is at z + r * LANES, and of the next vector a
// TILE further. If the vector units are free while a product runs, the rows of the previous product are finished
// meanwhile: they are still in the first-level cache. Otherwise rows are finished immediately, and
// finish.prefetch(panel, item, rows, prefetches) lists the memory to prefetch while their product runs.
template <class P, int VECTORS, class Finish>
class Pipeline {
public:
    Pipeline(Heights heights, Buffer<float>& scratch, Finish& finish) : finish_(finish), heights_(heights) {
        static_assert(VECTORS % 2 == 0);
        scratch.reserve(4 * VECTORS * TILE);
        now_ = scratch;
        last_ = now_ + 2 * VECTORS * TILE;
    }

    // panel1 may be null. `weights` are those of the item: VECTORS / 2 packed pairs of `blocks` blocks.
    void multiply(const typename P::Number* panel0, const typename P::Number* panel1, const typename P::Number* weights,
                  int blocks, int panel, int item) {
        int rows0 = heights_(panel), rows1 = panel1 ? heights_(panel + 1) : 0;
        if constexpr (!P::VECTORS_FREE) {
            prefetches_.clear();
            finish_.prefetch(panel, item, rows0, prefetches_);
            if (panel1) finish_.prefetch(panel + 1, item, rows1, prefetches_);
        }
        int calls = VECTORS / 2 * blocks * (!P::VECTORS_FREE && panel1 ? 2 : 1);
        int each = ((P::VECTORS_FREE ? rows_left() : prefetches_.lines()) + calls - 1) / calls;
        for (int pair = 0; pair < VECTORS / 2; pair++)
            P::multiply(panel0, panel1, weights + size_t(pair) * blocks * P::PACKED_PAIR, blocks, rows0, rows1,
                        now_ + 2 * pair * TILE, now_ + (VECTORS + 2 * pair) * TILE, [&] {
                            if constexpr (P::VECTORS_FREE)
                                finish_some(each);
                            else
                                prefetches_.fetch(each);
                        });
        flush();
        std::swap(now_, last_);
        panel_ = panel;
        item_ = item;
        rows_ = rows0;
        second_rows_ = rows1;
        row_ = 0;
        z_ = last_;
        finish_.begin(panel, item);
        if constexpr (!P::VECTORS_FREE) flush();
    }

    void flush() { finish_some(rows_left()); }

private:
    int rows_left() const { return rows_ - row_ + second_rows_; }

    CHARLOOM_INLINE void finish_some(int count) {
        while (count > 0) {
            if (row_ == rows_) {
                if (second_rows_ == 0) return;
                rows_ = second_rows_;
                second_rows_ = row_ = 0;
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
    const Heights heights_;
    int rows_ = 0, row_ = 0, panel_ = 0, item_ = 0;
    int second_rows_ = 0;  // of the panel that follows; 0 if none does
    float *now_, *last_, *z_ = nullptr;
    PrefetchList prefetches_;
};

}  // namespace charloom
