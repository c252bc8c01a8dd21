// The writer, as Python sees it: weights packed once, then one call a piece of text.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <mutex>
#include <set>
#include <thread>

#include "inference/session.h"
#include "inference/thread_choice.h"
#include "require.h"
#include "threads/release_gil.h"

namespace nb = nanobind;

namespace charloom::inference {
namespace {

template <class Number, class... Shape>
using Array = nb::ndarray<Number, Shape..., nb::c_contig, nb::device::cpu>;
using Numbers = Array<const float, nb::ndim<1>>;
using Rows = Array<const float, nb::ndim<2>>;
using States = Array<float, nb::ndim<3>>;
using Ids = Array<int64_t, nb::ndim<1>>;
using IdRows = Array<int64_t, nb::ndim<2>>;
using LayerArrays = std::tuple<std::optional<Rows>, Rows, Rows, std::optional<Numbers>>;

// What a member of a team should have to read, or meeting costs more than it brings.
constexpr size_t LEAST_SHARE = 32 << 10;
// A team is asked for, and may be given up, this often: often enough that a core that others want costs little.
constexpr double STRETCH = 500e-6;

Cell cell_named(const std::string& name) {
    if (name == "lstm") return Cell::lstm;
    if (name == "gru") return Cell::gru;
    if (name == "tanh") return Cell::tanh;
    require(name == "relu", "cell must be lstm, gru, tanh or relu");
    return Cell::relu;
}

Precision precision_named(const std::string& name) {
    if (name == "fp32") return Precision::fp32;
    if (name == "bf16") return Precision::bf16;
    require(name == "int8", "precision must be fp32, bf16 or int8");
    return Precision::int8;
}

LayerParameters layer_of(const LayerArrays& arrays, int gates, int hidden) {
    const auto& [below, recurrent, start, new_bias] = arrays;
    size_t rows = size_t(gates) * hidden;
    require(recurrent.shape(0) == rows && recurrent.shape(1) == size_t(hidden), "recurrent weights must be [G*H, H]");
    require(!below || below->shape(0) == rows, "weights below must be [G*H, X]");
    require(start.shape(1) == rows, "starts must be [1 or V, G*H]");
    require(!new_bias || new_bias->shape(0) == size_t(hidden), "the new gate's bias must be [H]");
    return {
        below ? below->data() : nullptr,  below ? static_cast<int>(below->shape(1)) : 0, recurrent.data(), start.data(),
        static_cast<int>(start.shape(0)), new_bias ? new_bias->data() : nullptr};
}

Network packed(const std::string& cell, const std::string& precision, bool tiles,
               const std::vector<LayerArrays>& layers, Rows head, Numbers head_bias, const std::optional<Rows>& entries,
               int reset) {
    Parameters from{cell_named(cell),
                    static_cast<int>(head.shape(1)),
                    static_cast<int>(head.shape(0)),
                    {},
                    head.data(),
                    head_bias.data(),
                    entries ? entries->data() : nullptr,
                    reset};
    require(reset >= -1 && reset < from.vocabulary_size, "reset must be an id or -1");
    require(!layers.empty(), "there must be a layer");
    require(head_bias.shape(0) == head.shape(0), "the head's bias must be [V]");
    require(!entries || entries->shape(0) == head.shape(0), "entries must be [V, E]");
    for (const auto& arrays : layers) {
        from.layers.push_back(layer_of(arrays, gates_of(from.cell), from.hidden));
        const LayerParameters& layer = from.layers.back();
        bool first = from.layers.size() == 1;
        require(layer.starts == 1 || (first && layer.starts == from.vocabulary_size), "starts must be [1 or V, G*H]");
        require((layer.below != nullptr) == (!first || entries.has_value()), "a layer reads the one below, or entries");
        require(!layer.below || layer.columns == (first ? static_cast<int>(entries->shape(1)) : from.hidden),
                "weights below must be as wide as what they read");
        require((layer.new_bias != nullptr) == (from.cell == Cell::gru), "a gru's new gate has a bias of its own");
    }
    ReleaseGil others_may_run;
    return Network(from, precision_named(precision), tiles);
}

class Writer {
public:
    Writer(const std::string& cell, const std::string& precision, bool tiles, const std::vector<LayerArrays>& layers,
           Rows head, Numbers head_bias, std::optional<Rows> entries, int reset)
        : network_(packed(cell, precision, tiles, layers, head, head_bias, entries, reset)) {
        require(precision != "int8" || network_.cell != Cell::relu, "relu has no bound that 8 bits could be scaled to");
    }

    std::pair<int, bool> write(States h, States c, Ids ids, IdRows chosen, uint64_t seed, Ids sequences,
                               uint64_t position, double seconds, int threads, double temperature, int top_k,
                               double top_p, double floor, bool likeliest, std::vector<int> never,
                               int separator) const {
        Sampling sampling{temperature, top_k, top_p, floor, likeliest, std::move(never), separator};
        for (int token : sampling.never) require(token >= 0 && token < network_.vocabulary_size, "never must hold ids");
        require(separator < network_.vocabulary_size, "separator must be an id or -1");
        require(sequences.shape(0) == ids.shape(0), "sequences must be [B]");
        Task task = task_of(h, c, chosen.shape(1), seconds);
        task.ids = checked(ids.data(), ids.shape(0));
        require(ids.shape(0) == h.shape(1) && chosen.shape(0) == ids.shape(0), "ids must be [B], chosen [B, S]");
        task.chosen = chosen.data();
        task.sampling = &sampling;
        task.seed = seed;
        task.position = position;
        task.sequences = reinterpret_cast<const uint64_t*>(sequences.data());
        Outcome outcome = run(task, threads);
        return {outcome.steps, outcome.failed};
    }

    int read(States h, States c, IdRows forced, std::optional<Array<float, nb::ndim<3>>> logits, double seconds,
             int threads) const {
        Task task = task_of(h, c, forced.shape(1), seconds);
        require(forced.shape(0) == h.shape(1), "ids must be [B, S]");
        task.forced = checked(forced.data(), forced.size());
        std::vector<int64_t> last(forced.shape(0));
        task.ids = last.data();
        if (logits) {
            require(logits->shape(0) == forced.shape(0) && logits->shape(1) == forced.shape(1) &&
                        logits->shape(2) == size_t(network_.vocabulary_size),
                    "logits must be [B, S, V]");
            task.logits = logits->data();
        }
        return run(task, threads).steps;
    }

    size_t bytes() const { return network_.bytes(); }

private:
    Task task_of(States& h, States& c, size_t steps, double seconds) const {
        bool lstm = network_.cell == Cell::lstm;
        require(h.shape(0) == network_.layers.size() && h.shape(2) == size_t(network_.hidden), "h must be [L, B, H]");
        require(!lstm || (c.shape(0) == h.shape(0) && c.shape(1) == h.shape(1) && c.shape(2) == h.shape(2)),
                "c must be [L, B, H]");
        Task task{};
        task.texts = static_cast<int>(h.shape(1));
        task.steps = static_cast<int>(steps);
        task.seconds = seconds;
        task.h = h.data();
        task.c = lstm ? c.data() : nullptr;
        return task;
    }

    template <class Id>
    Id* checked(Id* ids, size_t count) const {
        for (size_t n = 0; n < count; n++)
            require(ids[n] >= 0 && ids[n] < network_.vocabulary_size, "ids must be in [0, V)");
        return ids;
    }

    // In stretches of about half a millisecond, each by as many threads as pay at the moment. A session does steps of few
    // texts two by two, so a stretch is never less and never odd, but for the last.
    Outcome run(const Task& task, int threads) const {
        ReleaseGil others_may_run;
        if (task.texts == 0 || task.steps == 0) return {0, false};
        threads = std::clamp(threads, 1,
                             static_cast<int>(std::min<size_t>(Team::LARGEST, network_.bytes() / LEAST_SHARE + 1)));
        Session session(network_, task, threads);
        ThreadChoice thread_choice = thread_choice_for(task.texts);
        auto begin = ThreadChoice::Clock::now(), now = begin;
        for (int stretch = 2; session.outcome().steps < task.steps;) {
            int before = session.outcome().steps, steps = std::min(stretch, task.steps - before);
            int asked = thread_choice.threads(threads, now);
            int came = session.advance(asked, steps);
            auto end = ThreadChoice::Clock::now();
            ThreadChoice::Seconds time = end - now;
            thread_choice.learn(asked, came, time, steps, end);
            now = end;
            if (session.outcome().failed || ThreadChoice::Seconds(now - begin).count() >= task.seconds) break;
            stretch = std::clamp(static_cast<int>(std::min(1e6, STRETCH / time.count() * steps)), 2, 2 * steps) / 2 * 2;
        }
        session.hand_back();
        remember(thread_choice, task.texts);
        return session.outcome();
    }

    // How fast it goes depends on the number of texts. Nobody waits for the lock: a forked child would wait for ever for
    // a thread that it does not have.
    ThreadChoice thread_choice_for(int texts) const {
        std::unique_lock lock(thread_choice_lock_, std::try_to_lock);
        return lock && texts == thread_choice_rows_ ? thread_choice_ : ThreadChoice();
    }

    void remember(const ThreadChoice& thread_choice, int texts) const {
        std::unique_lock lock(thread_choice_lock_, std::try_to_lock);
        if (!lock) return;
        thread_choice_ = thread_choice;
        thread_choice_rows_ = texts;
    }

    const Network network_;
    mutable std::mutex thread_choice_lock_;  // what is remembered changes how fast a text is written, never the text
    mutable ThreadChoice thread_choice_;
    mutable int thread_choice_rows_ = 0;
};

// For tests: one choice, with a number of the caller's.
int choose(Array<const float, nb::ndim<1>> logits, int before, double uniform, double temperature, int top_k,
           double top_p, double floor, bool likeliest, std::vector<int> never, int separator) {
    Sampling sampling{temperature, top_k, top_p, floor, likeliest, std::move(never), separator};
    int vocabulary_size = static_cast<int>(logits.shape(0)), padded = padded_width(vocabulary_size);
    std::vector<float> copy(padded, -std::numeric_limits<float>::infinity());
    std::copy_n(logits.data(), vocabulary_size, copy.begin());
    return Sampler(sampling, vocabulary_size, padded).choose(copy.data(), before, uniform);
}

// For tests of the pool: how often each of so many parts was run, and by how many threads.
std::pair<std::vector<int>, int> parts_run(int threads, int parts) {
    ReleaseGil others_may_run;
    std::vector<std::atomic<int>> runs(parts);
    std::mutex lock;
    std::set<std::thread::id> seen;
    run_parts(threads, parts, [&](int part) {
        runs[part]++;
        std::this_thread::sleep_for(std::chrono::microseconds(20));  // leaves some for others
        std::lock_guard guard(lock);
        seen.insert(std::this_thread::get_id());
    });
    return {{runs.begin(), runs.end()}, static_cast<int>(seen.size())};
}

// The same of a team: how many it was, and in how many of so many rounds a member met one that was elsewhere.
std::pair<int, int> team_barriers(int threads, int rounds) {
    ReleaseGil others_may_run;
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
}  // namespace charloom::inference

namespace charloom {

void bind_inference(nb::module_& module) {
    using namespace nb::literals;
    using inference::Writer, inference::LayerArrays, inference::Rows, inference::Numbers;
    nb::class_<Writer>(module, "Writer")
        .def(nb::init<const std::string&, const std::string&, bool, const std::vector<LayerArrays>&, Rows, Numbers,
                      std::optional<Rows>, int>(),
             "cell"_a, "precision"_a, "tiles"_a, "layers"_a, "head"_a, "head_bias"_a, "entries"_a.none(),
             "reset"_a = -1)
        .def("write", &Writer::write, "h"_a, "c"_a, "ids"_a, "chosen"_a, "seed"_a, "sequences"_a, "position"_a,
             "seconds"_a, "threads"_a, "temperature"_a, "top_k"_a, "top_p"_a, "floor"_a, "likeliest"_a, "never"_a,
             "separator"_a)
        .def("read", &Writer::read, "h"_a, "c"_a, "ids"_a, "logits"_a.none(), "seconds"_a, "threads"_a)
        .def_prop_ro("bytes", &Writer::bytes);
    module.def("choose", &inference::choose, "logits"_a, "before"_a, "uniform"_a, "temperature"_a, "top_k"_a, "top_p"_a,
               "floor"_a, "likeliest"_a, "never"_a, "separator"_a);
    module.def("parts_run", &inference::parts_run, "threads"_a, "parts"_a);
    module.def("team_barriers", &inference::team_barriers, "threads"_a, "rounds"_a);
    module.def("uniform", &inference::uniform, "seed"_a, "sequence"_a, "position"_a);
}

}  // namespace charloom
