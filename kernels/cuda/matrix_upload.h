// Matrices' way from the host into a GPU's memory.

#ifndef SWAA_KERNELS_CUDA_MATRIX_UPLOAD_H_
#define SWAA_KERNELS_CUDA_MATRIX_UPLOAD_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/operators.h"

namespace swaa::kernels::cuda {

// Several threads that each prepare a piece of a matrix while their piece before it is copied.
// Their page-locked memory is taken with the first matrix and kept until the end: taking it takes
// longer than copying what it holds. One caller at a time.
class MatrixUpload {
 public:
  // Into the memory of the GPU of this ordinal.
  explicit MatrixUpload(int ordinal);
  ~MatrixUpload();
  MatrixUpload(const MatrixUpload&) = delete;
  MatrixUpload& operator=(const MatrixUpload&) = delete;

  // Fills a bf16 matrix [rows of all parts, columns] of the device with the parts under one
  // another: rows that lie there as bf16 are copied as they are, others are read as f32 and
  // rounded. RESOURCE_EXHAUSTED where page-locked memory is short, INTERNAL where a copy fails.
  absl::Status Fill(std::byte* matrix, int64_t columns, std::span<const HostRows> parts);

 private:
  class Worker;
  struct Piece;

  const int ordinal_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_MATRIX_UPLOAD_H_
