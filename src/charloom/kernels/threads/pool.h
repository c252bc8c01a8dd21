// The thread pool of training and inference.
//
// There is one pool. It is created on first use and grows to the largest number of threads that is asked for. While one
// thread uses it, other callers run their parts alone. So no thread waits for the pool, it cannot deadlock, and it does
// not start more threads than the machine has cores. A forked child starts with its own empty pool.

#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>

#include "threads/subnormals.h"

namespace charloom {

// Runs job(0) … job(parts - 1), each once, on the caller's thread and at most threads - 1 others. Returns when all are
// done. Any thread may take any part. If another process occupies a core, the thread on it takes none and the caller
// runs them. Parts must not wait for one another, and must not throw.
void run_parts(int threads, int parts, const std::function<void(int)>& job);

// One part for each thread. Subnormal numbers are treated as zero.
template <class Work>
void each_part(int threads, Work&& work) {
    run_parts(threads, threads, [&](int part) {
        SubnormalsAreZero here;
        work(part);
    });
}

// A counter that one thread raises and others wait for. They spin first, because it usually rises within a microsecond.
// Then they sleep, because on a busy machine it may take milliseconds.
class Signal {
public:
    void raise(uint32_t value) {
        value_.store(value);
        if (sleepers_.load() > 0) value_.notify_all();
    }
    // Returns when the counter has reached `value`. The counter may wrap around.
    void await(uint32_t value);
    bool reached(uint32_t value) const {
        return static_cast<int32_t>(value_.load(std::memory_order_acquire) - value) >= 0;
    }
    uint32_t value() const { return value_.load(std::memory_order_acquire); }

private:
    // on its own cache line, so that a spinning thread does not slow other threads
    alignas(64) std::atomic<uint32_t> value_{0};
    std::atomic<uint32_t> sleepers_{0};
};

// Threads that run at the same time. They have barriers, so they may wait for one another.
class Team {
public:
    static constexpr int LARGEST = 16;  // members; for more, the work between two barriers is too small

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
    friend int run_team(int, const std::function<void(int, Team&)>&, std::chrono::duration<double>);
    int size_ = 1;
    Signal arrived_[LARGEST];
};

// Runs job(0, team) … job(n - 1, team) at the same time, job(0) on the caller's thread, and returns n. Members are the
// threads that answer within `patience`, or 30 µs if that is longer, at most `threads`. A late thread is left out, because
// all members would wait for it at the first barrier.
int run_team(int threads, const std::function<void(int, Team&)>& job, std::chrono::duration<double> patience = {});

}  // namespace charloom
