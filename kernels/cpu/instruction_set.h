// Which instructions this processor (and operating system) lets the process use.

#ifndef SWAA_KERNELS_CPU_INSTRUCTION_SET_H_
#define SWAA_KERNELS_CPU_INSTRUCTION_SET_H_

#include <string_view>
#include <vector>

namespace swaa::kernels::cpu {

// Ordered: each one's machines run all before it.
enum class InstructionSet {
  kGeneric,     // x86-64-v2
  kAvx2,        // with FMA and F16C
  kAvx512,      // F, BW, DQ, VL
  kAvx512Bf16,  // and avx512_bf16: dot products of bf16
  kAmx,  // amx_tile and amx_bf16, with avx512_bf16; the process has asked the kernel for tiles
};

std::string_view Name(InstructionSet set);  // "generic", "avx2", "avx512", "avx512_bf16", "amx"

// The best one. The first call asks the operating system for tile registers (arch_prctl), once a
// process. Thread-safe.
InstructionSet BestInstructionSet();

// All there are, from kGeneric up, and those of them that run here. For tests.
std::vector<InstructionSet> AllInstructionSets();
std::vector<InstructionSet> SupportedInstructionSets();

// avx512_bf16 or amx_bf16: products of bf16 are worth it, whatever instruction set was asked for.
bool HasBf16Products();

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_INSTRUCTION_SET_H_
