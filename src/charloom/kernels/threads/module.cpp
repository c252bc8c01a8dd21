// The Python bindings of the thread pool, for its tests.

#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>

#include "threads/pool.h"
#include "threads/release_gil.h"

namespace nb = nanobind;

namespace charloom {
namespace {

// The number of times that each part was run, and the number of threads that ran parts.
std::pair<std::vector<int>, int> parts_run(int threads, int parts) {
    ReleaseGil here;
    std::vector<std::atomic<int>> runs(parts);
    std::mutex lock;
    std::set<std::thread::id> seen;
    run_parts(threads, parts, [&](int part) {
        runs[part]++;
        std::this_thread::sleep_for(std::chrono::microseconds(20));  // leaves some parts for other threads
        std::lock_guard guard(lock);
        seen.insert(std::this_thread::get_id());
    });
    return {{runs.begin(), runs.end()}, static_cast<int>(seen.size())};
}

// The size of a team, and how often a member found another one in a different round after a barrier.
std::pair<int, int> team_barriers(int threads, int rounds) {
    ReleaseGil here;
    std::vector<std::atomic<int>> at(Team::LARGEST);
    std::atomic<int> apart{0};
    int size = run_team(threads, [&](int member, Team& team) {
        for (int round = 1; round <= rounds; round++) {
            at[member] = round;
            team.barrier(member);
            for (int other = 0; other < team.size(); other++) apart += at[other] != round;
            team.barrier(member);
        }
    });
    return {size, apart.load()};
}

}  // namespace

void bind_threads(nb::module_& module) {
    using namespace nb::literals;
    module.def("parts_run", parts_run, "threads"_a, "parts"_a);
    module.def("team_barriers", team_barriers, "threads"_a, "rounds"_a);
}

}  // namespace charloom
