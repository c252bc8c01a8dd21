// Clipping and Adam. Each reads and writes every number once. NumPy twins: engines/numpy/clip.py and optimizers.py.

#pragma once

#include <cmath>
#include <vector>

#include "threads/pool.h"
#include "threads/subnormals.h"
#include "vector.h"

namespace charloom {

struct Span {
    float* data;
    size_t size;
};

struct AdamArrays {
    float *parameter, *gradient, *mean, *square;
    size_t size;
    float decay;
};

// rate and epsilon include Adam's bias corrections; decay_rate, the plain learning rate, does not. decoupled: AdamW,
// which subtracts the decay from the parameter itself.
struct AdamStep {
    float rate, decay_rate, beta1, beta2, epsilon;
    bool decoupled;
};

constexpr size_t CHUNK = 1 << 14;  // numbers in a chunk, the unit of work of a thread

// work(chunk, array, first, last) for all numbers of all arrays.
template <class Arrays, class Work>
void for_each_chunk(const Arrays& arrays, int threads, Work&& work) {
    struct Chunk {
        size_t array, first, last;
    };
    std::vector<Chunk> chunks;
    for (size_t n = 0; n < arrays.size(); n++)
        for (size_t first = 0; first < arrays[n].size; first += CHUNK)
            chunks.push_back({n, first, std::min(first + CHUNK, arrays[n].size)});
    int parts = std::min<int>(threads, int(chunks.size()));
    run_parts(threads, parts, [&](int part) {
        SubnormalsAreZero here;
        for (size_t n = chunks.size() * part / parts; n < chunks.size() * (part + 1) / parts; n++)
            work(n, chunks[n].array, chunks[n].first, chunks[n].last);
    });
}

// whole(n) for whole vectors from n on, then single(n) for the rest.
template <class Whole, class Single>
CHARLOOM_INLINE void for_each_vector(size_t first, size_t last, Whole&& whole, Single&& single) {
    size_t n = first;
    for (; n + LANES <= last; n += LANES) whole(n);
    for (; n < last; n++) single(n);
}

inline float clip(const std::vector<Span>& gradients, float by_value, float by_norm, int threads) {
    size_t count = 0;
    for (const Span& gradient : gradients) count += (gradient.size + CHUNK - 1) / CHUNK;
    std::vector<double> squares(count);  // per chunk, added in order: the same at any number of threads
    for_each_chunk(gradients, threads, [&](size_t chunk, size_t array, size_t first, size_t last) {
        float* g = gradients[array].data;
        Floats total{};
        double rest = 0;
        for_each_vector(
            first, last,
            [&](size_t n) {
                Floats x = load(g + n);
                if (by_value > 0) store(g + n, x = smaller(larger(x, splat(-by_value)), splat(by_value)));
                total += x * x;
            },
            [&](size_t n) {
                if (by_value > 0) g[n] = std::fmin(std::fmax(g[n], -by_value), by_value);
                rest += double(g[n]) * g[n];
            });
        squares[chunk] = rest + sum(total);
    });
    double norm = 0;
    for (double square : squares) norm += square;
    norm = std::sqrt(norm);
    if (!(by_norm > 0) || norm + 1e-6 <= by_norm) return norm;  // a NaN reaches every gradient, so that training stops
    float factor = float(by_norm / (norm + 1e-6));
    for_each_chunk(gradients, threads, [&](size_t, size_t array, size_t first, size_t last) {
        float* g = gradients[array].data;
        for_each_vector(
            first, last, [&](size_t n) { store(g + n, load(g + n) * factor); }, [&](size_t n) { g[n] *= factor; });
    });
    return norm;
}

inline void adam(const std::vector<AdamArrays>& all, AdamStep a, int threads) {
    for_each_chunk(all, threads, [&](size_t, size_t array, size_t first, size_t last) {
        const AdamArrays& u = all[array];
        auto step = [&](auto p, auto g, auto& mean, auto& square, auto root) {
            if (a.decoupled)
                p *= 1 - a.decay_rate * u.decay;
            else
                g += u.decay * p;
            mean = a.beta1 * mean + (1 - a.beta1) * g;
            square = a.beta2 * square + (1 - a.beta2) * g * g;
            return p - a.rate * mean / (root(square) + a.epsilon);
        };
        for_each_vector(
            first, last,
            [&](size_t n) {
                Floats mean = load(u.mean + n), square = load(u.square + n);
                store(u.parameter + n, step(load(u.parameter + n), load(u.gradient + n), mean, square,
                                            [](Floats x) { return square_root(x); }));
                store(u.mean + n, mean);
                store(u.square + n, square);
            },
            [&](size_t n) {
                u.parameter[n] =
                    step(u.parameter[n], u.gradient[n], u.mean[n], u.square[n], [](float x) { return std::sqrt(x); });
            });
    });
}

}  // namespace charloom
