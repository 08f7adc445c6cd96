// A mixture of experts on one device: each row's experts are chosen and pairs of row and expert are
// sorted by expert on the device, two grouped products go over the pairs, and each row's sum is
// taken in the order of its choice. No count ever comes back to the host: grids are those of the
// worst case, and blocks beyond the device's counts end at once. What a row gets does not depend on
// the other rows, but for rounding where their number changes the kernel.

#ifndef SWAA_KERNELS_CUDA_EXPERTS_EXPERTS_H_
#define SWAA_KERNELS_CUDA_EXPERTS_EXPERTS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "kernels/cuda/elementwise/launch.h"
#include "kernels/operators.h"

namespace swaa::kernels::cuda {

// The most that kernels are built for.
inline constexpr int32_t kMaxExperts = 512;
inline constexpr int32_t kMaxExpertsPerRow = 32;

// One expert's weights in device memory, bf16.
struct ExpertPointers {
  const Bf16* gate_up = nullptr;  // [2 width, hidden]
  const Bf16* down = nullptr;     // [hidden, width]
};

// Device memory, 16-byte aligned.
struct ExpertsArguments {
  ExpertsShape shape;
  bool normalize = false;
  const ExpertPointers* experts = nullptr;  // [shape.count]
  const float* logits = nullptr;            // [rows, shape.count]
  const int32_t* slots = nullptr;  // [rows]: a negative one marks a dead row, whose out is zero; or
                                   // null: all rows live
  const Bf16* x = nullptr;         // [rows, hidden]
  std::byte* scratch = nullptr;    // ExpertsScratchBytes, aligned to 256
  Bf16* out = nullptr;             // [rows, hidden]
  int64_t rows = 0;
};

// Which kernel computes the products; the automatic choice is by the pairs an expert has on
// average.
enum class ExpertsKernel : uint8_t { kAutomatic, kStreamed, kTiled };

// INVALID_ARGUMENT, naming the number, for a shape that the kernels do not serve: sizes must be
// multiples of 8, and count and experts_per_row at most the above.
absl::Status CheckExpertsShape(const ExpertsShape& shape);

// Never falling in rows.
int64_t ExpertsScratchBytes(const ExpertsShape& shape, int64_t rows);

// Allows the kernels their shared memory on the current device. Once, before RunExperts.
absl::Status PrepareExperts();

// Enqueues all of it; nothing is allocated or waited for, and the stream may be captured. Rows 0
// does nothing. CHECKs the shape. Throws CudaError.
void RunExperts(const ExpertsArguments& arguments, const Launch& launch,
                ExpertsKernel kernel = ExpertsKernel::kAutomatic);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_EXPERTS_EXPERTS_H_
