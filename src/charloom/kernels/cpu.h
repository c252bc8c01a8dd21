// What the processor this runs on can do, asked of the processor and of the kernel.

#pragma once

#include <string>
#include <vector>

namespace charloom {

// The names, as /proc/cpuinfo writes them, of those features that the variants need and that may be used: the processor
// has them and the operating system saves their registers. Empty on other architectures than x86-64 and 64-bit ARM.
std::vector<std::string> cpu_features();

}  // namespace charloom
