// Choice between the two ways to compute a product.

#include "kernels/cuda/linear/products.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_check.h"

namespace swaa::kernels::cuda {
namespace {

// Counters of the skinny product: eight for 128 output features, so a million of these.
constexpr int64_t kArrivals = 65536;
constexpr int64_t kArrivalBytes = kArrivals * static_cast<int64_t>(sizeof(uint32_t));

bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace

absl::StatusOr<std::unique_ptr<Products>> Products::Create(void* workspace, int64_t workspace_bytes,
                                                           const SkinnyTuning& tuning) {
  SWAA_ASSIGN_OR_RETURN(const SkinnyDevice device, InitializeSkinnyProduct());
  const int64_t needed = kArrivalBytes + SkinnyPartialBytes(device, tuning);
  if (workspace_bytes < needed) {
    return absl::InvalidArgumentError(
        absl::StrCat("workspace of matrix products: ", workspace_bytes, " bytes; give at least ",
                     needed, ", better ", kWorkspaceBytes));
  }
  // The counters are no one else's; the sums of skinny products and cuBLASLt use the rest in turn.
  SkinnyWorkspace skinny;
  skinny.arrivals = static_cast<uint32_t*>(workspace);
  skinny.arrival_count = kArrivals;
  skinny.partials = static_cast<char*>(workspace) + kArrivalBytes;
  skinny.partial_bytes = workspace_bytes - kArrivalBytes;
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaMemset(workspace, 0, kArrivalBytes),
                                  "clearing the workspace of matrix products"));
  SWAA_RETURN_IF_ERROR(
      CudaStatus(cudaDeviceSynchronize(), "clearing the workspace of matrix products"));
  SWAA_ASSIGN_OR_RETURN(auto cublaslt,
                        CublasLtProducts::Create(skinny.partials, skinny.partial_bytes));
  return std::unique_ptr<Products>(new Products(device, tuning, skinny, std::move(cublaslt)));
}

absl::Status Products::CheckShape(std::string_view weight, int64_t out_features,
                                  int64_t in_features) {
  if (out_features > 0 && in_features > 0 && out_features % 8 == 0 && in_features % 8 == 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(weight), ": shape [", out_features, ", ", in_features,
                   "]: on CUDA both sizes must be positive multiples of 8"));
}

absl::Status Products::Prepare(const LinearArguments& product, std::span<const int64_t> rows) {
  std::vector<int64_t> many;
  for (const int64_t count : rows) {
    LinearArguments at = product;
    at.rows = count;
    if (count > 0 && !IsSkinny(at)) many.push_back(count);
  }
  return cublaslt_->Prepare(product, many);
}

bool Products::IsSkinny(const LinearArguments& product) const {
  return SkinnyProductFits(device_, tuning_, workspace_, product);
}

void Products::Run(const LinearArguments& product, cudaStream_t stream, bool dependent) {
  if (product.rows == 0) return;
  SWAA_CHECK(product.out_features % 8 == 0 && product.in_features % 8 == 0 &&
             product.stride() % 8 == 0)
      << product.in_features << " -> " << product.out_features << ", stride " << product.stride();
  SWAA_CHECK(IsAligned(product.weight) && IsAligned(product.x) && IsAligned(product.out));
  if (IsSkinny(product)) {
    LaunchSkinnyProduct(device_, tuning_, workspace_, product, stream, dependent);
  } else {
    cublaslt_->Run(product, stream);
  }
}

}  // namespace swaa::kernels::cuda
