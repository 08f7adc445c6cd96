// The operators of a backend, as the transformer (engine/model) calls them. One object a device.
//
// Memory named by void* is the device's: it comes from Allocate, and the host reaches it only by
// Upload. All matrices are row-major and dense unless a stride is given. Calls are made from one
// thread (the device's) and may return before the work is done, in order; only Wait may be called
// from another thread, Memory and Facts from any. What breaks an invariant is CHECKed; what input
// or capacity can cause is a Status of the calls that load. In a step a lack of memory throws
// std::bad_alloc: the step has failed, but for its page-table updates, and later ones may succeed.
// Any other std::exception means that the device has failed.
//
// A step: Stage copies all that it needs from the host in one piece; the operators that follow
// enqueue its work; Submit closes it, and Wait gives its tokens. As many steps may be between Stage
// and Wait as the capacity says.

#ifndef SWAA_KERNELS_OPERATORS_H_
#define SWAA_KERNELS_OPERATORS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "kernels/device_state.h"
#include "kernels/ranks/communicator.h"
#include "kernels/step.h"
#include "kernels/types.h"

namespace swaa::kernels {

// Element types of a running model.
struct Precision {
  DataType weights = DataType::kBf16;
  DataType activations = DataType::kBf16;  // inputs of products
  DataType residual = DataType::kF32;      // the residual stream
  DataType deltas = DataType::kF32;        // what a product adds to it
  DataType queries = DataType::kF32;       // q, k and v between product and attention
  DataType kv = DataType::kBf16;           // pages
};

// The numbers of a model that decide whether a backend has kernels for it; where several ranks
// share the model, of one rank's part.
struct ModelShape {
  int32_t num_layers = 0;
  int32_t hidden = 0;
  int32_t ffn_width = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  float attention_scale = 0;   // of q . k
  int32_t vocab = 0;           // of the whole model
  int32_t logits_columns = 0;  // of the vocabulary, those that this rank computes
  // Of a layer that is a mixture of experts; 0: no layer is.
  int32_t experts = 0;
  int32_t experts_per_row = 0;
  int32_t expert_width = 0;

  int64_t head_width() const { return int64_t{heads} * head_dim; }
  int64_t kv_width() const { return int64_t{kv_heads} * head_dim; }
  int64_t qkv_width() const { return head_width() + 2 * kv_width(); }
};

// What a device holds besides weights and activations; fixed before the first step.
struct StepCapacity {
  ModelShape model;
  int32_t num_pages = 0;            // of the pool, the zero page included
  int32_t num_slots = 0;            // rows of the page table, and of the sampling state
  int32_t max_pages_per_layer = 0;  // of one slot
  int32_t max_rows = 0;             // of a step
  int32_t max_logits_rows = 0;      // of one Sample
  int32_t max_steps = 1;            // between Stage and Wait
  int32_t adapted_products = 0;     // that adapters may change (StepInput::adapters)
};

// Writes rows first_row .. first_row + count - 1 of a host matrix [rows, columns] as f32 to out.
// Called while loading, from several threads at once.
using RowReader = std::function<void(int64_t first_row, int64_t count, float* out)>;

// Some rows of a matrix on the host.
struct HostRows {
  int64_t count = 0;
  RowReader read;
  // The same rows as bf16 [count, columns] in memory, at no particular alignment; or null.
  const std::byte* bf16 = nullptr;
};

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
  virtual int64_t bytes() const = 0;  // beside those of a weight that it shares
};

// Device memory, 256-byte aligned, zeroed, freed with the object.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual std::byte* data() const = 0;  // the device's address
  virtual int64_t bytes() const = 0;
};

// A step on its way through a device. A backend's own type stands behind it.
class StagedStep {
 public:
  virtual ~StagedStep() = default;
  int64_t rows() const { return rows_; }
  // Rows whose logits are wanted, in order of rows.
  int64_t wanted_rows() const { return wanted_rows_; }
  // Every row's logits are wanted: nothing needs to be gathered.
  bool all_wanted() const { return wanted_rows_ == rows_; }
  // Some row may have an adapter: products that adapters change are to name their place.
  bool adapted() const { return adapted_; }

 protected:
  // As operators are to compute them; at least those of the step (a backend may pad).
  int64_t rows_ = 0;
  int64_t wanted_rows_ = 0;
  bool adapted_ = false;
};

// What a step gave.
struct StepOutput {
  std::vector<ScoredToken> tokens;  // [StepInput::logits]
  double seconds = 0;               // that the device worked on it
};

// residual += delta; out[r, :] = residual[r, :] * rsqrt(mean(residual[r, :]^2) + epsilon) * weight.
// Where several ranks share the model, what is added is the sum of their deltas; other ranks may
// read a delta until the next call with one, so two in a row are different memory.
struct AddNormParams {
  void* residual = nullptr;       // [rows, hidden], residual type
  void* delta = nullptr;          // [rows, hidden], delta type, spoilt; null: nothing is added
  const float* weight = nullptr;  // [hidden]
  void* out = nullptr;            // [rows, hidden], activation type
  int64_t rows = 0;
  int64_t hidden = 0;
  float epsilon = 0;
};

// A part of what an adapter adds to the product of a weight (LoRA, arXiv 2106.09685):
// out[first_output + o] += up[o, :] . (down * x). Weights that are fused have a part for each that
// they are made of.
struct LoraPart {
  int64_t first_output = 0;
  int64_t outputs = 0;
  int64_t rank = 0;
  RowReader down;  // [rank, in_features]
  RowReader up;    // [outputs, rank], the adapter's scale in it
};

// What an adapter adds to the product of one weight.
struct LoraSpec {
  int64_t in_features = 0;
  std::vector<LoraPart> parts;  // of disjoint outputs
};

// The same, packed. Immutable; freed by any thread, before the operators.
class LoraWeight {
 public:
  virtual ~LoraWeight() = default;
  virtual int64_t bytes() const = 0;
};

// What the step's adapters (StepInput::adapters) add to a product, each row its own sequence's:
// computed for all rows at once, and not at all for those without one. Read during the call alone.
struct LoraUpdate {
  const StagedStep* step = nullptr;  // whose rows the product has
  bool wanted_rows = false;          // those alone whose logits are wanted, gathered
  int32_t product = 0;               // its place among an adapter's weights
};

// out = x * weight^T (+ bias) (+ what adapters add).
struct LinearParams {
  const Weight* weight = nullptr;
  const void* x = nullptr;      // [rows, in_features], activation type; room: PaddedRows
  const float* bias = nullptr;  // [out_features] or null
  void* out = nullptr;          // [rows, out_features]; room: PaddedRows
  DataType out_type = DataType::kF32;
  int64_t rows = 0;
  const LoraUpdate* lora = nullptr;  // or null
};

// out[r, c] = silu(x[r, :] . gate_c) * (x[r, :] . up_c), where gate_c is row c of the weight and
// up_c row c + width.
struct GatedLinearParams {
  const Weight* weight = nullptr;  // [2 width, in_features]
  const void* x = nullptr;         // [rows, in_features], activation type; room: PaddedRows
  void* scratch = nullptr;         // [rows, 2 width], activation type; room: PaddedRows
  void* out = nullptr;             // [rows, width], activation type
  int64_t rows = 0;
  const LoraUpdate* lora = nullptr;  // of the product, before silu; or null
};

// One of the feed-forward networks of a mixture.
struct ExpertWeights {
  const Weight* gate_up = nullptr;  // [2 width, hidden]: gate, up, as GatedLinearParams has them
  const Weight* down = nullptr;     // [hidden, width]
};

// The numbers that decide what a mixture of experts needs besides its weights.
struct ExpertsShape {
  int64_t hidden = 0;
  int64_t width = 0;            // of one expert
  int32_t count = 0;            // of experts
  int32_t experts_per_row = 0;  // at most `count`
};

// A sparsely gated mixture of experts (Shazeer et al., arXiv 1701.06538). Each row goes to the
// experts_per_row experts with the largest logits (of equal ones that with the lower number), and
// out[r, :] = sum over them of p_e * down_e(silu(gate_e x[r, :]) * up_e x[r, :]), where p is the
// softmax over all experts' logits, or over the chosen ones' alone if `normalize`. Costs what the
// rows and the experts that some row goes to cost; the others' weights are not read.
struct ExpertsParams {
  // Outlives the operators' steps: a backend may keep what it knows of it.
  std::span<const ExpertWeights> experts;
  int32_t experts_per_row = 0;
  bool normalize = false;
  const float* logits = nullptr;  // [rows, experts]
  const void* x = nullptr;        // [rows, hidden], activation type
  void* scratch = nullptr;        // room: ExpertScratchBytes
  void* out = nullptr;            // [rows, hidden], delta type
  int64_t rows = 0;
  // Whose rows these are, all of them or the wanted ones: rows that a backend padded it with go to
  // no expert. Null: there are none such.
  const StagedStep* step = nullptr;
};

// Rotary embedding (rotate-half form: dimension d is paired with d + head_dim / 2), after an RMS
// norm of each head where q_norm and k_norm are given (Qwen3); then K and V of every row of the
// step are written to its pages.
struct RopeAndStoreParams {
  // [rows, (heads + 2 kv_heads) * head_dim], query type: q, k, v; q and k rotated in place
  void* qkv = nullptr;
  const float* cos_sin = nullptr;  // [rows, head_dim]: head_dim / 2 cosines, then as many sines
  const float* q_norm = nullptr;   // [head_dim] or null
  const float* k_norm = nullptr;
  float norm_epsilon = 0;
  int32_t layer = 0;
  // Rows of q are wanted at all; false where only K and V are (rows of the last layer without
  // logits).
  bool rotate_queries = true;
};

// out[r, h, :] = softmax(attention_scale * q[r, h, :] . K)V over the keys that the row's span
// shows, reading pages. Query head h reads KV head h / (heads / kv_heads). Any mix of spans,
// lengths and counts in one call; invisible pages are never read and may name the zero page.
struct AttentionParams {
  const void* qkv = nullptr;  // as RopeAndStore left it: q of row r begins the row
  void* out = nullptr;        // [rows, heads * head_dim], activation type
  int32_t layer = 0;
  // Of the rows whose logits are wanted, gathered in qkv, instead of all rows.
  bool wanted_rows = false;
};

// The draws and scores of rows first .. first + count - 1 of the wanted ones.
struct SampleParams {
  const float* logits = nullptr;  // [count, vocab]
  int64_t first = 0;
  int64_t count = 0;
};

class Operators {
 public:
  virtual ~Operators() = default;

  virtual std::string_view backend() const = 0;  // "cpu", "cuda"
  virtual std::string device_name() const = 0;   // for people: processor or card
  virtual const Precision& precision() const = 0;
  virtual int32_t max_steps_in_flight() const = 0;
  // What was handed out until now, and what is left: measured at most a second ago. Thread-safe.
  virtual MemoryUse Memory() const = 0;
  // Measured at most a second ago. Thread-safe.
  virtual DeviceFacts Facts() const = 0;
  // With the other ranks that the model is shared among; null: there are none.
  virtual Communicator* communicator() const { return nullptr; }
  Shard shard() const { return communicator() == nullptr ? Shard{} : communicator()->shard(); }

  // --- Loading ---

  // UNIMPLEMENTED where the backend has no kernel for the shape; names the number and what there
  // is.
  virtual absl::Status Supports(const ModelShape& shape) const = 0;
  // Bytes of one page of one layer.
  virtual int64_t KvPageBytes(int32_t kv_heads, int32_t head_dim) const = 0;
  // The most that a packed weight takes.
  virtual int64_t MaxWeightBytes(int64_t out_features, int64_t in_features) const = 0;
  // Of a table that shares no weight.
  virtual int64_t EmbeddingBytes(int64_t vocab, int64_t hidden) const = 0;
  // Linear computes whole blocks of rows: x and out must have room for PaddedRows(rows) rows, of
  // which those from `rows` on are read and overwritten, whatever they hold. At least `rows`, never
  // falling.
  virtual int64_t PaddedRows(int64_t rows) const = 0;
  // What Experts needs for so many rows. Never falling.
  virtual int64_t ExpertScratchBytes(const ExpertsShape& shape, int64_t rows) const = 0;
  // Memory that the device can still give to this process; of a device that several ranks have in
  // common, this rank's share.
  virtual int64_t AvailableBytes() const = 0;
  // What the state of PrepareSteps takes, pages included.
  virtual int64_t StateBytes(const StepCapacity& capacity) const = 0;

  // `kind` is what it counts as in Memory.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes, MemoryKind kind) = 0;
  // Copies from host to device memory; done on return.
  virtual void Upload(const void* host, int64_t bytes, void* device) = 0;
  // The parts lie under one another in the weight. Reads all rows before it returns, some of them
  // several times.
  virtual absl::StatusOr<std::unique_ptr<Weight>> PackWeight(std::span<const HostRows> parts,
                                                             int64_t in_features) = 0;
  // May keep `rows` and read them later (the CPU gathers from the mapped file). `tied` holds the
  // same matrix as a weight, or is null; it outlives the table.
  virtual absl::StatusOr<std::unique_ptr<Embedding>> MakeEmbedding(const Weight* tied,
                                                                   HostRows rows,
                                                                   int64_t hidden) = 0;
  // UNIMPLEMENTED, naming the backend, where it has no product for adapters.
  virtual absl::Status SupportsLora() const {
    return absl::UnimplementedError(
        absl::StrCat("adapters: the ", std::string(backend()),
                     " backend has no low-rank product yet; serve them with --device cpu"));
  }
  // Packs what one adapter adds to each of the weights; as SupportsLora, and RESOURCE_EXHAUSTED
  // where the device has not the memory. Thread-safe: steps may run beside it.
  virtual absl::StatusOr<std::vector<std::unique_ptr<LoraWeight>>> PackLora(
      std::span<const LoraSpec> weights) {
    return SupportsLora();
  }
  // Takes pages, page table and what steps need. Once, after the weights.
  virtual absl::Status PrepareSteps(const StepCapacity& capacity) = 0;
  // Calls `forward`, which enqueues a step, for steps that nobody asked for: to choose algorithms
  // and to capture what will be replayed. Once, after PrepareSteps.
  virtual absl::Status WarmUp(absl::FunctionRef<void(StagedStep*)> forward) = 0;

  // --- A step ---

  // Takes the step over; valid until Wait has returned it. Page-table updates and slot setups take
  // effect after all steps staged before.
  virtual StagedStep* Stage(const StepInput& input) = 0;
  // Calls `enqueue`, or does again what an equal step's enqueue did (a captured graph). All
  // operators between Stage and Submit are called inside.
  virtual void Replay(StagedStep* step, absl::FunctionRef<void()> enqueue) = 0;
  virtual void Submit(StagedStep* step) = 0;
  // Instead of Replay and Submit: the step is not computed, but for its page-table updates.
  virtual void Discard(StagedStep* step) = 0;
  // Waits until the step is done. Steps are waited for in the order of their submission.
  virtual absl::StatusOr<StepOutput> Wait(StagedStep* step) = 0;

  // out[r, :] = table[token of row r, :], residual type [rows, hidden].
  virtual void Embed(const StagedStep& step, const Embedding& table, void* out) = 0;
  // cos_sin f32 [rows, head_dim] for RopeAndStore; inverse_frequencies f32 [head_dim / 2], the
  // device's.
  virtual void RopeTable(const StagedStep& step, const float* inverse_frequencies,
                         float attention_factor, float* cos_sin) = 0;
  virtual void AddNorm(const AddNormParams& params) = 0;
  virtual void Linear(const LinearParams& params) = 0;
  virtual void GatedLinear(const GatedLinearParams& params) = 0;
  virtual void Experts(const ExpertsParams& params) = 0;
  virtual void RopeAndStore(const StagedStep& step, const RopeAndStoreParams& params) = 0;
  virtual void Attention(const StagedStep& step, const AttentionParams& params) = 0;
  // Rows of row_bytes bytes whose logits are wanted, one after the other.
  virtual void GatherWantedRows(const StagedStep& step, const void* x, int64_t row_bytes,
                                void* out) = 0;
  virtual void Sample(StagedStep* step, const SampleParams& params) = 0;
};

// What a backend is made with.
struct OperatorsOptions {
  // "auto" (a GPU where this build and machine have one, else the CPU), "cpu", "cuda" or "cuda:n".
  std::string device = "cpu";
  // CPU: "auto" (bf16 where the processor multiplies it, else f32 weights with bf16 pages) or
  // "f32". CUDA: bf16.
  std::string dtype = "auto";
  int32_t threads = 0;  // CPU: 0 takes all cores that the process may use
  // CPU: "auto", "amx", "avx512_bf16", "avx512", "avx2" or "generic". Asking for what the machine
  // lacks is an error.
  std::string instruction_set = "auto";
  // CUDA: the share of the card's memory that this process may take.
  double gpu_memory_utilization = 0.9;
};

// INVALID_ARGUMENT for a device, dtype or instruction set that this build or machine does not have;
// the message lists what there is.
absl::StatusOr<std::unique_ptr<Operators>> CreateOperators(const OperatorsOptions& options);

// As many that share a model, each with a communicator of its own: on the CPU they share the
// options' threads; of GPUs each takes one, from the one that the options name upwards. As
// CreateOperators; INVALID_ARGUMENT where there are too few GPUs, UNIMPLEMENTED where this build
// has nothing by which they could tell each other anything.
absl::StatusOr<std::vector<std::unique_ptr<Operators>>> CreateRanks(const OperatorsOptions& options,
                                                                    int32_t ranks);

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_OPERATORS_H_
