// Memory that the kernels own.

#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace charloom {

constexpr size_t HUGE_PAGE = size_t(2) << 20;

// An array of numbers, aligned for any instruction, in huge pages if the system has them. The blocks of a matrix are
// far apart: with small pages, address translation costs more than reading them.
template <class Number>
class Buffer {
public:
    // Provides memory for `count` numbers. A buffer that is large enough keeps its contents. A new one is all zero.
    void reserve(size_t count) {
        if (count <= size_) return;
        size_t bytes = count * sizeof(Number), page = bytes < HUGE_PAGE ? 4096 : HUGE_PAGE;
        bytes = (bytes + page - 1) / page * page;
        data_.reset();
        void* memory = std::aligned_alloc(page, bytes);
        if (!memory) throw std::bad_alloc();
#if defined(__linux__)
        if (page == HUGE_PAGE) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
        std::memset(memory, 0, bytes);
        data_.reset(static_cast<Number*>(memory));
        size_ = count;
    }

    Number* get() const { return data_.get(); }
    operator Number*() const { return data_.get(); }

private:
    struct Free {
        void operator()(Number* memory) const { std::free(memory); }
    };
    std::unique_ptr<Number, Free> data_;
    size_t size_ = 0;
};

}  // namespace charloom
