// How the threads of pool.h are woken, share out work and go to sleep.
//
// Work is handed out by one 64-bit ticket: which work it is in the upper half, how much of it is still to be taken in
// the lower. A worker takes some by a compare-and-swap, which fails if anything changed since it looked; so it can look
// at leisure, even at work that is long done, and touches the work itself only once it has taken a part, which the
// caller then waits for.

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

// Longer than the gaps between one call of training and the next, and some hundredths of a scheduler's time slice. On a busy
// machine two threads that write a text together are then awake together more often (LOG.md, "how long a thread spins").
constexpr auto SPIN = std::chrono::microseconds(200);
// A thread that spins answers in under 1 µs, one that sleeps on an idle core in 5 to 50.
constexpr auto PATIENCE = std::chrono::microseconds(30);

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb");  // `yield` takes no time on most cores
#endif
}

// Whether `done()` came true within `time`; the clock is looked at now and then only, because it costs as much as a look.
template <typename Done>
bool spin(Done done, Clock::duration time) {
    for (int look = 0; look < 64; look++) {
        if (done()) return true;
        pause();
    }
    for (auto end = Clock::now() + time; Clock::now() < end;)
        for (int look = 0; look < 16; look++) {
            if (done()) return true;
            pause();
        }
    return done();
}

// What a worker got hold of: part `number` of a certain work.
struct Part {
    uint32_t work;
    int number;
};

constexpr uint64_t REST = 0xffffffff;  // the lower half of a ticket
constexpr int CALLER = -1;             // among the workers, who count from 0

thread_local int worker_number = CALLER;

class Pool {
public:
    void run(int threads, int parts, const std::function<void(int)>& job);
    int run_team(int threads, const std::function<void(int, Team&)>& job, Team& team, int& size);
    void close();

    // Whether nobody else had it; if so it is to be given back.
    bool take() { return !taken_.test_and_set(std::memory_order_acquire); }
    void give_back() { taken_.clear(std::memory_order_release); }

private:
    void grow(int workers);
    void live(int worker);
    uint32_t offer(int workers, int parts, const std::function<void(int)>& job);
    bool claim(int worker, Part& part);
    void finish(const Part& part);
    void finished(uint32_t work, int parts);

    std::atomic_flag taken_ = ATOMIC_FLAG_INIT;
    std::vector<std::thread> workers_;
    std::atomic<bool> closing_{false};
    Signal offered_;   // how many works there have been
    Signal finished_;  // the last one of which every part is done
    alignas(64) std::atomic<uint64_t> ticket_{0};
    std::atomic<int> invited_{0};  // how many workers may take part in this one
    int parts_ = 0;
    const std::function<void(int)>* job_ = nullptr;
    alignas(64) std::atomic<int> left_{0};  // parts that are not done
};

void Pool::run(int threads, int parts, const std::function<void(int)>& job) {
    uint32_t work = offer(threads - 1, parts, job);
    for (Part part; claim(CALLER, part);) finish(part);
    finished_.await(work);
}

// A team's parts are seats for workers. Seats that nobody took in time are taken away; whoever sits says who it is and
// waits to hear who the others are. Members are numbered in the workers' order, not in that of their coming, so that a
// thread meets the same share of the work again and finds it in its core's cache.
int Pool::run_team(int threads, const std::function<void(int, Team&)>& job, Team& team, int& size) {
    Signal begun;
    std::atomic<uint32_t> seated{0};  // a bit for each worker
    const std::function<void(int)> seat = [&](int) {
        uint32_t self = uint32_t{1} << worker_number;
        seated.fetch_or(self);
        begun.await(1);
        job(1 + std::popcount(seated.load() & (self - 1)), team);
    };
    uint32_t work = offer(threads - 1, threads - 1, seat);
    spin([&] { return (ticket_.load(std::memory_order_acquire) & REST) == 0; }, PATIENCE);
    int empty = static_cast<int>(ticket_.exchange(uint64_t{work} << 32) & REST);
    if (empty > 0) finished(work, empty);
    size = threads - empty;
    while (std::popcount(seated.load()) + 1 < size) pause();
    begun.raise(1);
    job(0, team);
    finished_.await(work);
    return size;
}

uint32_t Pool::offer(int workers, int parts, const std::function<void(int)>& job) {
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

// `invited_` is read between looking at the ticket and changing it, so it belongs to the same work.
bool Pool::claim(int worker, Part& part) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while ((ticket & REST) != 0 && worker < invited_.load(std::memory_order_acquire))
        if (ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
            part = {static_cast<uint32_t>(ticket >> 32), parts_ - static_cast<int>(ticket & REST)};
            return true;
        }
    return false;
}

void Pool::finish(const Part& part) {
    (*job_)(part.number);
    finished(part.work, 1);
}

// After this, the work and what it uses may be gone.
void Pool::finished(uint32_t work, int parts) {
    if (left_.fetch_sub(parts, std::memory_order_acq_rel) == parts) finished_.raise(work);
}

void Pool::live(int worker) {
    worker_number = worker;
    for (uint32_t seen = 0;;) {
        offered_.await(seen + 1);
        seen = offered_.value();
        if (closing_.load()) return;
        for (Part part; claim(worker, part);) finish(part);
    }
}

// Workers take no signals: Ctrl-C is for the thread that waits for it. Where the system gives no more threads, those
// that there are do the work.
void Pool::grow(int workers) {
    if (static_cast<int>(workers_.size()) >= workers) return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        while (static_cast<int>(workers_.size()) < workers)
            workers_.emplace_back([this, worker = static_cast<int>(workers_.size())] { live(worker); });
    } catch (const std::system_error&) {
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

// Stays taken, so that whoever comes after works alone. A thread that still works while the process ends keeps its
// workers, and ends with it.
void Pool::close() {
    if (!spin([this] { return take(); }, std::chrono::seconds(1))) return;
    closing_.store(true);
    offered_.raise(offered_.value() + 1);
    for (auto& worker : workers_) worker.join();
    workers_.clear();
}

// Never deleted: threads may outlive what runs at the process's end, and a forked child leaves its parent's behind.
std::atomic<Pool*> pool{nullptr};

struct Keeper {
    Keeper() {
        pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr); });
    }
    ~Keeper() {
        if (Pool* made = pool.load()) made->close();
    }
} keeper;

// The pool, taken for as long as this lives; or none, if another has it.
class Borrowed {
public:
    Borrowed() : pool_(whole()->take() ? pool.load() : nullptr) {}
    ~Borrowed() {
        if (pool_) pool_->give_back();
    }
    Borrowed(const Borrowed&) = delete;
    explicit operator bool() const { return pool_ != nullptr; }
    Pool* operator->() const { return pool_; }

private:
    static Pool* whole() {
        Pool* made = pool.load();
        if (made) return made;
        auto fresh = std::make_unique<Pool>();
        return pool.compare_exchange_strong(made, fresh.get()) ? fresh.release() : made;
    }
    Pool* pool_;
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
        if (Borrowed pool; pool) return pool->run(threads, parts, job);
    for (int part = 0; part < parts; part++) job(part);
}

int run_team(int threads, const std::function<void(int, Team&)>& job) {
    Team team;
    threads = std::min(threads, Team::LARGEST);
    if (threads > 1)
        if (Borrowed pool; pool) return pool->run_team(threads, job, team, team.size_);
    job(0, team);
    return 1;
}

}  // namespace charloom
