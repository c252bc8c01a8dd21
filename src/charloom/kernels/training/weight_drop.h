// Weight drop: sets some weights, or their gradients, to zero. NumPy twin: engines/masks.py, `DropoutLevels.mask`.

#pragma once

#include <cstdint>

#include "training/optimizer.h"

namespace charloom {

constexpr int LEVELS = 256;

// Values whose level is below `kept`, scaled up so that the mean does not change; 0 for the others. out may be
// `values`.
inline void drop(Span values, const uint8_t* levels, int kept, float* out, int threads) {
    float scale = float(LEVELS) / float(kept);
    for_each_chunk(std::vector<Span>{values}, threads, [&](size_t, size_t, size_t first, size_t last) {
        for_each_vector(
            first, last,
            [&](size_t n) {
                Words below = (Words)(load(levels + n) < kept);
                store(out + n, from_bits(bits(load(values.data + n) * scale) & below));
            },
            [&](size_t n) { out[n] = levels[n] < kept ? values.data[n] * scale : 0.0f; });
    });
}

}  // namespace charloom
