// The threads that training and writing share.
//
// There is one pool, made when it is first asked for and grown to what is asked of it. Whoever asks while another
// thread uses it works alone: nobody ever waits for the pool itself, so nothing can deadlock, and a machine's cores are
// not asked for twice. A forked child starts with an empty pool of its own.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "threads/subnormals.h"

namespace charloom {

// Runs job(0) … job(parts - 1), each once, on the caller's thread and at most threads - 1 others, and returns when all
// are done. Which thread takes which part is not fixed: a thread that is kept away by another process takes none, and
// the caller does its part. Parts must not wait for one another, and must not throw.
void run_parts(int threads, int parts, const std::function<void(int)>& job);

// A part a thread, for arithmetic: subnormal numbers are zero.
template <class Work>
void each_part(int threads, Work&& work) {
    run_parts(threads, threads, [&](int part) {
        SubnormalsAreZero here;
        work(part);
    });
}

// A number that one thread raises and others wait for: they spin for a moment, because what they wait for mostly comes
// within a microsecond, and then sleep, because on a busy machine it may not come for milliseconds.
class Signal {
public:
    void raise(uint32_t value) {
        value_.store(value);
        if (sleepers_.load() > 0) value_.notify_all();
    }
    // Returns when the number has reached `value`, counting round.
    void await(uint32_t value);
    bool reached(uint32_t value) const {
        return static_cast<int32_t>(value_.load(std::memory_order_acquire) - value) >= 0;
    }
    uint32_t value() const { return value_.load(std::memory_order_acquire); }

private:
    // on a line of its own, so that a thread that spins here slows nobody elsewhere
    alignas(64) std::atomic<uint32_t> value_{0};
    std::atomic<uint32_t> sleepers_{0};
};

// Threads that run at the same time, meet at barriers, and so may wait for one another.
class Team {
public:
    static constexpr int LARGEST = 16;  // members; what they share between barriers is too little for more

    int size() const { return size_; }

    // Returns when every member has called it as often as this one.
    void barrier(int member) {
        if (size_ == 1) return;
        uint32_t round = arrived_[member].value() + 1;
        arrived_[member].raise(round);
        for (int other = 0; other < size_; other++)
            if (other != member) arrived_[other].await(round);
    }

private:
    friend int run_team(int, const std::function<void(int, Team&)>&);
    int size_ = 1;
    Signal arrived_[LARGEST];
};

// Runs job(0, team) … job(n - 1, team) at the same time, job(0) on the caller's thread, and returns n: as many as
// answered within PATIENCE, at most `threads`. Alone, rather than late: a thread that another process keeps away would
// hold up all at the first barrier.
int run_team(int threads, const std::function<void(int, Team&)>& job);

}  // namespace charloom
