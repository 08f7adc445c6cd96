// Kernels, CPU backend: what the processor and the operating system offer.

#include "kernels/cpu/instruction_set.h"

#include <cpuid.h>
#include <unistd.h>

#include <sys/syscall.h>

namespace swaa::kernels::cpu {
namespace {

// CPUID leaf 7, subleaf 0, register EDX.
constexpr unsigned kAmxBf16Bit = 1u << 22;
constexpr unsigned kAmxTileBit = 1u << 24;

// arch_prctl(2): asks for a state component that is off by default. 18 is tile data.
constexpr int kArchRequestPermission = 0x1023;
constexpr int kTileDataComponent = 18;

bool HasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool ProcessorHasAmx() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (edx & kAmxTileBit) != 0 && (edx & kAmxBf16Bit) != 0;
}

// The permission belongs to the process and to the threads that it starts later.
bool RequestTiles() {
  return syscall(SYS_arch_prctl, kArchRequestPermission, kTileDataComponent) == 0;
}

InstructionSet Detect() {
  if (!HasAvx2()) return InstructionSet::kGeneric;
  if (!HasAvx512()) return InstructionSet::kAvx2;
  if (!__builtin_cpu_supports("avx512bf16")) return InstructionSet::kAvx512;
  return ProcessorHasAmx() && RequestTiles() ? InstructionSet::kAmx : InstructionSet::kAvx512Bf16;
}

}  // namespace

std::string_view Name(InstructionSet set) {
  switch (set) {
    case InstructionSet::kGeneric:
      return "generic";
    case InstructionSet::kAvx2:
      return "avx2";
    case InstructionSet::kAvx512:
      return "avx512";
    case InstructionSet::kAvx512Bf16:
      return "avx512_bf16";
    case InstructionSet::kAmx:
      return "amx";
  }
  return "unknown";
}

InstructionSet BestInstructionSet() {
  static const InstructionSet best = Detect();
  return best;
}

std::vector<InstructionSet> AllInstructionSets() {
  return {InstructionSet::kGeneric, InstructionSet::kAvx2, InstructionSet::kAvx512,
          InstructionSet::kAvx512Bf16, InstructionSet::kAmx};
}

std::vector<InstructionSet> SupportedInstructionSets() {
  std::vector<InstructionSet> sets = AllInstructionSets();
  std::erase_if(sets, [](InstructionSet set) { return set > BestInstructionSet(); });
  return sets;
}

bool HasBf16Products() { return BestInstructionSet() >= InstructionSet::kAvx512Bf16; }

}  // namespace swaa::kernels::cpu
