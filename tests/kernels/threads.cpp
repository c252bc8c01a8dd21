// The thread pool, training and generation as they are used, without Python: for ThreadSanitizer (`make
// check-threads`).
//
// Parts and members share plain values, so only the pool orders their reads and writes. Where it does not, the
// sanitizer reports a data race. `threads without-barrier` leaves out one barrier; the sanitizer must report it.

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "inference/batch.h"
#include "threads/pool.h"
#include "training/network.h"
#include "training/optimizer.h"

using namespace charloom;

namespace {

void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "%s\n", what);
    std::exit(1);
}

// ---- the choice of the number of threads

// One thread takes 7 ms a step. After each part of one thread, a team takes 8 ms for three parts, because the scheduler
// still moves its threads, and then `team` ms. Returns the time of one thread for the same steps, divided by the time.
double speed_of_choice(double team) {
    using inference::ThreadChoice;
    ThreadChoice choice;
    ThreadChoice::Clock::time_point now{};
    constexpr int PARTS = 500, STEPS = 2;
    double time = 0;
    for (int part = 0, teams = 0; part < PARTS; part++) {
        int threads = choice.threads(2, now);
        teams = threads == 2 ? teams + 1 : 0;
        ThreadChoice::Seconds took(STEPS * (threads == 1 ? 7e-3 : teams <= 3 ? 8e-3 : team * 1e-3));
        now += std::chrono::duration_cast<ThreadChoice::Clock::duration>(took);
        time += took.count();
        choice.learn(threads, threads, took, STEPS, now);
    }
    return PARTS * STEPS * 7e-3 / time;
}

// One thread takes 0.5 ms for a part, a team 0.28 ms. Every 25th part of a team takes 2 ms, because another thread of the
// process needs the core for a moment. Returns the share of the parts that a team did.
double share_of_teams() {
    using inference::ThreadChoice;
    ThreadChoice choice;
    ThreadChoice::Clock::time_point now{};
    constexpr int PARTS = 5000, STEPS = 2;
    int teams = 0;
    for (int part = 0; part < PARTS; part++) {
        int threads = choice.threads(2, now);
        teams += threads == 2;
        ThreadChoice::Seconds took(threads == 1 ? 0.5e-3 : teams % 25 == 0 ? 2e-3 : 0.28e-3);
        now += std::chrono::duration_cast<ThreadChoice::Clock::duration>(took);
        choice.learn(threads, threads, took, STEPS, now);
    }
    return double(teams) / PARTS;
}

// Catches a choice that judges two threads by their slow start, that tries them too often where they are slower, or that
// gives them up after one interruption.
void choices() {
    require(speed_of_choice(3.5) > 1.8, "two threads must be used if they are faster after a slow start");
    require(speed_of_choice(14) > 0.95, "one thread must be used if two are slower");
    require(share_of_teams() > 0.9, "two threads must be used although they are sometimes interrupted");
}

// ---- the pool

// The caller writes, parts read it and write, the caller reads that.
void parts(int threads, int count) {
    std::vector<int> given(count, threads), done(count, 0);
    run_parts(threads, count, [&](int part) { done[part] += given[part]; });
    for (int number : done) require(number == threads, "a part must be run once");
}

// A part that uses the pool itself runs all its parts alone.
void nested(int threads) {
    std::vector<int> done(threads, 0);
    run_parts(threads, threads, [&](int part) { run_parts(threads, 5, [&](int) { done[part]++; }); });
    for (int number : done) require(number == 5, "parts of a part must be run");
}

// Every member writes, and after the barrier reads what all others wrote. Returns the size of the team.
int count_team(int threads, int rounds, bool barrier) {
    std::vector<int> at(Team::LARGEST, 0), apart(Team::LARGEST, 0);
    int size = run_team(threads, [&](int member, Team& team) {
        for (int round = 1; round <= rounds; round++) {
            at[member] = round;
            if (barrier) team.barrier(member);
            for (int other = 0; other < team.size(); other++) apart[member] += at[other] != round;
            team.barrier(member);
        }
    });
    for (int number : apart) require(!barrier || number == 0, "a barrier must hold every member");
    return size;
}

// On a busy machine teams are small, since late threads are left out. Some must have two members or more.
void teams(int least) {
    int together = 0;
    for (int n = 0; n < 100'000 && together < least; n++) together += count_team(2 + n % 7, 1 + n % 20, true) > 1;
    std::printf("%d teams of two or more\n", together);
}

void pool_of_one_caller() {
    for (int round = 0; round < 300; round++) {
        parts(1 + round % 6, round % 11);
        if (round % 10 == 0) nested(2 + round % 3);
    }
}

void two_callers() {
    std::vector<std::thread> callers;
    for (int n = 0; n < 2; n++)
        callers.emplace_back([] {
            pool_of_one_caller();
            for (int round = 0; round < 200; round++) count_team(3, 5, true);
        });
    for (auto& caller : callers) caller.join();
}

// A child creates a pool of its own and exits; the parent's pool goes on.
void forks() {
    for (int n = 0; n < 3; n++) {
        pid_t child = fork();
        if (child == 0) {
            pool_of_one_caller();
            _exit(7);
        }
        int status = 0;
        waitpid(child, &status, 0);
        require(WIFEXITED(status) && WEXITSTATUS(status) == 7, "a child must end by itself");
        parts(4, 20);
    }
}

// ---- training: forward, backward, clipping and Adam, some steps

using FloatVector = std::vector<float>;

FloatVector random_values(size_t count, float scale) {
    static std::mt19937 random(1);
    FloatVector values(count);
    for (float& value : values) value = scale * std::normal_distribution<float>()(random);
    return values;
}

struct Sizes {
    Cell cell;
    int layers, hidden, tokens, sequences, steps;
};

std::vector<size_t> parameter_sizes(const Sizes& s) {
    size_t rows = size_t(gates_of(s.cell)) * s.hidden;
    std::vector<size_t> sizes;
    for (int layer = 0; layer < s.layers; layer++)
        for (size_t size : {rows * (layer ? s.hidden : s.tokens), rows * s.hidden, rows, rows}) sizes.push_back(size);
    sizes.push_back(size_t(s.tokens) * s.hidden);
    sizes.push_back(s.tokens);
    return sizes;
}

void train(const Sizes& s, int threads) {
    std::vector<FloatVector> parameters, gradients, means, squares;
    std::vector<const float*> reading;
    std::vector<float*> writing;
    std::vector<Span> spans;
    std::vector<AdamArrays> all;
    for (size_t size : parameter_sizes(s)) {
        parameters.push_back(random_values(size, 0.1f));
        for (auto* zeros : {&gradients, &means, &squares}) zeros->emplace_back(size);
    }
    for (size_t n = 0; n < parameters.size(); n++) {
        reading.push_back(parameters[n].data());
        writing.push_back(gradients[n].data());
        spans.push_back({gradients[n].data(), gradients[n].size()});
        all.push_back({parameters[n].data(), gradients[n].data(), means[n].data(), squares[n].data(),
                       parameters[n].size(), 0.01f});
    }
    std::vector<int32_t> ids(size_t(s.sequences) * s.steps), targets(ids.size());
    for (size_t n = 0; n < ids.size(); n++) ids[n] = int(n * 7) % s.tokens, targets[n] = int(n * 5) % s.tokens;
    FloatVector h(size_t(s.layers) * s.sequences * s.hidden), c(h.size()), h_after(h.size()), c_after(h.size());
    std::vector<double> nats(targets.size());
    auto correct = std::make_unique<bool[]>(targets.size());
    bool lstm = carried_by(s.cell) == Carried::c;
    Batch batch{s.sequences,
                s.steps,
                ids.data(),
                targets.data(),
                {h.data(), lstm ? c.data() : nullptr},
                {h_after.data(), lstm ? c_after.data() : nullptr},
                nats.data(),
                correct.get(),
                {},
                false};
    TypedTrainingNetwork<SinglePrecision> network({s.cell, s.layers, s.hidden, s.tokens, Input::ONEHOT, s.tokens},
                                                  threads);
    double first = 0, last = 0;
    for (int step = 1; step <= 8; step++) {
        network.forward(reading, batch, true);
        last = std::accumulate(nats.begin(), nats.end(), 0.0);
        if (step == 1) first = last;
        network.backward(writing, {}, {});
        adam(all, clipping(spans, float(targets.size()), 0, 1, threads), {0.01f, 0.01f, 0.9f, 0.99f, 1e-8f, true},
             threads);
    }
    require(last < first, "training must lower the loss");
}

void training() {
    const Sizes all[] = {{Cell::lstm, 2, 40, 11, 9, 6},
                         {Cell::gru, 1, 33, 5, 17, 4},
                         {Cell::tanh, 3, 16, 7, 5, 9},
                         {Cell::lstm, 2, 260, 7, 2, 4}};  // the last by a team
    for (const Sizes& sizes : all)
        for (int threads : {1, 2, 4, 3}) train(sizes, threads);
}

// ---- generation: a team generates some sequences in chunks of steps, or reads a prompt for its logits

void generate(int rows, int threads, inference::Precision precision, bool given) {
    constexpr int HIDDEN = 48, VOCABULARY = 13, STEPS = 40, GATE_ROWS = 4 * HIDDEN;
    FloatVector recurrent = random_values(size_t(GATE_ROWS) * HIDDEN, 0.2f),
                table = random_values(size_t(VOCABULARY) * GATE_ROWS, 0.5f);
    FloatVector below = random_values(size_t(GATE_ROWS) * HIDDEN, 0.2f), biases = random_values(GATE_ROWS, 0.1f);
    FloatVector head = random_values(size_t(VOCABULARY) * HIDDEN, 0.5f), head_bias(VOCABULARY);
    inference::Parameters parameters{Cell::lstm, HIDDEN, VOCABULARY, {}, head.data(), head_bias.data(), nullptr, -1};
    parameters.layers.push_back({nullptr, 0, recurrent.data(), table.data(), VOCABULARY, nullptr});
    parameters.layers.push_back({below.data(), HIDDEN, recurrent.data(), biases.data(), 1, nullptr});
    const inference::PackedNetwork network(parameters, precision, false);
    inference::DecodingBatch batch(network);
    FloatVector zero(size_t(2) * HIDDEN);
    for (int row = 0; row < rows; row++) {
        inference::Row alike;
        alike.token = 1;
        if (rows == 3) alike.sampling.repetition_penalty = 2, alike.sampling.repetition_window = 5;
        alike.history = inference::History(alike.sampling, VOCABULARY);
        batch.join(alike, zero.data(), zero.data());
    }
    std::vector<int64_t> generated(size_t(rows) * STEPS), prompt(generated.size());
    FloatVector logits(given ? size_t(rows) * STEPS * VOCABULARY : 0);
    for (size_t n = 0; n < prompt.size(); n++) prompt[n] = int64_t(n % STEPS * 3 % VOCABULARY);
    inference::Call call{.steps = STEPS};
    if (given)
        call.given = prompt.data(), call.logits = logits.data();
    else
        call.generated = generated.data();
    require(batch.run(call, threads, 1e9) == STEPS, "every step must be done");
    for (int row = 1; row < rows; row++)
        for (int step = 0; step < STEPS; step++)
            require(generated[size_t(row) * STEPS + step] == generated[step], "equal rows must be equal");
}

void generation() {
    for (auto precision : {inference::Precision::fp32, inference::Precision::bf16, inference::Precision::int8})
        for (int rows : {1, 2, 3, 20})
            for (int threads : {2, 4})
                for (bool given : {false, true}) generate(rows, threads, precision, given);
}

}  // namespace

int main(int count, char** words) {
    if (count > 1 && std::string(words[1]) == "without-barrier") {
        for (int n = 0; n < 100'000; n++) count_team(4, 20, false);
        return 0;
    }
    choices();
    pool_of_one_caller();
    teams(200);
    two_callers();
    forks();
    training();
    generation();
    std::thread([] { generation(); }).join();
    std::puts("every part ran once, every barrier held");
}
