// Checks of arguments that Python passes: if one fails, Python gets a ValueError.

#pragma once

#include <stdexcept>

namespace charloom {

inline void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}

}  // namespace charloom
