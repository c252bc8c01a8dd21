// Clipping, Adam and SGD. Gradients are sums over targets. Each optimizer reads them once and computes their clipped
// mean while it reads. NumPy twins: engines/numpy/clip.py and optimizers.py.

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

// rate and epsilon include Adam's bias corrections. decay_rate, the plain learning rate, does not. decoupled: AdamW,
// which subtracts the decay from the parameter itself.
struct AdamStep {
    float rate, decay_rate, beta1, beta2, epsilon;
    bool decoupled;
};

// velocity: null without momentum.
struct SgdArrays {
    float *parameter, *gradient, *velocity;
    size_t size;
    float decay;
};

struct SgdStep {
    float rate, momentum;
    bool nesterov;
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

// From sums over targets to their clipped mean. limit: of a sum, for clipping by value; or infinity.
struct Clipping {
    float limit, factor;

    CHARLOOM_INLINE Floats of(Floats sum) const { return smaller(larger(sum, splat(-limit)), splat(limit)) * factor; }
    CHARLOOM_INLINE float of(float sum) const { return of(splat(sum))[0]; }
};

// The norm of the clipped mean, as one vector.
inline double norm(const std::vector<Span>& sums, Clipping clipping, int threads) {
    size_t count = 0;
    for (const Span& array : sums) count += (array.size + CHUNK - 1) / CHUNK;
    std::vector<double> squares(count);  // for each chunk; the order of the sum does not depend on the threads
    for_each_chunk(sums, threads, [&](size_t chunk, size_t array, size_t first, size_t last) {
        const float* g = sums[array].data;
        Floats total{};
        double rest = 0;
        for_each_vector(
            first, last,
            [&](size_t n) {
                Floats x = clipping.of(load(g + n));
                total += x * x;
            },
            [&](size_t n) {
                float x = clipping.of(g[n]);
                rest += double(x) * x;
            });
        squares[chunk] = rest + sum(total);
    });
    double all = 0;
    for (double square : squares) all += square;
    return std::sqrt(all);
}

// The mean over `count` targets, clipped by value if `by_value` is above 0, then by norm if `by_norm` is above 0.
inline Clipping clipping(const std::vector<Span>& sums, float count, float by_value, float by_norm, int threads) {
    Clipping found{by_value > 0 ? by_value * count : INFINITY, 1 / count};
    if (!(by_norm > 0)) return found;
    double length = norm(sums, found, threads);
    if (!(length + 1e-6 <= by_norm)) found.factor *= float(by_norm / (length + 1e-6));  // a NaN reaches every gradient
    return found;
}

inline void clip(const std::vector<Span>& sums, Clipping clipping, int threads) {
    for_each_chunk(sums, threads, [&](size_t, size_t array, size_t first, size_t last) {
        float* g = sums[array].data;
        for_each_vector(
            first, last, [&](size_t n) { store(g + n, clipping.of(load(g + n))); },
            [&](size_t n) { g[n] = clipping.of(g[n]); });
    });
}

inline void sgd(const std::vector<SgdArrays>& all, Clipping clipping, SgdStep s, int threads) {
    for_each_chunk(all, threads, [&](size_t, size_t array, size_t first, size_t last) {
        const SgdArrays& u = all[array];
        auto step = [&](auto p, auto g, auto& velocity) {
            g = clipping.of(g) + u.decay * p;
            velocity = s.momentum * velocity + g;
            return p - s.rate * (s.nesterov ? g + s.momentum * velocity : velocity);
        };
        for_each_vector(
            first, last,
            [&](size_t n) {
                Floats velocity = u.velocity ? load(u.velocity + n) : Floats{};
                store(u.parameter + n, step(load(u.parameter + n), load(u.gradient + n), velocity));
                if (u.velocity) store(u.velocity + n, velocity);
            },
            [&](size_t n) {
                float velocity = u.velocity ? u.velocity[n] : 0;
                u.parameter[n] = step(u.parameter[n], u.gradient[n], velocity);
                if (u.velocity) u.velocity[n] = velocity;
            });
    });
}

inline void adam(const std::vector<AdamArrays>& all, Clipping clipping, AdamStep a, int threads) {
    for_each_chunk(all, threads, [&](size_t, size_t array, size_t first, size_t last) {
        const AdamArrays& u = all[array];
        auto step = [&](auto p, auto g, auto& mean, auto& square, auto root) {
            g = clipping.of(g);
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
