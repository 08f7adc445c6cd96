// CUDA graphs of steps, by shape.

#include "kernels/cuda/graph_cache.h"

#include "kernels/cuda/cuda_check.h"

namespace swaa::kernels::cuda {

GraphCache::~GraphCache() {
  for (const auto& [shape, graph] : graphs_) cudaGraphExecDestroy(graph);
}

void GraphCache::Capture(const StepShape& shape, cudaStream_t stream,
                         absl::FunctionRef<void()> enqueue) {
  if (graphs_.contains(shape)) return;
  cudaGraph_t graph = nullptr;
  SWAA_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  try {
    enqueue();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);  // whatever was captured is of no use
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  SWAA_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t executable = nullptr;
  const cudaError_t code = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  SWAA_CUDA_CHECK(code);
  graphs_.emplace(shape, executable);
}

void GraphCache::Replay(const StepShape& shape, cudaStream_t stream,
                        absl::FunctionRef<void()> enqueue) {
  Capture(shape, stream, enqueue);
  SWAA_CUDA_CHECK(cudaGraphLaunch(graphs_.at(shape), stream));
}

}  // namespace swaa::kernels::cuda
