// Paged attention on CUDA: any mix of prefill chunks and decoding sequences, each with its own
// window and sinks per layer, over one pool of pages.
//
// A step of the engine, on one stream:
//
//   AttentionPlan plan(...);                        // once; or two, where the last layer's rows
//   differ bytes = attention->Write(step, &plan);          // host only copy `bytes` bytes from
//   plan.host() to plan.device(); update the page table attention->PlanDecode(plan, stream); for
//   each layer: attention->Run(layer, plan, ...)
//
// A step of decoding sequences only may be captured from PlanDecode on: what differs between steps
// (sequences, spans, which layer has which) is read from plan.device().
//
// Pages are [K|V][kv_head][64 positions][head_dim] bf16. K of positions past a sequence's length
// may be anything; V of them must be finite. Sums do not depend on timing: the same plan gives the
// same bits.

#ifndef SWAA_KERNELS_CUDA_ATTENTION_ATTENTION_H_
#define SWAA_KERNELS_CUDA_ATTENTION_ATTENTION_H_

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/attention/decode_params.h"
#include "kernels/cuda/attention/plan_format.h"
#include "kernels/cuda/attention/prefill_params.h"
#include "kernels/cuda/attention/tensor_maps.h"
#include "kernels/types.h"

namespace swaa::kernels::cuda {

struct AttentionShape {
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  float scale = 0;  // of q . k; positive
  int32_t num_layers = 0;
  int32_t max_pages = 0;  // of a sequence and layer, in the page table
};

// kHopper: wgmma and TMA, compute capability 9.0 only. kPortable: from 8.0 on.
enum class AttentionKernels : uint8_t { kAutomatic, kPortable, kHopper };

// OK, or UNIMPLEMENTED with what is lacking. compute_capability: 10 * major + minor.
absl::Status SupportsAttention(int32_t head_dim, int32_t heads, int32_t kv_heads,
                               int32_t compute_capability,
                               AttentionKernels kernels = AttentionKernels::kAutomatic);

// Device bytes that one PagedAttention needs beside its plans.
int64_t AttentionWorkspaceBytes(const AttentionShape& shape, int32_t multiprocessors);

// Bytes of a plan, on the host and on the device, for steps of so many sequences, rows and classes.
int64_t AttentionPlanBytes(const AttentionShape& shape, int32_t multiprocessors,
                           int32_t max_sequences, int32_t max_rows, int32_t max_classes);

// What one plan covers. Layers whose spans are equal share a class.
struct AttentionStep {
  std::span<const SequenceRows> sequences;  // those of no rows take no part
  std::span<const KeySpan> spans;           // [classes, sequences]
  std::span<const uint8_t> layer_class;     // [num_layers], each below classes
};

// One step's plan as the host knows it. The memory is the caller's and outlives it. A plan is not
// written again before the device has ended the step.
class AttentionPlan {
 public:
  // host, device: `bytes` bytes each, 16-byte aligned, host best pinned; decode: device memory for
  // max_classes plans.
  AttentionPlan(std::byte* host, std::byte* device, int64_t bytes, DecodePlan* decode,
                int32_t max_classes);

  std::byte* host() const { return host_; }
  std::byte* device() const { return device_; }
  int32_t decode_sequences() const { return decode_sequences_; }
  // Does any sequence of more than one row take part?
  bool has_prefill() const { return has_prefill_; }

 private:
  friend class PagedAttention;
  struct Tiles {
    int64_t offset = 0;  // bytes from the plan's begin
    int32_t count = 0;
  };

  std::byte* host_;
  std::byte* device_;
  int64_t bytes_;
  DecodePlan* decode_;
  int32_t max_classes_;
  int32_t decode_sequences_ = 0;
  bool has_prefill_ = false;
  std::vector<Tiles> tiles_;  // by class
  std::vector<uint8_t> layer_class_;
};

// Queries of a step's rows inside a wider matrix: row r begins at q + r * row_stride, heads first.
// Made once for a matrix, by PagedAttention::Queries.
struct AttentionQueries {
  const Bf16* q = nullptr;
  int64_t row_stride = 0;  // elements
  TensorMap map;
};

// How a launch meets the one before it in the stream.
struct AttentionLaunch {
  cudaStream_t stream = nullptr;
  // Starts under the tail of the kernel before (programmatic dependent launch, compute capability 9
  // and up). Every kernel between PlanDecode and this one must wait for its own before it ends, as
  // ours do: then all that came before has ended when this one reads queries and pages or writes.
  bool dependent = false;
};

// Thread-compatible; launches go to one stream at a time, because the workspace is shared.
class PagedAttention {
 public:
  struct Options {
    AttentionShape shape;
    const Bf16* pool = nullptr;  // `pages` pages; page 0 is zero
    int64_t pages = 0;
    const int32_t* page_table = nullptr;  // device, [slots, num_layers, max_pages]
    std::byte* workspace = nullptr;  // device, AttentionWorkspaceBytes of zeros, 256-byte aligned
    AttentionKernels kernels = AttentionKernels::kAutomatic;
  };

  // For the current device. UNIMPLEMENTED when the shape or the device is not served, INTERNAL when
  // CUDA fails.
  static absl::StatusOr<std::unique_ptr<PagedAttention>> Create(const Options& options);

  // Queries inside a matrix of `rows` rows; row_stride is a multiple of 8.
  absl::StatusOr<AttentionQueries> Queries(const Bf16* q, int64_t rows, int64_t row_stride) const;

  // Plans a step into plan->host(); returns the bytes to be copied to plan->device(). Sequences of
  // one row (the first 1024 of them) are decoded, the others are prefill.
  int64_t Write(const AttentionStep& step, AttentionPlan* plan);

  // Plans decoding on the device, for all classes. Enqueue once a step, also when nothing decodes,
  // after the plan's copy and after updates of the page table: it starts when they have ended and
  // nothing after it starts before it has, which is why launches may read both early.
  void PlanDecode(const AttentionPlan& plan, cudaStream_t stream) const;

  // out [rows, heads, head_dim]: rows of the plan's sequences are written, others are not touched.
  // Prefill launches nothing when the layer has none. Decode always launches, for graphs. Where
  // ropes(), it can do what RopeAndStore does, too; no two sequences may share a slot then.
  void Prefill(int32_t layer, const AttentionPlan& plan, const AttentionQueries& queries, Bf16* out,
               const AttentionLaunch& launch) const;
  void Decode(int32_t layer, const AttentionPlan& plan, const AttentionQueries& queries, Bf16* out,
              const AttentionLaunch& launch, const DecodeRope& rope = {}) const;
  bool ropes() const { return hopper_; }
  // Both, as far as the plan has such sequences.
  void Run(int32_t layer, const AttentionPlan& plan, const AttentionQueries& queries, Bf16* out,
           const AttentionLaunch& launch) const;

 private:
  explicit PagedAttention(const Options& options) : options_(options) {}
  absl::Status Prepare();
  // Sorts the step's sequences into decode_, prefill_.
  void Classify(const AttentionStep& step);
  // Plans the prefill sequences of one class, whose spans of all sequences are given, into tiles_.
  void PlanTiles(std::span<const KeySpan> spans);
  LaunchOptions LaunchWith(const AttentionLaunch& launch, int32_t blocks) const;

  Options options_;
  int32_t compute_capability_ = 0;
  int32_t multiprocessors_ = 0;
  bool hopper_ = false;
  bool deep_ = false;  // portable decode: more tiles in flight
  PrefillGeometry geometry_;
  PoolMaps pool_maps_;
  // Parts of the workspace.
  int* counter_ = nullptr;
  uint32_t* prefill_arrivals_ = nullptr;
  DecodePartial* decode_partials_ = nullptr;
  float* prefill_partials_ = nullptr;
  // Memory of Write, kept from step to step.
  std::vector<int32_t> decode_, prefill_;  // indices of sequences
  std::vector<SequenceRows> prefill_rows_;
  std::vector<KeySpan> prefill_spans_;
  std::vector<QueryTile> tiles_;
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_ATTENTION_ATTENTION_H_
