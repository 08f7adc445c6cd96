// What is supported, and how much memory plans and workspaces take.

#include "kernels/cuda/attention/attention_limits.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int32_t kMaxArrivalCounts = 3;  // of a split tile and head: PrefillGeometry
constexpr int64_t kAlignment = 256;

absl::Status Unsupported(const std::string& what) {
  return absl::UnimplementedError(absl::StrCat("attention on CUDA: ", what));
}

}  // namespace

absl::Status SupportsAttention(int32_t head_dim, int32_t heads, int32_t kv_heads,
                               int32_t compute_capability, AttentionKernels kernels) {
  if (head_dim != 64 && head_dim != 96 && head_dim != 128) {
    return Unsupported(absl::StrCat("head_dim ", head_dim, " has no kernel; 64, 96 and 128 have"));
  }
  if (heads <= 0 || kv_heads <= 0 || heads % kv_heads != 0) {
    return Unsupported(absl::StrCat(heads, " query heads cannot be shared out among ", kv_heads,
                                    " KV heads: the number must be a positive multiple"));
  }
  if (heads / kv_heads > kMaxGroup) {
    return Unsupported(absl::StrCat(heads, " query heads for ", kv_heads, " KV heads are ",
                                    heads / kv_heads, " each; kernels take up to ", kMaxGroup));
  }
  if (compute_capability < 80) {
    return Unsupported(absl::StrCat("compute capability ", compute_capability / 10, ".",
                                    compute_capability % 10,
                                    " is too old; 8.0 (Ampere) is needed"));
  }
  if (kernels == AttentionKernels::kHopper && compute_capability != 90) {
    return Unsupported(absl::StrCat("the kernels for Hopper need compute capability 9.0, not ",
                                    compute_capability / 10, ".", compute_capability % 10,
                                    "; the portable ones serve it"));
  }
  return absl::OkStatus();
}

int32_t DecodeBlocks(int32_t multiprocessors) {
  return std::min(multiprocessors, kMaxDecodeBlocks);
}

// Six for every block that works at a time: enough to cut the last items of a small step finely,
// some 50 MB at most.
int32_t MaxPrefillResults(int32_t multiprocessors) { return 6 * multiprocessors; }

WorkspaceLayout LayoutWorkspace(const AttentionShape& shape, int32_t multiprocessors) {
  const int64_t result_floats = std::max(HopperPrefillGeometry(shape.head_dim).result_floats,
                                         PortablePrefillGeometry(shape.head_dim).result_floats);
  const int64_t results = MaxPrefillResults(multiprocessors);
  WorkspaceLayout layout;
  int64_t at = 0;
  const auto place = [&at](int64_t bytes) {
    const int64_t here = at;
    at += AlignUp(bytes, kAlignment);
    return here;
  };
  layout.counter = place(sizeof(int));
  // A split tile has two parts or more.
  layout.prefill_arrivals = place(results / 2 * kMaxArrivalCounts * sizeof(uint32_t));
  layout.decode_partials =
      place(int64_t{DecodeBlocks(multiprocessors)} * static_cast<int64_t>(sizeof(DecodePartial)));
  layout.prefill_partials = place(results * result_floats * sizeof(float));
  layout.bytes = at;
  return layout;
}

int64_t AttentionWorkspaceBytes(const AttentionShape& shape, int32_t multiprocessors) {
  return LayoutWorkspace(shape, multiprocessors).bytes;
}

int64_t AttentionPlanBytes(const AttentionShape& shape, int32_t multiprocessors,
                           int32_t max_sequences, int32_t max_rows, int32_t max_classes) {
  const int32_t query_rows = std::min(HopperPrefillGeometry(shape.head_dim).query_rows,
                                      PortablePrefillGeometry(shape.head_dim).query_rows);
  // A sequence's rows lie in one tile more than they fill, and its last one may be partly filled.
  const int64_t tiles = max_rows / query_rows + int64_t{2} * max_sequences +
                        MaxPrefillResults(multiprocessors) / shape.heads;
  const int64_t decode = std::min<int64_t>(max_sequences, kMaxDecodeSequences);
  return AlignUp(sizeof(StepHeader) + shape.num_layers, 16) + decode * sizeof(SequenceRows) +
         AlignUp(max_classes * decode * sizeof(KeySpan), 16) +
         max_classes * tiles * sizeof(QueryTile);
}

}  // namespace swaa::kernels::cuda
