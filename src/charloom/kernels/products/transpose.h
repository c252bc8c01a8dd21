// Transposes a square matrix of vectors.

#pragma once

#include <utility>

#include "vector.h"

namespace charloom {

// Exchanges lanes of a and b at this distance. In the first result, lane j is b's lane j - distance if j has that bit
// set, otherwise a's lane j. The second result has the other lanes.
template <int DISTANCE, int... LANE>
CHARLOOM_INLINE void exchange(Words& a, Words& b, std::integer_sequence<int, LANE...>) {
    Words first = __builtin_shufflevector(a, b, ((LANE & DISTANCE) ? LANES + (LANE ^ DISTANCE) : LANE)...);
    b = __builtin_shufflevector(a, b, ((LANE & DISTANCE) ? LANES + LANE : (LANE ^ DISTANCE))...);
    a = first;
}

template <int DISTANCE>
CHARLOOM_INLINE void exchange_all(Words* rows) {
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        if (!(i & DISTANCE)) exchange<DISTANCE>(rows[i], rows[i | DISTANCE], std::make_integer_sequence<int, LANES>());
}

// Eklundh 1972: a matrix of 2^k rows takes k rounds of exchanges, at distances 1, 2, 4 …
CHARLOOM_INLINE void transpose(Words (&rows)[LANES]) {
    if constexpr (LANES > 1) exchange_all<1>(rows);
    if constexpr (LANES > 2) exchange_all<2>(rows);
    if constexpr (LANES > 4) exchange_all<4>(rows);
    if constexpr (LANES > 8) exchange_all<8>(rows);
}

}  // namespace charloom
