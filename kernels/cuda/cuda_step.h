// A step on its way through a GPU: what goes up to it in one copy, and what comes back.

#ifndef SWAA_KERNELS_CUDA_CUDA_STEP_H_
#define SWAA_KERNELS_CUDA_CUDA_STEP_H_

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "kernels/adapter_rows.h"
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/lora/lora.h"
#include "kernels/cuda/sampling/sampler.h"
#include "kernels/operators.h"
#include "kernels/wanted_rows.h"

namespace swaa::kernels::cuda {

// Rows of a step that is replayed from a graph: few sizes, so that few graphs are captured. 0: more
// rows than graphs serve.
int64_t GraphRows(int64_t rows);
// All values that GraphRows takes up to `most`, rising.
std::vector<int64_t> AllGraphRows(int64_t most);
inline constexpr int64_t kMaxGraphRows = 256;

// Hands out room in a block of bytes whose copy lies on the device. A layout depends on nothing but
// the sizes asked for, in their order.
class BlockWriter {
 public:
  BlockWriter(std::byte* host, std::byte* device, int64_t capacity)
      : host_(host), device_(device), capacity_(capacity) {}

  template <typename T>
  struct Array {
    T* host = nullptr;
    T* device = nullptr;
  };
  // CHECKs that there is room.
  template <typename T>
  Array<T> Take(int64_t count) {
    const int64_t at = Reserve(count * static_cast<int64_t>(sizeof(T)));
    return {reinterpret_cast<T*>(host_ + at), reinterpret_cast<T*>(device_ + at)};
  }
  // All that is left, for who knows only afterwards how much of it he takes.
  Array<std::byte> Rest() const { return {host_ + used_, device_ + used_}; }
  int64_t left() const { return capacity_ - used_; }
  void Advance(int64_t bytes) { Reserve(bytes); }
  int64_t used() const { return used_; }

 private:
  int64_t Reserve(int64_t bytes);

  std::byte* host_;
  std::byte* device_;
  int64_t capacity_;
  int64_t used_ = 0;
};

// Which kernels of sampling a step needs, and whether a graph can replay it. Two steps of equal
// shape enqueue the same kernels with the same arguments.
struct StepShape {
  int64_t graph_rows = 0;  // 0: not replayed
  SamplingFeatures features;
  // By product: whether an adapter of some row changes it; empty where no row has one.
  std::vector<bool> adapted;

  bool operator<(const StepShape& other) const;
};

// One of the steps that may be in flight.
class CudaStep : public StagedStep {
 public:
  // Host memory for results of so many rows and a block of so many bytes.
  absl::Status Allocate(int64_t block_bytes, int64_t max_rows);
  ~CudaStep() override;

  void SetRows(int64_t rows, int64_t wanted_rows) {
    rows_ = rows;
    wanted_rows_ = wanted_rows;
  }
  void SetShape(const StepShape& of_step) {
    shape = of_step;
    adapted_ = !of_step.adapted.empty();
  }

  StepShape shape;
  // Device addresses, of the newest block.
  const int32_t* tokens = nullptr;      // [rows]
  const int32_t* positions = nullptr;   // [rows]
  const int32_t* slots = nullptr;       // [rows]; -1: a dead row
  const int32_t* wanted = nullptr;      // [wanted_rows]; only where not all rows are wanted
  const LogitsRow* logits = nullptr;    // [wanted_rows]
  const int32_t* slice_rows = nullptr;  // [slices of logits]: live rows of each

  LoraRows lora;                           // of all rows
  LoraRows wanted_lora;                    // of the wanted ones, where not all rows are wanted
  std::optional<AttentionPlan> attention;  // of all rows
  std::optional<AttentionPlan> wanted_attention;  // where not all rows are wanted

  // Host.
  std::vector<LogitsRow> host_logits;  // live ones
  WantedRows wanted_sequences;
  AdapterRows adapter_rows;
  AdapterRows wanted_adapter_rows;  // numbered as the wanted rows
  PinnedMemory block;
  PinnedMemory result_tokens;        // SampledToken [max_rows]
  PinnedMemory result_alternatives;  // Alternatives [max_rows]
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  bool in_flight = false;
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_CUDA_STEP_H_
