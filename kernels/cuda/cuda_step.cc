// A step on its way through a GPU.

#include "kernels/cuda/cuda_step.h"

#include <tuple>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_check.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int64_t kSectionAlignment = 256;

}  // namespace

int64_t GraphRows(int64_t rows) {
  if (rows > kMaxGraphRows) return 0;
  if (rows <= 4) return rows == 3 ? 4 : rows;
  const int64_t block = rows <= 64 ? 8 : 32;
  return (rows + block - 1) / block * block;
}

std::vector<int64_t> AllGraphRows(int64_t most) {
  std::vector<int64_t> all;
  for (int64_t rows = 1; rows <= kMaxGraphRows; rows = all.back() + 1) {
    all.push_back(GraphRows(rows));
    if (all.back() >= most) break;
  }
  return all;
}

int64_t BlockWriter::Reserve(int64_t bytes) {
  const int64_t at = used_;
  used_ += (bytes + kSectionAlignment - 1) / kSectionAlignment * kSectionAlignment;
  SWAA_CHECK_LE(used_, capacity_);
  return at;
}

bool StepShape::operator<(const StepShape& other) const {
  const auto key = [](const StepShape& s) {
    return std::tuple(s.graph_rows, s.features.filters, s.features.logprobs,
                      s.features.alternatives, s.adapted);
  };
  return key(*this) < key(other);
}

absl::Status CudaStep::Allocate(int64_t block_bytes, int64_t max_rows) {
  SWAA_ASSIGN_OR_RETURN(block, PinnedMemory::Allocate(block_bytes));
  SWAA_ASSIGN_OR_RETURN(
      result_tokens, PinnedMemory::Allocate(max_rows * static_cast<int64_t>(sizeof(SampledToken))));
  SWAA_ASSIGN_OR_RETURN(
      result_alternatives,
      PinnedMemory::Allocate(max_rows * static_cast<int64_t>(sizeof(Alternatives))));
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaEventCreate(&begin), "an event"));
  // Whoever waits sleeps: the GPU has the next step by then.
  return CudaStatus(cudaEventCreateWithFlags(&end, cudaEventBlockingSync), "an event");
}

CudaStep::~CudaStep() {
  if (begin != nullptr) cudaEventDestroy(begin);
  if (end != nullptr) cudaEventDestroy(end);
}

}  // namespace swaa::kernels::cuda
