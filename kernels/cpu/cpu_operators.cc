// The CPU backend: every operator over rows in OpenMP threads.

#include "kernels/cpu/cpu_operators.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_task.h"
#include "kernels/cpu/cpu_step.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/experts.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/lora.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/parallel_ranges.h"
#include "kernels/cpu/sampler.h"
#include "kernels/cpu/threads.h"
#include "kernels/host_rows.h"

namespace swaa::kernels::cpu {
namespace {

class RowEmbedding : public Embedding {
 public:
  RowEmbedding(HostRows rows, int64_t hidden) : rows_(std::move(rows)), hidden_(hidden) {}
  int64_t bytes() const override { return 0; }  // the rows stay where the reader has them
  int64_t vocab() const { return rows_.count; }
  int64_t hidden() const { return hidden_; }
  void Read(int64_t row, float* out) const { rows_.read(row, 1, out); }

 private:
  HostRows rows_;
  int64_t hidden_;
};

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "x86-64 processor";
}

class CpuOperators : public Operators {
 public:
  CpuOperators(InstructionSet set, const AttentionKernels& attention, const Precision& precision,
               int threads, std::unique_ptr<Communicator> communicator)
      : set_(set),
        attention_(attention),
        precision_(precision),
        threads_(threads),
        elementwise_(ElementwiseFor(set)),
        linear_(CpuLinear::Create(precision.weights,
                                  set >= InstructionSet::kAvx512 && HasBf16Products(), threads)),
        experts_(precision, elementwise_, threads, linear_.get()),
        lora_(elementwise_, precision.activations, threads),
        communicator_(std::move(communicator)) {}

  std::string_view backend() const override { return "cpu"; }
  std::string device_name() const override {
    return absl::StrCat(ProcessorName(), ", ", std::string(Name(set_)), " (attention: prefill ",
                        attention_.prefill->name, ", decode ", attention_.decode->name, "), ",
                        threads_, threads_ == 1 ? " thread" : " threads");
  }
  const Precision& precision() const override { return precision_; }
  int32_t max_steps_in_flight() const override { return 1; }
  MemoryUse Memory() const override { return memory_.Use(AvailableBytes()); }
  DeviceFacts Facts() const override { return {}; }
  Communicator* communicator() const override { return communicator_.get(); }

  absl::Status Supports(const ModelShape& shape) const override {
    if (shape.head_dim % 32 != 0 || shape.head_dim > kMaxHeadDim) {
      return absl::UnimplementedError(
          absl::StrCat("head_dim: the CPU has no attention for ", shape.head_dim,
                       "; it has it for multiples of 32 up to ", kMaxHeadDim));
    }
    return absl::OkStatus();
  }
  int64_t MaxWeightBytes(int64_t out_features, int64_t in_features) const override {
    return linear_->MaxBytes(out_features, in_features);
  }
  // Rows are read from the checkpoint when they are needed.
  int64_t EmbeddingBytes(int64_t vocab, int64_t hidden) const override { return 0; }
  int64_t StateBytes(const StepCapacity& capacity) const override {
    return int64_t{capacity.num_pages} *
               KvPageBytes(capacity.model.kv_heads, capacity.model.head_dim) +
           PageTableBytes(capacity);
  }

  int64_t KvPageBytes(int32_t kv_heads, int32_t head_dim) const override {
    return cpu::KvPageBytes(precision_.kv, kv_heads, head_dim);
  }
  int64_t PaddedRows(int64_t rows) const override { return CpuLinear::PaddedRows(rows); }
  int64_t ExpertScratchBytes(const ExpertsShape& shape, int64_t rows) const override {
    return experts_.ScratchBytes(shape, rows);
  }
  int64_t AvailableBytes() const override { return AvailableMemoryBytes() / shard().size; }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes, MemoryKind kind) override {
    SWAA_ASSIGN_OR_RETURN(auto buffer, AllocateBuffer(bytes));
    memory_.Add(kind, bytes);
    return buffer;
  }

  absl::StatusOr<std::unique_ptr<Weight>> PackWeight(std::span<const HostRows> parts,
                                                     int64_t in_features) override {
    int64_t out_features = 0;
    for (const HostRows& part : parts) out_features += part.count;
    SWAA_ASSIGN_OR_RETURN(
        auto weight, linear_->Pack(out_features, in_features, Concatenate(parts, in_features)));
    memory_.Add(MemoryKind::kWeights, weight->bytes());
    return weight;
  }

  absl::Status SupportsLora() const override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<std::unique_ptr<LoraWeight>>> PackLora(
      std::span<const LoraSpec> weights) override {
    return PackCpuLora(weights, precision_.weights, &memory_);
  }

  absl::StatusOr<std::unique_ptr<Embedding>> MakeEmbedding(const Weight* tied, HostRows rows,
                                                           int64_t hidden) override {
    return std::make_unique<RowEmbedding>(std::move(rows), hidden);
  }

  void Upload(const void* host, int64_t bytes, void* device) override {
    std::memcpy(device, host, bytes);
  }

  absl::Status PrepareSteps(const StepCapacity& capacity) override {
    capacity_ = capacity;
    const ModelShape& model = capacity.model;
    page_bytes_ = KvPageBytes(model.kv_heads, model.head_dim);
    SWAA_ASSIGN_OR_RETURN(pool_,
                          Allocate(int64_t{capacity.num_pages} * page_bytes_, MemoryKind::kKv));
    SWAA_ASSIGN_OR_RETURN(page_table_, Allocate(PageTableBytes(capacity), MemoryKind::kWorkspace));
    sampler_ = std::make_unique<CpuSampler>(capacity.num_slots, model.vocab);
    return absl::OkStatus();
  }

  // Primitives are made when they are first needed, in well under a millisecond.
  absl::Status WarmUp(absl::FunctionRef<void(StagedStep*)> forward) override {
    return absl::OkStatus();
  }

  // --- A step ---

  StagedStep* Stage(const StepInput& input) override {
    auto* entries = reinterpret_cast<int32_t*>(page_table_->data());
    for (const PageTableUpdate& update : input.page_table_updates) {
      const int64_t row = int64_t{update.slot} * capacity_.model.num_layers + update.layer;
      entries[row * capacity_.max_pages_per_layer + update.block] = update.page;
    }
    sampler_->SetUp(input.setups);
    step_.Take(input, *sampler_);
    const ModelShape& model = capacity_.model;
    step_.PlanAttention({.heads = model.heads,
                         .kv_heads = model.kv_heads,
                         .head_dim = model.head_dim,
                         .q_stride = model.qkv_width(),
                         .scale = model.attention_scale},
                        attention_options());
    return &step_;
  }

  void Replay(StagedStep* step, absl::FunctionRef<void()> enqueue) override { enqueue(); }

  void Submit(StagedStep* step) override {
    step_.output.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - step_.begin).count();
  }

  void Discard(StagedStep* step) override {}

  absl::StatusOr<StepOutput> Wait(StagedStep* step) override {
    return std::exchange(step_.output, {});
  }

  void Embed(const StagedStep& step, const Embedding& table, void* out) override {
    const std::vector<int32_t>& ids = Cast(step).tokens;
    const auto& rows = static_cast<const RowEmbedding&>(table);
    const int64_t hidden = rows.hidden();
    // The same rounding as a weight packed for many rows: tied embeddings then are one matrix
    // there.
    const bool round = precision_.weights == DataType::kBf16;
    ForRows(ids.size(), hidden, [&](int64_t r) {
      SWAA_CHECK(ids[r] >= 0 && ids[r] < rows.vocab()) << "token " << ids[r];
      float* row = static_cast<float*>(out) + r * hidden;
      rows.Read(ids[r], row);
      if (round) elementwise_.round_to_bf16(row, hidden);
    });
  }

  void RopeTable(const StagedStep& step, const float* inverse_frequencies, float attention_factor,
                 float* cos_sin) override {
    const std::vector<int32_t>& positions = Cast(step).positions;
    const int64_t half = capacity_.model.head_dim / 2;
    ForRows(positions.size(), 16 * half, [&](int64_t r) {
      float* row = cos_sin + r * 2 * half;
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(positions[r]) * inverse_frequencies[i];
        row[i] = std::cos(angle) * attention_factor;
        row[half + i] = std::sin(angle) * attention_factor;
      }
    });
  }

  void AddNorm(const AddNormParams& p) override {
    if (communicator_ != nullptr && p.delta != nullptr) {
      communicator_->AllReduce(p.delta, p.rows * p.hidden, precision_.deltas);
    }
    const bool bf16 = precision_.activations == DataType::kBf16;
    const int64_t out_bytes = p.hidden * SizeOf(precision_.activations);
    ForRows(p.rows, p.hidden, [&](int64_t r) {
      const auto* delta = static_cast<const float*>(p.delta);
      elementwise_.add_norm(static_cast<float*>(p.residual) + r * p.hidden,
                            delta == nullptr ? nullptr : delta + r * p.hidden, p.weight, p.hidden,
                            p.epsilon, static_cast<std::byte*>(p.out) + r * out_bytes, bf16);
    });
  }

  void Linear(const LinearParams& p) override {
    linear_->Run(p);
    if (p.lora != nullptr) AddLora(*p.lora, *p.weight, p.x, p.out, p.out_type);
  }

  void RopeAndStore(const StagedStep& step, const RopeAndStoreParams& p) override {
    ForRanges(threads_, step.rows(), capacity_.model.qkv_width(),
              [&](int64_t first, int64_t last) { RopeAndStoreRange(Cast(step), p, first, last); });
  }

  void Attention(const StagedStep& step, const kernels::AttentionParams& p) override {
    const CpuStep& staged = Cast(step);
    PrepareOpenMpThreads(threads_);
    cpu::Attention(p.wanted_rows ? staged.wanted_plan : staged.plans[staged.layer_class[p.layer]],
                   {.q = static_cast<const float*>(p.qkv),
                    .out = p.out,
                    .page_table = page_table(),
                    .pages = pages(),
                    .layer = p.layer},
                   attention_options());
  }

  void GatedLinear(const GatedLinearParams& p) override {
    const DataType type = precision_.activations;
    linear_->Run(
        {.weight = p.weight, .x = p.x, .out = p.scratch, .out_type = type, .rows = p.rows});
    if (p.lora != nullptr) AddLora(*p.lora, *p.weight, p.x, p.scratch, type);
    const int64_t width = p.weight->out_features() / 2, bytes = width * SizeOf(type);
    ForRows(p.rows, 4 * width, [&](int64_t r) {
      const auto* gate = static_cast<const std::byte*>(p.scratch) + r * 2 * bytes;
      elementwise_.silu_mul(gate, gate + bytes, width, static_cast<std::byte*>(p.out) + r * bytes,
                            type == DataType::kBf16);
    });
  }

  void Experts(const ExpertsParams& p) override { experts_.Run(p); }

  void GatherWantedRows(const StagedStep& step, const void* x, int64_t row_bytes,
                        void* out) override {
    const std::vector<int32_t>& rows = Cast(step).wanted.rows;
    ForRows(rows.size(), row_bytes / 4, [&](int64_t r) {
      std::memcpy(static_cast<std::byte*>(out) + r * row_bytes,
                  static_cast<const std::byte*>(x) + rows[r] * row_bytes, row_bytes);
    });
  }

  void Sample(StagedStep* step, const SampleParams& p) override {
    PrepareOpenMpThreads(threads_);
    sampler_->Sample(p.logits, std::span(step_.logits).subspan(p.first, p.count),
                     std::span(step_.output.tokens).subspan(p.first, p.count));
  }

 private:
  static const CpuStep& Cast(const StagedStep& step) { return static_cast<const CpuStep&>(step); }

  static int64_t PageTableBytes(const StepCapacity& capacity) {
    return int64_t{4} * capacity.num_slots * capacity.model.num_layers *
           capacity.max_pages_per_layer;
  }

  PageTableView page_table() const {
    return {reinterpret_cast<const int32_t*>(page_table_->data()), capacity_.model.num_layers,
            capacity_.max_pages_per_layer};
  }
  PagePoolView pages() const { return {pool_->data(), page_bytes_}; }

  CpuAttentionOptions attention_options() const {
    return {.instruction_set = set_,
            .kv = precision_.kv,
            .out = precision_.activations,
            .threads = threads_,
            .kernels = attention_};
  }

  void AddLora(const LoraUpdate& update, const Weight& weight, const void* x, void* out,
               DataType out_type) {
    const CpuStep& step = Cast(*update.step);
    lora_.Add(update.wanted_rows ? step.wanted_adapter_rows : step.adapter_rows,
              step.LoraWeightsOf(update.product), x, weight.in_features(), out, out_type,
              weight.out_features());
  }

  template <typename Body>
  void ForRows(int64_t count, int64_t elements_per_row, const Body& body) {
    ForRanges(threads_, count, elements_per_row, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) body(r);
    });
  }

  // Rows first .. last - 1, counted over all sequences.
  void RopeAndStoreRange(const CpuStep& step, const RopeAndStoreParams& p, int64_t first,
                         int64_t last) {
    std::array<KeyValueRow, kPageTokens> pending;
    int64_t count = 0;
    int64_t before = 0;  // rows of the sequences that were passed
    const int32_t kv_heads = capacity_.model.kv_heads, head_dim = capacity_.model.head_dim;
    for (const SequenceRows& sequence : step.sequences) {
      const int64_t begin = std::max<int64_t>(first - before, 0);
      const int64_t end = std::min<int64_t>(last - before, sequence.query_count);
      const int32_t* table = page_table().Pages(sequence.slot, p.layer);
      for (int64_t r = begin; r < end; ++r) {
        pending[count++] = RotateRow(p, sequence.first_row + r, sequence.first_position + r, table);
        if (count == kPageTokens) {
          StoreKeyValue(pending.data(), count, kv_heads, head_dim, attention_options());
          count = 0;
        }
      }
      before += sequence.query_count;
      if (before >= last) break;
    }
    if (count > 0) StoreKeyValue(pending.data(), count, kv_heads, head_dim, attention_options());
  }

  KeyValueRow RotateRow(const RopeAndStoreParams& p, int64_t row, int64_t position,
                        const int32_t* table) {
    const ModelShape& model = capacity_.model;
    const int64_t head_dim = model.head_dim;
    float* q = static_cast<float*>(p.qkv) + row * model.qkv_width();
    float* k = q + model.head_width();
    const float* cos_sin = p.cos_sin + row * head_dim;
    if (p.rotate_queries) {
      for (int64_t h = 0; h < model.heads; ++h) {
        elementwise_.rope_head(q + h * head_dim, cos_sin, head_dim, p.q_norm, p.norm_epsilon);
      }
    }
    for (int64_t h = 0; h < model.kv_heads; ++h) {
      elementwise_.rope_head(k + h * head_dim, cos_sin, head_dim, p.k_norm, p.norm_epsilon);
    }
    const int32_t page = table[position / kPageTokens];
    SWAA_CHECK_NE(page, kZeroPage)
        << "position " << position << " of layer " << p.layer << " has no page to be written to";
    return {.k = k,
            .v = k + model.kv_width(),
            .page = pages().Page(page),
            .offset = static_cast<int32_t>(position % kPageTokens)};
  }

  InstructionSet set_;
  AttentionKernels attention_;
  Precision precision_;
  int threads_;
  const ElementwiseKernels& elementwise_;
  std::unique_ptr<CpuLinear> linear_;
  CpuExperts experts_;
  CpuLora lora_;
  const std::unique_ptr<Communicator> communicator_;

  MemoryCounter memory_;
  StepCapacity capacity_;
  int64_t page_bytes_ = 0;
  std::unique_ptr<Buffer> pool_;
  std::unique_ptr<Buffer> page_table_;
  std::unique_ptr<CpuSampler> sampler_;
  CpuStep step_;
};

absl::StatusOr<InstructionSet> ParseInstructionSet(const std::string& name) {
  if (name == "auto") return BestInstructionSet();
  std::string supported = "auto";
  for (InstructionSet set : SupportedInstructionSets()) {
    if (Name(set) == name) return set;
    absl::StrAppend(&supported, ", ", std::string(Name(set)));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("instruction set: this machine has no \"", name, "\"; it has ", supported));
}

absl::StatusOr<Precision> ParsePrecision(const std::string& dtype, InstructionSet set) {
  Precision precision;
  if (dtype == "f32") {
    precision.weights = precision.activations = precision.kv = DataType::kF32;
  } else if (dtype != "auto") {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype: unknown value \"", dtype, "\"; use auto or f32"));
  } else if (set < InstructionSet::kAvx512 || !HasBf16Products()) {
    precision.weights = precision.activations = DataType::kF32;
  }
  return precision;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Operators>> CreateCpuOperators(
    const OperatorsOptions& options, std::unique_ptr<Communicator> communicator) {
  if (options.threads < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads: ", options.threads, " is negative; 0 takes all processors"));
  }
  SWAA_ASSIGN_OR_RETURN(const InstructionSet set, ParseInstructionSet(options.instruction_set));
  SWAA_ASSIGN_OR_RETURN(const Precision precision, ParsePrecision(options.dtype, set));
  const int threads = options.threads > 0 ? options.threads : AvailableProcessors();
  const int ranks = communicator == nullptr ? 1 : communicator->shard().size;
  const AttentionKernels attention =
      MeasuredAttentionKernels(set, /*named=*/options.instruction_set != "auto", precision.kv);
  return std::make_unique<CpuOperators>(set, attention, precision, std::max(1, threads / ranks),
                                        std::move(communicator));
}

}  // namespace swaa::kernels::cpu
