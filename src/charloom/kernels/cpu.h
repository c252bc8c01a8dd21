// The instruction sets that this processor has and the operating system supports.

#pragma once

#include <string>
#include <vector>

namespace charloom {

// Names as in /proc/cpuinfo of the features that the variants need and that may be used: the processor has them, and
// the operating system saves their registers. Empty except on x86-64 and 64-bit ARM.
std::vector<std::string> cpu_features();

}  // namespace charloom
