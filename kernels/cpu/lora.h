// Products of adapters on the CPU: for all rows of a step in one parallel region, whichever adapter
// each row has.

#ifndef SWAA_KERNELS_CPU_LORA_H_
#define SWAA_KERNELS_CPU_LORA_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/adapter_rows.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/operators.h"

namespace swaa::kernels::cpu {

// Packs one adapter in elements of `type`; `counter`, which outlives the weights, counts them.
// RESOURCE_EXHAUSTED where the machine has not the memory. Thread-safe.
absl::StatusOr<std::vector<std::unique_ptr<LoraWeight>>> PackCpuLora(
    std::span<const LoraSpec> weights, DataType type, MemoryCounter* counter);

// Adds adapters' products to rows. Used by one thread, in whose OpenMP threads it computes.
class CpuLora {
 public:
  // activations: the type of x.
  CpuLora(const ElementwiseKernels& kernels, DataType activations, int threads)
      : kernels_(kernels), activations_(activations), threads_(threads), inputs_(threads) {}

  // The rows of `rows` of x [.., in_features] and out [.., out_features]; `adapters`: of
  // PackCpuLora, what each of the step's adds here, or null. What a row gets does not depend on the
  // others.
  void Add(const AdapterRows& rows, std::span<const LoraWeight* const> adapters, const void* x,
           int64_t in_features, void* out, DataType out_type, int64_t out_features);

 private:
  struct Call;
  // Grouped rows first .. first + count - 1, at most kLoraRows.
  struct DownItem {
    const LoraWeight* weight;
    int64_t first;
    int64_t count;
  };
  // A block of columns of all rows of one group.
  struct UpItem {
    const LoraWeight* weight;
    size_t columns;
    int64_t first;
    int64_t count;
  };

  void Plan(const Call& call);
  void ComputeDown(const Call& call, const DownItem& item, int thread);
  void ComputeUp(const Call& call, const UpItem& item);

  const ElementwiseKernels& kernels_;
  const DataType activations_;
  const int threads_;
  std::vector<DownItem> down_items_;
  std::vector<UpItem> up_items_;
  int64_t sums_stride_ = 0;
  int64_t multiplications_ = 0;
  std::vector<float> sums_;                 // [grouped rows, sums_stride_]: down * x
  std::vector<std::vector<float>> inputs_;  // by thread: rows of x as f32
};

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_LORA_H_
