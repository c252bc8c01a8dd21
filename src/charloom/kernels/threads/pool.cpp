// How the threads of pool.h wake up, share work and sleep.
//
// A 64-bit ticket distributes the work: its upper half is the job's number, its lower half the number of parts left. A
// worker takes a part by compare-and-swap, which fails if the ticket has changed. So a worker may read the ticket at
// any time, even that of a finished job. It uses the job only after it has taken a part, and then the caller waits for
// it.

#include "threads/pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

namespace charloom {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than the time between two calls of training, and a few percent of a scheduler's time slice. On a busy machine,
// the members of a team are then awake together more often (LOG.md, "how long a thread spins").
constexpr auto SPIN = std::chrono::microseconds(200);
// A spinning thread answers in under 1 µs, a sleeping thread on an idle core in 5 to 50 µs.
constexpr std::chrono::duration<double> LEAST_PATIENCE = std::chrono::microseconds(30);

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb");  // `yield` takes no time on most cores
#endif
}

// Whether `done()` became true within `time`. It reads the clock only sometimes, because that costs as much as a test.
template <typename Done>
bool spin(Done done, Clock::duration time) {
    for (int test = 0; test < 64; test++) {
        if (done()) return true;
        pause();
    }
    for (auto end = Clock::now() + time; Clock::now() < end;)
        for (int test = 0; test < 16; test++) {
            if (done()) return true;
            pause();
        }
    return done();
}

// Part `number` of a job. A worker has taken it.
struct Part {
    uint32_t work;
    int number;
};

constexpr uint64_t REST = 0xffffffff;  // the lower half of a ticket
constexpr int CALLER = -1;             // the caller's number; workers count from 0

thread_local int worker_number = CALLER;

class ThreadPool {
public:
    void run(int threads, int parts, const std::function<void(int)>& job);
    int run_team(int threads, const std::function<void(int, Team&)>& job, Clock::duration patience, Team& team,
                 int& size);
    void close();

    // Whether the pool was free. If so, the caller must release it.
    bool acquire() { return !in_use_.test_and_set(std::memory_order_acquire); }
    void release() { in_use_.clear(std::memory_order_release); }

private:
    void grow(int workers);
    void run_worker(int worker);
    uint32_t offer(int workers, int parts, const std::function<void(int)>& job);
    bool claim(int worker, Part& part);
    void finish(const Part& part);
    void finished(uint32_t work, int parts);

    std::atomic_flag in_use_ = ATOMIC_FLAG_INIT;
    std::vector<std::thread> workers_;
    std::atomic<bool> closing_{false};
    Signal offered_;   // the number of the last job
    Signal finished_;  // the number of the last job whose parts are all done
    alignas(64) std::atomic<uint64_t> ticket_{0};
    std::atomic<int> invited_{0};  // the number of workers that may take parts of the job
    int parts_ = 0;
    const std::function<void(int)>* job_ = nullptr;
    alignas(64) std::atomic<int> left_{0};  // parts that are not done
};

void ThreadPool::run(int threads, int parts, const std::function<void(int)>& job) {
    uint32_t work = offer(threads - 1, parts, job);
    for (Part part; claim(CALLER, part);) finish(part);
    finished_.await(work);
}

// A team's parts are its memberships. Parts that no worker takes in time are withdrawn. A worker that takes one
// registers itself and waits until the team is complete. Members are numbered in the order of the workers, not of their
// arrival. So a thread gets the same share of the work again, which is in its core's cache.
int ThreadPool::run_team(int threads, const std::function<void(int, Team&)>& job, Clock::duration patience, Team& team,
                         int& size) {
    Signal begun;
    std::atomic<uint32_t> joined{0};  // a bit for each worker
    const std::function<void(int)> join = [&](int) {
        uint32_t self = uint32_t{1} << worker_number;
        joined.fetch_or(self);
        begun.await(1);
        job(1 + std::popcount(joined.load() & (self - 1)), team);
    };
    uint32_t work = offer(threads - 1, threads - 1, join);
    spin([&] { return (ticket_.load(std::memory_order_acquire) & REST) == 0; }, patience);
    int absent = static_cast<int>(ticket_.exchange(uint64_t{work} << 32) & REST);
    if (absent > 0) finished(work, absent);
    size = threads - absent;
    while (std::popcount(joined.load()) + 1 < size) pause();
    begun.raise(1);
    job(0, team);
    finished_.await(work);
    return size;
}

uint32_t ThreadPool::offer(int workers, int parts, const std::function<void(int)>& job) {
    grow(workers);
    uint32_t work = offered_.value() + 1;
    job_ = &job;
    parts_ = parts;
    left_.store(parts, std::memory_order_relaxed);
    invited_.store(workers, std::memory_order_relaxed);
    ticket_.store(uint64_t{work} << 32 | static_cast<uint32_t>(parts));
    offered_.raise(work);
    return work;
}

// `invited_` is read after the ticket is read and before it is changed, so it belongs to the same job.
bool ThreadPool::claim(int worker, Part& part) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while ((ticket & REST) != 0 && worker < invited_.load(std::memory_order_acquire))
        if (ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
            part = {static_cast<uint32_t>(ticket >> 32), parts_ - static_cast<int>(ticket & REST)};
            return true;
        }
    return false;
}

void ThreadPool::finish(const Part& part) {
    (*job_)(part.number);
    finished(part.work, 1);
}

// After this call the job, and the memory that it uses, may no longer exist.
void ThreadPool::finished(uint32_t work, int parts) {
    if (left_.fetch_sub(parts, std::memory_order_acq_rel) == parts) finished_.raise(work);
}

void ThreadPool::run_worker(int worker) {
    worker_number = worker;
    for (uint32_t seen = 0;;) {
        offered_.await(seen + 1);
        seen = offered_.value();
        if (closing_.load()) return;
        for (Part part; claim(worker, part);) finish(part);
    }
}

// Workers block signals, because Ctrl-C is for the main thread. If the system starts no more threads, the existing
// threads do the work.
void ThreadPool::grow(int workers) {
    if (static_cast<int>(workers_.size()) >= workers) return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        while (static_cast<int>(workers_.size()) < workers)
            workers_.emplace_back([this, worker = static_cast<int>(workers_.size())] { run_worker(worker); });
    } catch (const std::system_error&) {
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

// The pool stays in use, so that later callers work alone. If a thread still uses it while the process ends, its
// workers end with the process.
void ThreadPool::close() {
    if (!spin([this] { return acquire(); }, std::chrono::seconds(1))) return;
    closing_.store(true);
    offered_.raise(offered_.value() + 1);
    for (auto& worker : workers_) worker.join();
    workers_.clear();
}

// Not deleted: threads may outlive the process's exit handlers, and a forked child abandons its parent's pool.
std::atomic<ThreadPool*> pool{nullptr};

struct PoolCloser {
    PoolCloser() {
        pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr); });
    }
    ~PoolCloser() {
        if (ThreadPool* made = pool.load()) made->close();
    }
} pool_closer;

// Takes the pool for the lifetime of this object; null if another thread uses the pool.
class PoolLease {
public:
    PoolLease() : pool_(the_pool()->acquire() ? pool.load() : nullptr) {}
    ~PoolLease() {
        if (pool_) pool_->release();
    }
    PoolLease(const PoolLease&) = delete;
    explicit operator bool() const { return pool_ != nullptr; }
    ThreadPool* operator->() const { return pool_; }

private:
    static ThreadPool* the_pool() {
        ThreadPool* made = pool.load();
        if (made) return made;
        auto fresh = std::make_unique<ThreadPool>();
        return pool.compare_exchange_strong(made, fresh.get()) ? fresh.release() : made;
    }
    ThreadPool* pool_;
};

}  // namespace

void Signal::await(uint32_t value) {
    if (spin([&] { return reached(value); }, SPIN)) return;
    sleepers_.fetch_add(1);
    for (uint32_t seen = value_.load(); !reached(value); seen = value_.load()) value_.wait(seen);
    sleepers_.fetch_sub(1);
}

void run_parts(int threads, int parts, const std::function<void(int)>& job) {
    threads = std::min(threads, parts);
    if (threads > 1)
        if (PoolLease pool; pool) return pool->run(threads, parts, job);
    for (int part = 0; part < parts; part++) job(part);
}

int run_team(int threads, const std::function<void(int, Team&)>& job, std::chrono::duration<double> patience) {
    Team team;
    threads = std::min(threads, Team::LARGEST);
    if (threads > 1)
        if (PoolLease pool; pool) {
            auto longest = std::chrono::duration_cast<Clock::duration>(std::max(patience, LEAST_PATIENCE));
            return pool->run_team(threads, job, longest, team, team.size_);
        }
    job(0, team);
    return 1;
}

}  // namespace charloom
