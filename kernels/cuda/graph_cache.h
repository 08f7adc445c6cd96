// CUDA graphs of steps, by shape.

#ifndef SWAA_KERNELS_CUDA_GRAPH_CACHE_H_
#define SWAA_KERNELS_CUDA_GRAPH_CACHE_H_

#include <cuda_runtime_api.h>
#include <map>

#include "absl/functional/function_ref.h"
#include "kernels/cuda/cuda_step.h"

namespace swaa::kernels::cuda {

// Not thread-safe. Throws CudaError.
class GraphCache {
 public:
  GraphCache() = default;
  ~GraphCache();
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  bool Has(const StepShape& shape) const { return graphs_.contains(shape); }
  // Captures what `enqueue` puts on the stream, unless the shape is known.
  void Capture(const StepShape& shape, cudaStream_t stream, absl::FunctionRef<void()> enqueue);
  // Launches the shape's graph, captured first where it is not known.
  void Replay(const StepShape& shape, cudaStream_t stream, absl::FunctionRef<void()> enqueue);

 private:
  std::map<StepShape, cudaGraphExec_t> graphs_;
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_GRAPH_CACHE_H_
