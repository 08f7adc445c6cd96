// The operators of a backend, as the transformer (engine/model) calls them. One object a device.
//
// All pointers are the device's memory, from Operators::Allocate or Embedding and Weight objects;
// all matrices are row-major and dense unless a stride is given. Calls are made from one thread
// (the device's) and may return before the work is done, in order; Finish waits for it. Only
// arguments that break an invariant can be wrong, so operators CHECK and return nothing; what input
// or capacity can cause is a Status of the calls that load.

#ifndef SWAA_KERNELS_OPERATORS_H_
#define SWAA_KERNELS_OPERATORS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/types.h"

namespace swaa::kernels {

// Element types of a running model. Residual stream, queries and logits are always f32.
struct Precision {
  DataType weights = DataType::kBf16;
  DataType activations = DataType::kBf16;  // inputs of products
  DataType kv = DataType::kBf16;           // pages
};

// Writes rows first_row .. first_row + count - 1 of a host matrix [rows, columns] as f32 to out.
// Called while loading, from several threads at once.
using RowReader = std::function<void(int64_t first_row, int64_t count, float* out)>;

// A matrix [out_features, in_features] packed once for products. Immutable; used by any thread.
class Weight {
 public:
  virtual ~Weight() = default;
  virtual int64_t out_features() const = 0;
  virtual int64_t in_features() const = 0;
  virtual int64_t bytes() const = 0;
};

// A table [vocab, hidden] of which rows are gathered. Immutable.
class Embedding {
 public:
  virtual ~Embedding() = default;
  virtual int64_t bytes() const = 0;
};

// Device memory, 64-byte aligned, zeroed, freed with the object.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual std::byte* data() const = 0;
  virtual int64_t bytes() const = 0;
};

// out[r, :] = x[r, :] * rsqrt(mean(x[r, :]^2) + epsilon) * weight, rounded to the activation type.
struct RmsNormParams {
  const float* x = nullptr;       // [rows, hidden]
  const float* weight = nullptr;  // [hidden]
  void* out = nullptr;            // [rows, hidden], activation type
  int64_t rows = 0;
  int64_t hidden = 0;
  float epsilon = 0;
};

// out = x * weight^T (+ bias) (+ out when accumulate).
struct LinearParams {
  const Weight* weight = nullptr;
  const void* x = nullptr;      // [rows, in_features], activation type; room: PaddedRows
  const float* bias = nullptr;  // [out_features] or null
  void* out = nullptr;          // [rows, out_features]; room: PaddedRows
  DataType out_type = DataType::kF32;
  int64_t rows = 0;
  bool accumulate = false;  // adds to what out holds; f32 only
};

// Rotary embedding (rotate-half form: dimension d is paired with d + head_dim / 2), after an RMS
// norm of each head where q_norm and k_norm are given (Qwen3); then K and V of every row are
// written to the pages.
struct RopeAndStoreParams {
  float* qkv =
      nullptr;  // [rows, (heads + 2 kv_heads) * head_dim]: q, k, v; q and k rotated in place
  const float* cos_sin = nullptr;  // [rows, head_dim]: head_dim / 2 cosines, then as many sines
  const float* q_norm = nullptr;   // [head_dim] or null
  const float* k_norm = nullptr;
  float norm_epsilon = 0;
  std::span<const SequenceRows> sequences;
  PageTableView page_table;
  PagePoolView pages;
  int32_t layer = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  // Rows of q are wanted at all; false where only K and V are (rows of the last layer without
  // logits).
  bool rotate_queries = true;
};

// out[r, h, :] = softmax(scale * q[r, h, :] . K)V over the keys that the row's span shows, reading
// pages. Query head h reads KV head h / (heads / kv_heads). Any mix of spans, lengths and counts in
// one call; invisible pages are never read and may name the zero page.
struct AttentionParams {
  const float* q = nullptr;  // row r at q + r * q_stride: [heads, head_dim]
  int64_t q_stride = 0;      // elements
  void* out = nullptr;       // [rows, heads * head_dim], activation type
  std::span<const SequenceRows> sequences;
  const KeySpan* spans = nullptr;  // spans[s * span_stride] belongs to sequences[s] in this layer
  int64_t span_stride = 0;
  PageTableView page_table;
  PagePoolView pages;
  int32_t layer = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  float scale = 0;
};

class Operators {
 public:
  virtual ~Operators() = default;

  virtual std::string_view backend() const = 0;  // "cpu", "cuda"
  virtual std::string device_name() const = 0;   // for people: processor, instruction set, threads
  virtual const Precision& precision() const = 0;
  // Bytes of one page of one layer.
  virtual int64_t KvPageBytes(int32_t kv_heads, int32_t head_dim) const = 0;
  // Linear computes whole blocks of rows: x and out must have room for PaddedRows(rows) rows, of which
  // those from `rows` on are read and overwritten, whatever they hold. At least `rows`, never falling.
  virtual int64_t PaddedRows(int64_t rows) const = 0;
  // Memory that the device can still give to this process.
  virtual int64_t AvailableBytes() const = 0;

  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) = 0;
  // Reads all rows before it returns, some of them several times.
  virtual absl::StatusOr<std::unique_ptr<Weight>> PackWeight(int64_t out_features,
                                                             int64_t in_features,
                                                             const RowReader& read_rows) = 0;
  // May keep read_rows and read rows later (the CPU gathers from the mapped file).
  virtual absl::StatusOr<std::unique_ptr<Embedding>> MakeEmbedding(int64_t vocab, int64_t hidden,
                                                                   RowReader read_rows) = 0;

  // out[r, :] = table[ids[r], :], f32 [rows, hidden].
  virtual void Embed(const Embedding& table, std::span<const int32_t> ids, float* out) = 0;
  // cos_sin [rows, 2 * inverse_frequencies.size()] for RopeAndStore.
  virtual void RopeTable(std::span<const int32_t> positions,
                         std::span<const float> inverse_frequencies, float attention_factor,
                         float* cos_sin) = 0;
  virtual void RmsNorm(const RmsNormParams& params) = 0;
  virtual void Linear(const LinearParams& params) = 0;
  virtual void RopeAndStore(const RopeAndStoreParams& params) = 0;
  virtual void Attention(const AttentionParams& params) = 0;
  // out[r, c] = silu(gate_up[r, c]) * gate_up[r, width + c]; both of the activation type.
  virtual void SiluMul(const void* gate_up, int64_t rows, int64_t width, void* out) = 0;
  // out[r, :] = x[rows[r], :], f32 of `width` columns.
  virtual void GatherRows(const float* x, std::span<const int32_t> rows, int64_t width,
                          float* out) = 0;
  // Waits until all that was called has been done and host may read the buffers.
  virtual void Finish() = 0;
};

// What a backend is made with.
struct OperatorsOptions {
  std::string device = "cpu";
  // "auto" (bf16 where the processor multiplies it, else f32 weights with bf16 pages) or "f32".
  std::string dtype = "auto";
  int32_t threads = 0;  // CPU: 0 takes all cores that the process may use
  // CPU: "auto", "amx", "avx512_bf16", "avx512", "avx2" or "generic". Asking for what the machine
  // lacks is an error.
  std::string instruction_set = "auto";
};

// INVALID_ARGUMENT for a device, dtype or instruction set that this build or machine does not have;
// the message lists what there is.
absl::StatusOr<std::unique_ptr<Operators>> CreateOperators(const OperatorsOptions& options);

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_OPERATORS_H_
