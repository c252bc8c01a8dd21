// Clipping and Adam over all parameters, each number touched once. Their NumPy twins: engines/bptt/clip.py, optimizers.py.

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

struct Updated {
    float *parameter, *gradient, *mean, *square;
    size_t size;
    float decay;
};

// rate and epsilon with Adam's corrections in them, rate_of_decay without. decoupled: AdamW, whose decay is taken off the
// parameter itself.
struct Adam {
    float rate, rate_of_decay, beta1, beta2, epsilon;
    bool decoupled;
};

constexpr size_t PIECE = 1 << 14;  // numbers that a part takes at once

// work(array, first, last) for all numbers of all arrays, in pieces.
template <class Arrays, class Work>
void over_pieces(const Arrays& arrays, int threads, Work&& work) {
    struct Piece {
        size_t array, first, last;
    };
    std::vector<Piece> pieces;
    for (size_t n = 0; n < arrays.size(); n++)
        for (size_t first = 0; first < arrays[n].size; first += PIECE)
            pieces.push_back({n, first, std::min(first + PIECE, arrays[n].size)});
    int parts = std::min<int>(threads, int(pieces.size()));
    run_parts(threads, parts, [&](int part) {
        SubnormalsAreZero here;
        for (size_t n = pieces.size() * part / parts; n < pieces.size() * (part + 1) / parts; n++)
            work(n, pieces[n].array, pieces[n].first, pieces[n].last);
    });
}

// step(pointer offset, lanes that count) over a piece: whole vectors, then what is left, one by one.
template <class Whole, class Single>
CHARLOOM_INLINE void over_vectors(size_t first, size_t last, Whole&& whole, Single&& single) {
    size_t n = first;
    for (; n + LANES <= last; n += LANES) whole(n);
    for (; n < last; n++) single(n);
}

inline float clip(const std::vector<Span>& gradients, float by_value, float by_norm, int threads) {
    size_t count = 0;
    for (const Span& gradient : gradients) count += (gradient.size + PIECE - 1) / PIECE;
    std::vector<double> squares(count);  // a sum a piece, added in their order: the same at any number of threads
    over_pieces(gradients, threads, [&](size_t piece, size_t array, size_t first, size_t last) {
        float* g = gradients[array].data;
        Floats total{};
        double rest = 0;
        over_vectors(
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
        squares[piece] = rest + sum(total);
    });
    double norm = 0;
    for (double square : squares) norm += square;
    norm = std::sqrt(norm);
    if (!(by_norm > 0) || norm + 1e-6 <= by_norm) return norm;  // a norm that is no number spreads, and is noticed
    float factor = float(by_norm / (norm + 1e-6));
    over_pieces(gradients, threads, [&](size_t, size_t array, size_t first, size_t last) {
        float* g = gradients[array].data;
        over_vectors(
            first, last, [&](size_t n) { store(g + n, load(g + n) * factor); }, [&](size_t n) { g[n] *= factor; });
    });
    return norm;
}

inline void adam(const std::vector<Updated>& all, Adam a, int threads) {
    over_pieces(all, threads, [&](size_t, size_t array, size_t first, size_t last) {
        const Updated& u = all[array];
        auto step = [&](auto p, auto g, auto& mean, auto& square, auto root) {
            if (a.decoupled)
                p *= 1 - a.rate_of_decay * u.decay;
            else
                g += u.decay * p;
            mean = a.beta1 * mean + (1 - a.beta1) * g;
            square = a.beta2 * square + (1 - a.beta2) * g * g;
            return p - a.rate * mean / (root(square) + a.epsilon);
        };
        over_vectors(
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
