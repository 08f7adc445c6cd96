// The matrix products of a model on one device: skinny ones, of few rows, by our own kernel, more
// rows by cuBLASLt.

#ifndef SWAA_KERNELS_CUDA_LINEAR_PRODUCTS_H_
#define SWAA_KERNELS_CUDA_LINEAR_PRODUCTS_H_

#include <cstdint>
#include <cuda_runtime_api.h>
#include <memory>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/linear/cublaslt_product.h"
#include "kernels/cuda/linear/linear_arguments.h"
#include "kernels/cuda/linear/skinny_product.h"

namespace swaa::kernels::cuda {

// Not thread-safe. All products go to one stream: they share a workspace.
class Products {
 public:
  static constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;

  // For the current device. `workspace`: device memory that outlives the object, aligned to 256
  // bytes, best kWorkspaceBytes. INVALID_ARGUMENT with the bytes needed where it is too small.
  static absl::StatusOr<std::unique_ptr<Products>> Create(void* workspace, int64_t workspace_bytes,
                                                          const SkinnyTuning& tuning = {});

  // INVALID_ARGUMENT, naming the weight and the size, for a weight [out_features, in_features] that
  // cannot be multiplied by: both must be positive multiples of 8.
  static absl::Status CheckShape(std::string_view weight, int64_t out_features,
                                 int64_t in_features);

  // Chooses how the product is computed at these row counts, by timing; see
  // CublasLtProducts::Prepare. Row counts that our own kernel serves cost nothing.
  absl::Status Prepare(const LinearArguments& product, std::span<const int64_t> rows);

  // Whether our own kernel computes the product: it may be a programmatic dependent, its results
  // do not depend on the other rows, and it can apply silu_mul.
  bool IsSkinny(const LinearArguments& product) const;

  // Enqueues the product; nothing is allocated or waited for. The stream may be captured where the
  // product is skinny or its row count was prepared: else the library may have to load a
  // kernel. rows 0 does nothing. `dependent`: the kernel before it in the stream may be overlapped;
  // whoever follows may be launched as a programmatic dependent in any case. silu_mul only where
  // IsSkinny (CHECK). Throws CudaError.
  void Run(const LinearArguments& product, cudaStream_t stream, bool dependent);

 private:
  Products(const SkinnyDevice& device, const SkinnyTuning& tuning, const SkinnyWorkspace& workspace,
           std::unique_ptr<CublasLtProducts> cublaslt)
      : device_(device), tuning_(tuning), workspace_(workspace), cublaslt_(std::move(cublaslt)) {}

  const SkinnyDevice device_;
  const SkinnyTuning tuning_;
  const SkinnyWorkspace workspace_;
  const std::unique_ptr<CublasLtProducts> cublaslt_;
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_PRODUCTS_H_
