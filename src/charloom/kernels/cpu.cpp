// CPUID lists the processor's features, XGETBV the registers that the operating system saves; a feature needs both.
// __builtin_cpu_supports is not used, because that of GCC 12 does not know AMX. Numbers: Intel, Software Developer's
// Manual, volume 2A, CPUID, and volume 1, 13.3 and 18.4.

#include "cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace charloom {

#if defined(__x86_64__)

namespace {

struct Leaf {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;  // all zero if the processor does not know the leaf
    Leaf(unsigned number, unsigned part) { __get_cpuid_count(number, part, &eax, &ebx, &ecx, &edx); }
};

bool has(unsigned word, int bit) { return word >> bit & 1; }

unsigned saved_registers() {
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

// Linux grants the tile registers only on request: once per process, for all threads that start afterwards.
bool tiles_granted() {
#if defined(__linux__)
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

}  // namespace

std::vector<std::string> cpu_features() {
    const Leaf basic(1, 0), extended(7, 0), more(7, 1);
    if (!has(basic.ecx, 27)) return {};  // OSXSAVE: without it XGETBV does not exist
    const unsigned saved = saved_registers();
    const bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6, tiles = (saved >> 17 & 3) == 3;

    std::vector<std::string> found;
    auto add = [&](const char* name, bool here) {
        if (here) found.push_back(name);
    };
    add("avx2", ymm && has(extended.ebx, 5));
    add("fma", ymm && has(basic.ecx, 12));
    add("f16c", ymm && has(basic.ecx, 29));
    add("avx_vnni", ymm && has(more.eax, 4));
    add("avx512f", zmm && has(extended.ebx, 16));
    add("avx512dq", zmm && has(extended.ebx, 17));
    add("avx512bw", zmm && has(extended.ebx, 30));
    add("avx512vl", zmm && has(extended.ebx, 31));
    add("avx512_vnni", zmm && has(extended.ecx, 11));
    add("avx512_bf16", zmm && has(more.eax, 5));
    if (tiles && has(extended.edx, 24) && tiles_granted()) {
        add("amx_tile", true);
        add("amx_bf16", has(extended.edx, 22));
        add("amx_int8", has(extended.edx, 25));
    }
    return found;
}

#elif defined(__aarch64__) && defined(__linux__)

// Linux lists the processor's features in a process's auxiliary vector (getauxval(3)).
std::vector<std::string> cpu_features() {
    if (getauxval(AT_HWCAP) & HWCAP_ASIMD) return {"asimd"};
    return {};
}

#elif defined(__aarch64__)

std::vector<std::string> cpu_features() { return {"asimd"}; }  // macOS and Windows require it

#else

std::vector<std::string> cpu_features() { return {}; }

#endif

}  // namespace charloom
