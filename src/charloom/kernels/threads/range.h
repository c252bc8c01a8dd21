// Equal shares of a range of indices.

#pragma once

#include <algorithm>
#include <cstdint>

namespace charloom {

// [first, last) of n indices, in units of `grain`: one part's share.
struct Range {
    int first, last;

    int count() const { return last - first; }

    static Range of(int n, int part, int parts, int grain = 1) {
        int units = (n + grain - 1) / grain;
        return {std::min(n, int(int64_t(units) * part / parts) * grain),
                std::min(n, int(int64_t(units) * (part + 1) / parts) * grain)};
    }
};

}  // namespace charloom
