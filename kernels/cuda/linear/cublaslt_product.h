// Matrix products by cuBLASLt: everything that is not skinny. An algorithm is chosen once for
// a shape and a range of row counts, by timing where Prepare was called, else by the library's own
// guess, and kept.

#ifndef SWAA_KERNELS_CUDA_LINEAR_CUBLASLT_PRODUCT_H_
#define SWAA_KERNELS_CUDA_LINEAR_CUBLASLT_PRODUCT_H_

#include <compare>
#include <cstdint>
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/linear/linear_arguments.h"

namespace swaa::kernels::cuda {

// The largest row count that shares its algorithm with `rows`.
int64_t RowsBucket(int64_t rows);

// Not thread-safe; one stream at a time, whose products share the workspace.
class CublasLtProducts {
 public:
  // `workspace`: device memory that outlives the object, aligned to 256 bytes.
  static absl::StatusOr<std::unique_ptr<CublasLtProducts>> Create(void* workspace,
                                                                  int64_t workspace_bytes);
  ~CublasLtProducts();
  CublasLtProducts(const CublasLtProducts&) = delete;
  CublasLtProducts& operator=(const CublasLtProducts&) = delete;

  // Times up to eight algorithms for the product's weight, out type and bias at each of the row
  // counts and keeps the library's first guess or one that is faster by more than 2 %; a row count
  // whose range is known costs nothing. x, out and rows of the product are not used: room for them
  // is allocated meanwhile. Synchronises; not while a stream is captured. RESOURCE_EXHAUSTED
  // without that room, INTERNAL where no algorithm works.
  absl::Status Prepare(const LinearArguments& product, std::span<const int64_t> rows);

  // Enqueues the product; it starts when all before it in the stream is complete. May be captured.
  // silu_mul is not for this class (CHECK). Throws CudaError.
  void Run(const LinearArguments& product, cudaStream_t stream);

 private:
  struct Key {
    int64_t out_features, in_features, rows;
    DataType out_type;
    bool bias;
    auto operator<=>(const Key&) const = default;
  };
  // How a product is computed.
  struct Plan {
    cublasLtMatmulAlgo_t algorithm;
    bool bias_in_epilogue = false;  // else a kernel of our own adds it
  };
  struct Operands;
  class Scratch;

  CublasLtProducts(cublasLtHandle_t handle, void* workspace, int64_t workspace_bytes)
      : handle_(handle), workspace_(workspace), workspace_bytes_(workspace_bytes) {}

  std::vector<Plan> Candidates(const LinearArguments& product, int count) const;
  cublasStatus_t TryRun(const LinearArguments& product, const Plan& plan,
                        cudaStream_t stream) const;
  float Milliseconds(const LinearArguments& product, const Plan& plan,
                     const Scratch& scratch) const;
  absl::StatusOr<Plan> Fastest(const LinearArguments& product, const Scratch& scratch) const;
  const Plan& PlanOf(const LinearArguments& product);

  const cublasLtHandle_t handle_;
  void* const workspace_;
  const int64_t workspace_bytes_;
  std::map<Key, Plan> plans_;  // by bucket
  std::map<Key, Plan> exact_;  // by row count, where the bucket's algorithm was refused
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_LINEAR_CUBLASLT_PRODUCT_H_
