// Makes a program believe that the processor has AVX2 and nothing newer: no AVX-512, AVX-VNNI or AMX.
//
//   make bench PROCESSOR=avx2
//   LD_PRELOAD=build/avx2_only.so python benchmarks/generation.py
//
// Some libraries choose their code by CPUID and have no switch (onnxruntime). Linux can stop a thread at each CPUID with
// a signal (arch_prctl, ARCH_SET_CPUID), if the processor has the feature `cpuid_fault`. The handler below executes the
// instruction and clears the bits of newer instruction sets. A new thread inherits the setting; a new program does not,
// but it loads this library again. Bits: Intel, Software Developer's Manual, volume 2A, CPUID.

#define _GNU_SOURCE
#include <asm/prctl.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (1u << (n))

static long faulting(int on) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, !on); }

static void answer(int number, siginfo_t* info, void* context) {
    (void)info;
    greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
    const unsigned char* code = (const unsigned char*)registers[REG_RIP];
    if (code[0] != 0x0f || code[1] != 0xa2) {  // another fault ends the program as usual
        struct sigaction plain = {.sa_handler = SIG_DFL};
        syscall(SYS_rt_sigaction, number, &plain, NULL, 8);
        return;
    }
    unsigned leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
    faulting(0);
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(part));
    faulting(1);
    if (leaf == 7 && part == 0) {
        b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));  // AVX512-F, -DQ to -VL
        c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));                     // -VBMI, -VNNI and others
        d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));  // -FP16, AMX and others
    } else if (leaf == 7) {
        a = b = c = d = 0;  // AVX-VNNI, AVX512-BF16 and later sets
    } else if (leaf == 0x1d || leaf == 0x1e || leaf == 0x24) {
        a = b = c = d = 0;  // AMX's tiles, AVX10
    }
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

// A program that handles faults itself (GCC, Python's faulthandler) would take this handler away.
int sigaction(int number, const struct sigaction* action, struct sigaction* before) {
    static int (*next)(int, const struct sigaction*, struct sigaction*);
    if (!next) *(void**)&next = dlsym(RTLD_NEXT, "sigaction");
    if (number != SIGSEGV || !action || action->sa_sigaction == answer) return next(number, action, before);
    if (before) memset(before, 0, sizeof *before);
    return 0;
}

void (*signal(int number, void (*handler)(int)))(int) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, before = {0};
    return sigaction(number, &action, &before) ? SIG_ERR : before.sa_handler;
}

__attribute__((constructor)) static void start(void) {
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    if (faulting(1)) {
        fputs("avx2_only: this processor or kernel cannot fault at CPUID\n", stderr);
        exit(1);
    }
}
