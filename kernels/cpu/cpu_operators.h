// The CPU backend.

#ifndef SWAA_KERNELS_CPU_CPU_OPERATORS_H_
#define SWAA_KERNELS_CPU_CPU_OPERATORS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/operators.h"

namespace swaa::kernels::cpu {

// Operators on OpenMP threads; matrix products by oneDNN. The instruction set chosen bounds our own
// kernels alone: oneDNN takes what the machine has (its variable ONEDNN_MAX_CPU_ISA bounds it).
// bf16 products need an instruction set of "avx512" or "amx". All calls that compute or pack come
// from one thread. Ranks, whose communicator is not null, share the threads out. INVALID_ARGUMENT:
// an unknown dtype or instruction set, one that this machine lacks, threads < 0.
absl::StatusOr<std::unique_ptr<Operators>> CreateCpuOperators(
    const OperatorsOptions& options, std::unique_ptr<Communicator> communicator = nullptr);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_CPU_OPERATORS_H_
