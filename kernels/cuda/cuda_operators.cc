// The CUDA backend: binds its parts to the operators' interface. Everything goes to one stream, so
// that a step's work follows that of the step before without the host; only Wait waits.

#include "kernels/cuda/cuda_operators.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <map>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_step.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/elementwise/elementwise.h"
#include "kernels/cuda/graph_cache.h"
#include "kernels/cuda/linear/products.h"
#include "kernels/cuda/nvml.h"
#include "kernels/cuda/sampling/sampler.h"
#include "kernels/cuda/throttled.h"

namespace swaa::kernels::cuda {
namespace {

// Page-table changes that go up with the step; more of them go in pieces of this many.
constexpr int64_t kMaxUpdates = 16384;
constexpr int32_t kStepsInFlight = 2;
// Of free memory and the driver's facts: asking takes locks that launches take too.
constexpr std::chrono::seconds kReadingPeriod{1};

class DeviceWeight : public Weight {
 public:
  DeviceWeight(const Bf16* data, int64_t out_features, int64_t in_features)
      : data_(data), out_features_(out_features), in_features_(in_features) {}
  int64_t out_features() const override { return out_features_; }
  int64_t in_features() const override { return in_features_; }
  int64_t bytes() const override { return 2 * out_features_ * in_features_; }
  const Bf16* data() const { return data_; }

 private:
  const Bf16* data_;
  int64_t out_features_;
  int64_t in_features_;
};

class DeviceEmbedding : public Embedding {
 public:
  DeviceEmbedding(const Bf16* data, int64_t vocab, int64_t hidden, bool shared)
      : data_(data), vocab_(vocab), hidden_(hidden), shared_(shared) {}
  int64_t bytes() const override { return shared_ ? 0 : 2 * vocab_ * hidden_; }
  const Bf16* data() const { return data_; }
  int64_t vocab() const { return vocab_; }
  int64_t hidden() const { return hidden_; }

 private:
  const Bf16* data_;
  int64_t vocab_;
  int64_t hidden_;
  bool shared_;
};

class CudaOperators : public Operators {
 public:
  CudaOperators(const CudaDevice& device, double utilization)
      : device_(device), arena_(utilization) {}

  ~CudaOperators() override {
    cudaSetDevice(device_.ordinal);
    if (stream_ != nullptr) {
      cudaStreamSynchronize(stream_);
      cudaStreamDestroy(stream_);
    }
  }

  absl::Status Open() {
    std::array<char, 32> bus_id{};
    if (cudaDeviceGetPCIBusId(bus_id.data(), static_cast<int>(bus_id.size()), device_.ordinal) ==
        cudaSuccess) {
      nvml_ = Nvml::Open(kNvmlLibrary, bus_id.data());
    }
    return CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream");
  }

  std::string_view backend() const override { return "cuda"; }
  std::string device_name() const override { return device_.name; }
  const Precision& precision() const override { return precision_; }
  int32_t max_steps_in_flight() const override { return kStepsInFlight; }
  MemoryUse Memory() const override {
    MemoryUse use = arena_.Use(free_bytes_.Get());
    use.workspace += sampler_bytes_;
    return use;
  }
  DeviceFacts Facts() const override { return facts_.Get(); }

  // --- Loading ---

  absl::Status Supports(const ModelShape& shape) const override {
    const absl::Status supported = SupportsOnCuda(shape);
    if (supported.ok()) return supported;
    return absl::UnimplementedError(
        absl::StrCat(std::string(supported.message()), "; use --device cpu"));
  }

  int64_t KvPageBytes(int32_t kv_heads, int32_t head_dim) const override {
    return int64_t{2} * kv_heads * kPageTokens * head_dim * 2;
  }
  int64_t MaxWeightBytes(int64_t out_features, int64_t in_features) const override {
    return 2 * out_features * in_features;
  }
  int64_t EmbeddingBytes(int64_t vocab, int64_t hidden) const override {
    return 2 * vocab * hidden;
  }
  int64_t PaddedRows(int64_t rows) const override { return std::max(rows, GraphRows(rows)); }
  int64_t AvailableBytes() const override { return arena_.AvailableBytes(); }

  int64_t StateBytes(const StepCapacity& c) const override {
    return int64_t{c.num_pages} * KvPageBytes(c.model.kv_heads, c.model.head_dim) +
           PageTableBytes(c) + BlockBytes(c) + ResultBytes(c) + Products::kWorkspaceBytes +
           AttentionWorkspaceBytes(AttentionShapeOf(c), device_.multiprocessors) +
           DecodePlanBytes(c) + CudaSampler::Bytes(c.num_slots, c.model.vocab, c.max_logits_rows);
  }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes, MemoryKind kind) override {
    MakeCurrent();
    SWAA_ASSIGN_OR_RETURN(
        std::byte * data,
        arena_.Allocate(bytes, kind == MemoryKind::kWeights ? "weights" : "activations", kind));
    return std::make_unique<DeviceBuffer>(data, bytes);
  }
  void Upload(const void* host, int64_t bytes, void* device) override {
    MakeCurrent();
    SWAA_CUDA_CHECK(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
    // From pageable memory the copy may return before its last part has arrived.
    SWAA_CUDA_CHECK(cudaStreamSynchronize(nullptr));
  }

  absl::StatusOr<std::unique_ptr<Weight>> PackWeight(std::span<const HostRows> parts,
                                                     int64_t in_features) override {
    MakeCurrent();
    SWAA_ASSIGN_OR_RETURN(const Matrix matrix, UploadMatrix(parts, in_features));
    return std::make_unique<DeviceWeight>(matrix.data, matrix.rows, in_features);
  }

  absl::StatusOr<std::unique_ptr<Embedding>> MakeEmbedding(const Weight* tied, HostRows rows,
                                                           int64_t hidden) override {
    if (tied != nullptr) {
      return std::make_unique<DeviceEmbedding>(static_cast<const DeviceWeight*>(tied)->data(),
                                               rows.count, hidden, /*shared=*/true);
    }
    MakeCurrent();
    SWAA_ASSIGN_OR_RETURN(const Matrix matrix, UploadMatrix({&rows, 1}, hidden));
    return std::make_unique<DeviceEmbedding>(matrix.data, matrix.rows, hidden, /*shared=*/false);
  }

  absl::Status PrepareSteps(const StepCapacity& capacity) override {
    MakeCurrent();
    capacity_ = capacity;
    filters_of_slot_.assign(capacity.num_slots, false);
    const ModelShape& model = capacity.model;
    page_bytes_ = KvPageBytes(model.kv_heads, model.head_dim);
    SWAA_ASSIGN_OR_RETURN(pool_, arena_.Allocate(int64_t{capacity.num_pages} * page_bytes_,
                                                 "KV pages", MemoryKind::kKv));
    SWAA_ASSIGN_OR_RETURN(page_table_, arena_.Allocate(PageTableBytes(capacity), "page tables"));
    SWAA_ASSIGN_OR_RETURN(block_, arena_.Allocate(BlockBytes(capacity), "a step's inputs"));
    SWAA_ASSIGN_OR_RETURN(results_, arena_.Allocate(ResultBytes(capacity), "a step's results"));
    SWAA_ASSIGN_OR_RETURN(std::byte * workspace,
                          arena_.Allocate(Products::kWorkspaceBytes, "products"));
    SWAA_ASSIGN_OR_RETURN(products_, Products::Create(workspace, Products::kWorkspaceBytes));
    SWAA_ASSIGN_OR_RETURN(
        sampler_, CudaSampler::Create(capacity.num_slots, model.vocab, capacity.max_logits_rows));
    sampler_bytes_ = sampler_->bytes();
    SWAA_RETURN_IF_ERROR(PrepareAttention());
    for (CudaStep& step : steps_) {
      SWAA_RETURN_IF_ERROR(step.Allocate(BlockBytes(capacity), capacity.max_rows));
    }
    return absl::OkStatus();
  }

  absl::Status WarmUp(absl::FunctionRef<void(StagedStep*)> forward) override {
    try {
      MakeCurrent();
      ChooseAlgorithms(forward);
      CaptureGraphs(forward);
    } catch (const CudaError& error) {
      return absl::InternalError(error.what());
    }
    return absl::OkStatus();
  }

  // --- A step ---

  StagedStep* Stage(const StepInput& input) override {
    MakeCurrent();
    CudaStep& step = steps_[next_step_];
    next_step_ = (next_step_ + 1) % kStepsInFlight;
    SWAA_CHECK(!step.in_flight);
    SWAA_CUDA_CHECK(cudaEventRecord(step.begin, stream_));
    Describe(input, &step);
    for (const SlotSetup& setup : input.setups) filters_of_slot_[setup.slot] = Filters(setup);
    step.shape.features = FeaturesOf(input.logits);
    SendStep(input, &step);
    // Last, for it may run out of memory: the page table must have its changes by then. A step that
    // is submitted already may continue what this one begins, and would write to whatever pages the
    // slot named before.
    try {
      const absl::Status set_up = sampler_->SetUp(input.setups, stream_);
      sampler_bytes_ = sampler_->bytes();  // grows with what is asked of draws
      ThrowIfError(set_up);
    } catch (const std::bad_alloc&) {
      SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));  // nobody else waits until the block is read
      throw;
    }
    return &step;
  }

  void Replay(StagedStep* step, absl::FunctionRef<void()> enqueue) override {
    const StepShape& shape = static_cast<const CudaStep*>(step)->shape;
    if (shape.graph_rows == 0) {
      enqueue();
    } else {
      graphs_.Replay(shape, stream_, enqueue);
    }
  }

  void Submit(StagedStep* staged) override {
    auto* step = static_cast<CudaStep*>(staged);
    const auto rows = static_cast<int64_t>(step->host_logits.size());
    if (rows > 0) {
      SWAA_CUDA_CHECK(cudaMemcpyAsync(step->result_tokens.data(), result_tokens(),
                                      rows * sizeof(SampledToken), cudaMemcpyDeviceToHost,
                                      stream_));
    }
    if (rows > 0 && step->shape.features.alternatives) {
      SWAA_CUDA_CHECK(cudaMemcpyAsync(step->result_alternatives.data(), result_alternatives(),
                                      rows * sizeof(Alternatives), cudaMemcpyDeviceToHost,
                                      stream_));
    }
    SWAA_CUDA_CHECK(cudaEventRecord(step->end, stream_));
    step->in_flight = true;
  }

  absl::StatusOr<StepOutput> Wait(StagedStep* staged) override {
    auto* step = static_cast<CudaStep*>(staged);
    MakeCurrent();
    SWAA_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(step->end), "a step"));
    StepOutput output;
    float milliseconds = 0;
    SWAA_RETURN_IF_ERROR(
        CudaStatus(cudaEventElapsedTime(&milliseconds, step->begin, step->end), "a step"));
    output.seconds = milliseconds / 1e3;
    const auto* tokens = reinterpret_cast<const SampledToken*>(step->result_tokens.data());
    const auto* alternatives =
        reinterpret_cast<const Alternatives*>(step->result_alternatives.data());
    output.tokens.reserve(step->host_logits.size());
    for (size_t i = 0; i < step->host_logits.size(); ++i) {
      output.tokens.push_back(
          Scored(step->host_logits[i].alternatives, tokens[i], alternatives[i]));
    }
    step->in_flight = false;
    return output;
  }

  void Embed(const StagedStep& staged, const Embedding& table, void* out) override {
    const CudaStep& step = Cast(staged);
    const auto& embedding = static_cast<const DeviceEmbedding&>(table);
    // Follows a copy, not a kernel.
    cuda::Embed({.ids = step.tokens,
                 .slots = step.slots,
                 .drawn = sampler_->drawn(),
                 .table = embedding.data(),
                 .out = out,
                 .out_type = precision_.residual,
                 .rows = step.rows(),
                 .hidden = embedding.hidden(),
                 .vocab = embedding.vocab()},
                {.stream = stream_, .programmatic = false});
  }

  void RopeTable(const StagedStep& staged, const float* inverse_frequencies, float attention_factor,
                 float* cos_sin) override {
    const CudaStep& step = Cast(staged);
    cuda::RopeTable({.positions = step.positions,
                     .inverse_frequencies = inverse_frequencies,
                     .cos_sin = cos_sin,
                     .rows = step.rows(),
                     .half = capacity_.model.head_dim / 2,
                     .factor = attention_factor},
                    launch());
  }

  void AddNorm(const kernels::AddNormParams& p) override {
    cuda::AddNorm({.residual = p.residual,
                   .residual_type = precision_.residual,
                   .delta = static_cast<const Bf16*>(p.delta),
                   .weight = p.weight,
                   .out = static_cast<Bf16*>(p.out),
                   .rows = p.rows,
                   .hidden = p.hidden,
                   .epsilon = p.epsilon},
                  launch());
  }

  void Linear(const LinearParams& p) override {
    LinearArguments product = ArgumentsOf(*p.weight, p.x, p.rows);
    product.bias = p.bias;
    product.out = p.out;
    product.out_type = p.out_type;
    Multiply(product);
  }

  void GatedLinear(const GatedLinearParams& p) override {
    LinearArguments product = ArgumentsOf(*p.weight, p.x, p.rows);
    product.out = p.out;
    product.silu_mul = true;
    if (products_->IsSkinny(product)) {
      Multiply(product);
      return;
    }
    product.silu_mul = false;
    product.out = p.scratch;
    Multiply(product);
    cuda::SiluMul({.gate_up = static_cast<const Bf16*>(p.scratch),
                   .out = static_cast<Bf16*>(p.out),
                   .rows = p.rows,
                   .width = p.weight->out_features() / 2},
                  launch());
  }

  // No model that needs them passes Supports.
  int64_t ExpertScratchBytes(const ExpertsShape& shape, int64_t rows) const override { return 0; }
  void Experts(const ExpertsParams& p) override {
    SWAA_CHECK(false) << "experts: there are no CUDA kernels for mixtures of experts";
  }

  void RopeAndStore(const StagedStep& staged, const kernels::RopeAndStoreParams& p) override {
    const CudaStep& step = Cast(staged);
    cuda::RopeAndStore({.qkv = static_cast<Bf16*>(p.qkv),
                        .cos_sin = p.cos_sin,
                        .q_norm = p.q_norm,
                        .k_norm = p.k_norm,
                        .norm_epsilon = p.norm_epsilon,
                        .positions = step.positions,
                        .slots = step.slots,
                        .page_table = page_table(),
                        .pages = pages(),
                        .rows = step.rows(),
                        .layer = p.layer,
                        .heads = capacity_.model.heads,
                        .kv_heads = capacity_.model.kv_heads,
                        .head_dim = capacity_.model.head_dim,
                        .rotate_queries = p.rotate_queries},
                       launch());
  }

  void Attention(const StagedStep& staged, const kernels::AttentionParams& p) override {
    const CudaStep& step = Cast(staged);
    const AttentionPlan& plan = p.wanted_rows ? *step.wanted_attention : *step.attention;
    const AttentionLaunch how{.stream = stream_, .dependent = launch().programmatic};
    auto* out = static_cast<Bf16*>(p.out);
    const AttentionQueries& queries = QueriesOf(static_cast<const Bf16*>(p.qkv));
    if (step.shape.graph_rows > 0) {
      // What is captured decodes whatever a later step holds.
      attention_->Decode(p.layer, plan, queries, out, how);
    } else {
      attention_->Run(p.layer, plan, queries, out, how);
    }
  }

  void GatherWantedRows(const StagedStep& staged, const void* x, int64_t row_bytes,
                        void* out) override {
    const CudaStep& step = Cast(staged);
    cuda::GatherRows({.x = x,
                      .indices = step.wanted,
                      .out = out,
                      .rows = step.wanted_rows(),
                      .row_bytes = row_bytes},
                     launch());
  }

  void Sample(StagedStep* staged, const kernels::SampleParams& p) override {
    const CudaStep& step = Cast(*staged);
    sampler_->Sample({.logits = p.logits,
                      .rows = step.logits + p.first,
                      .live_rows = step.slice_rows + p.first / capacity_.max_logits_rows,
                      .tokens = result_tokens() + p.first,
                      .alternatives = result_alternatives() + p.first,
                      .max_rows = static_cast<int32_t>(p.count),
                      .features = step.shape.features},
                     launch());
  }

 private:
  struct Matrix {
    const Bf16* data = nullptr;
    int64_t rows = 0;
  };
  static const CudaStep& Cast(const StagedStep& step) { return static_cast<const CudaStep&>(step); }

  // Every kernel waits for the one before it itself, and may be launched under its tail.
  Launch launch() const { return {.stream = stream_, .programmatic = device_.major >= 9}; }

  static int64_t PageTableBytes(const StepCapacity& c) {
    return int64_t{4} * c.num_slots * c.model.num_layers * c.max_pages_per_layer;
  }
  static int64_t ResultBytes(const StepCapacity& c) {
    return c.max_rows * static_cast<int64_t>(sizeof(SampledToken) + sizeof(Alternatives));
  }
  PageTableView page_table() const {
    return {reinterpret_cast<const int32_t*>(page_table_), capacity_.model.num_layers,
            capacity_.max_pages_per_layer};
  }
  PagePoolView pages() const { return {pool_, page_bytes_}; }
  SampledToken* result_tokens() const { return reinterpret_cast<SampledToken*>(results_); }
  Alternatives* result_alternatives() const {
    return reinterpret_cast<Alternatives*>(results_ + capacity_.max_rows * sizeof(SampledToken));
  }

  absl::Status SupportsOnCuda(const ModelShape& shape) const {
    if (shape.experts > 0) {
      return absl::UnimplementedError(
          absl::StrCat("experts: there are no CUDA kernels for mixtures of experts (",
                       shape.experts, " a layer)"));
    }
    SWAA_RETURN_IF_ERROR(Products::CheckShape("qkv", shape.qkv_width(), shape.hidden));
    SWAA_RETURN_IF_ERROR(Products::CheckShape("gate_up", 2 * shape.ffn_width, shape.hidden));
    SWAA_RETURN_IF_ERROR(Products::CheckShape("ffn_down", shape.hidden, shape.ffn_width));
    SWAA_RETURN_IF_ERROR(Products::CheckShape("output", shape.vocab, shape.hidden));
    SWAA_RETURN_IF_ERROR(CudaSampler::CheckVocab(shape.vocab));
    return SupportsAttention(shape.head_dim, shape.heads, shape.kv_heads,
                             10 * device_.major + device_.minor);
  }

  // The current device is a thread's own: whoever loads, launches or waits may be another one.
  void MakeCurrent() const { SWAA_CUDA_CHECK(cudaSetDevice(device_.ordinal)); }

  static void ThrowIfError(const absl::Status& status) {
    if (status.ok()) return;
    if (absl::IsResourceExhausted(status)) throw OutOfMemory(std::string(status.message()));
    throw std::runtime_error(std::string(status.message()));
  }

  absl::StatusOr<Matrix> UploadMatrix(std::span<const HostRows> parts, int64_t columns) {
    Matrix matrix;
    for (const HostRows& part : parts) matrix.rows += part.count;
    SWAA_ASSIGN_OR_RETURN(std::byte * data, arena_.Allocate(2 * matrix.rows * columns, "weights",
                                                            MemoryKind::kWeights));
    matrix.data = reinterpret_cast<const Bf16*>(data);
    for (const HostRows& part : parts) {
      SWAA_RETURN_IF_ERROR(UploadAsBf16(part, columns, data));
      data += 2 * part.count * columns;
    }
    return matrix;
  }

  LinearArguments ArgumentsOf(const Weight& weight, const void* x, int64_t rows) const {
    return {.weight = static_cast<const DeviceWeight&>(weight).data(),
            .out_features = weight.out_features(),
            .in_features = weight.in_features(),
            .x = static_cast<const Bf16*>(x),
            .rows = rows};
  }

  void Multiply(const LinearArguments& product) {
    if (warming_up_) ThrowIfError(products_->Prepare(product, {&product.rows, 1}));
    products_->Run(product, stream_, launch().programmatic);
  }

  static ScoredToken Scored(int32_t alternatives, const SampledToken& sampled,
                            const Alternatives& others) {
    ScoredToken scored{.token = sampled.token};
    if (alternatives < 0) return scored;
    scored.logprob = sampled.logprob;
    for (int32_t i = 0; i < alternatives && others.tokens[i] >= 0; ++i) {
      scored.top.emplace_back(others.tokens[i], others.logprobs[i]);
    }
    return scored;
  }

  // --- A step's way to the device ---

  // What can be said of a step before anything is written: its rows, and whether a graph serves it.
  void Describe(const StepInput& input, CudaStep* step) const {
    const auto rows = static_cast<int64_t>(input.tokens.size());
    step->host_logits.assign(input.logits.begin(), input.logits.end());
    const auto wanted = static_cast<int64_t>(input.logits.size());
    const bool decodes = static_cast<int64_t>(input.sequences.size()) == rows && wanted == rows;
    step->shape.graph_rows = decodes ? GraphRows(rows) : 0;
    if (step->shape.graph_rows > 0) {
      step->SetRows(step->shape.graph_rows, step->shape.graph_rows);
    } else {
      step->SetRows(rows, wanted);
    }
    if (!step->all_wanted()) FindWantedRows(input, &step->wanted_sequences);
  }

  static bool Filters(const SlotSetup& setup) {
    const SamplingParams& sampling = *setup.sampling;
    return sampling.temperature > 0 &&
           (sampling.top_k > 0 || sampling.top_p < 1 || sampling.min_p > 0);
  }

  SamplingFeatures FeaturesOf(std::span<const LogitsRow> rows) const {
    SamplingFeatures features{.filters = false, .logprobs = false, .alternatives = false};
    for (const LogitsRow& row : rows) {
      features.filters |= row.known_token < 0 && filters_of_slot_[row.slot];
      features.logprobs |= row.alternatives >= 0;
      features.alternatives |= row.alternatives > 0;
    }
    return features;
  }

  // Writes the step's inputs to its block and sends it: the one copy of a step. Everything that is
  // enqueued later reads the block's copy on the device, which the next step's overwrites when all
  // of it has been read.
  void SendStep(const StepInput& input, CudaStep* step) {
    const int64_t rows = step->rows(), wanted = step->wanted_rows();
    const std::vector<PageTableEntry> updates = SendEarlyUpdates(input.page_table_updates);
    BlockWriter block(step->block.data(), block_, step->block.bytes());
    const int64_t slices = (wanted + capacity_.max_logits_rows - 1) / capacity_.max_logits_rows;
    const auto slice_rows = block.Take<int32_t>(std::max<int64_t>(slices, 1));
    const auto tokens = block.Take<int32_t>(rows);
    const auto positions = block.Take<int32_t>(rows);
    const auto slots = block.Take<int32_t>(rows);
    const auto logits = block.Take<LogitsRow>(wanted);
    const auto live = static_cast<int64_t>(input.logits.size());
    for (int64_t slice = 0; slice < slices; ++slice) {
      const int64_t first = slice * capacity_.max_logits_rows;
      slice_rows.host[slice] =
          static_cast<int32_t>(std::clamp<int64_t>(live - first, 0, capacity_.max_logits_rows));
    }
    std::copy(input.logits.begin(), input.logits.end(), logits.host);
    WriteRows(input, rows, tokens.host, positions.host, slots.host);
    step->slice_rows = slice_rows.device;
    step->tokens = tokens.device;
    step->positions = positions.device;
    step->slots = slots.device;
    step->logits = logits.device;
    WritePlan({input.sequences, input.spans, input.layer_class}, decode_plans_,
              capacity_.model.num_layers, &step->attention, &block);
    if (!step->all_wanted()) {
      const auto indices = block.Take<int32_t>(wanted);
      std::copy(step->wanted_sequences.rows.begin(), step->wanted_sequences.rows.end(),
                indices.host);
      step->wanted = indices.device;
      const std::vector<uint8_t> one_class(capacity_.model.num_layers, 0);
      WritePlan({step->wanted_sequences.sequences, step->wanted_sequences.spans, one_class},
                wanted_decode_plans_, 1, &step->wanted_attention, &block);
    }
    const auto entries = block.Take<PageTableEntry>(static_cast<int64_t>(updates.size()));
    std::copy(updates.begin(), updates.end(), entries.host);
    SWAA_CUDA_CHECK(
        cudaMemcpyAsync(block_, step->block.data(), block.used(), cudaMemcpyHostToDevice, stream_));
    SetPageTableEntries(entries.device, static_cast<int64_t>(updates.size()));
    attention_->PlanDecode(*step->attention, stream_);
    if (!step->all_wanted()) attention_->PlanDecode(*step->wanted_attention, stream_);
  }

  void WritePlan(const AttentionStep& step, DecodePlan* decode_plans, int32_t max_classes,
                 std::optional<AttentionPlan>* plan, BlockWriter* block) {
    const auto rest = block->Rest();
    plan->emplace(rest.host, rest.device, block->left(), decode_plans, max_classes);
    block->Advance(attention_->Write(step, &**plan));
  }

  // Rows beyond the step's are dead.
  static void WriteRows(const StepInput& input, int64_t rows, int32_t* tokens, int32_t* positions,
                        int32_t* slots) {
    std::copy(input.tokens.begin(), input.tokens.end(), tokens);
    for (const SequenceRows& sequence : input.sequences) {
      for (int32_t r = 0; r < sequence.query_count; ++r) {
        positions[sequence.first_row + r] = sequence.first_position + r;
        slots[sequence.first_row + r] = sequence.slot;
      }
    }
    for (auto row = static_cast<int64_t>(input.tokens.size()); row < rows; ++row) {
      tokens[row] = positions[row] = 0;
      slots[row] = -1;
    }
  }

  // The changes that go up with the step. A step that adopts a long prefix has more of them than a
  // block holds: the others are sent here, which waits for the device.
  std::vector<PageTableEntry> SendEarlyUpdates(std::span<const PageTableUpdate> updates) {
    static_assert(sizeof(PageTableUpdate) == sizeof(PageTableEntry));
    std::vector<PageTableEntry> entries;
    entries.reserve(updates.size());
    for (const PageTableUpdate& update : updates) {
      entries.push_back({update.slot, update.layer, update.block, update.page});
    }
    entries = KeepLastOfEach(entries);
    while (static_cast<int64_t>(entries.size()) > kMaxUpdates) {
      const auto begin = entries.end() - kMaxUpdates;
      SWAA_CUDA_CHECK(cudaMemcpyAsync(block_, &*begin, kMaxUpdates * sizeof(PageTableEntry),
                                      cudaMemcpyHostToDevice, stream_));
      SetPageTableEntries(reinterpret_cast<const PageTableEntry*>(block_), kMaxUpdates);
      SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));
      entries.erase(begin, entries.end());
    }
    return entries;
  }

  void SetPageTableEntries(const PageTableEntry* updates, int64_t count) {
    if (count == 0) return;
    SetPageTable({.entries = reinterpret_cast<int32_t*>(page_table_),
                  .num_layers = capacity_.model.num_layers,
                  .max_pages = capacity_.max_pages_per_layer,
                  .updates = updates,
                  .capacity = count},
                 {.stream = stream_, .programmatic = false});
  }

  // The block's sections, each rounded up, at the most that a step can hold.
  int64_t BlockBytes(const StepCapacity& c) const {
    constexpr int64_t kSections = 16, kRounding = 256;
    const int64_t rows = std::max<int64_t>(c.max_rows, kMaxGraphRows);
    return kSections * kRounding + rows * (5 * 4 + static_cast<int64_t>(sizeof(LogitsRow))) +
           2 * PlanBytes(c) + kMaxUpdates * static_cast<int64_t>(sizeof(PageTableEntry));
  }

  int64_t PlanBytes(const StepCapacity& c) const {
    // A request may have two sequences in a step, one a phase; wanted rows may all stand alone.
    return AttentionPlanBytes(AttentionShapeOf(c), device_.multiprocessors,
                              std::max(2 * c.num_slots, c.max_rows), c.max_rows,
                              c.model.num_layers);
  }

  static AttentionShape AttentionShapeOf(const StepCapacity& c) {
    return {.heads = c.model.heads,
            .kv_heads = c.model.kv_heads,
            .head_dim = c.model.head_dim,
            .scale = c.model.attention_scale,
            .num_layers = c.model.num_layers,
            .max_pages = c.max_pages_per_layer};
  }

  // One plan a class of all rows, and one for the wanted rows of the last layer.
  static int64_t DecodePlanBytes(const StepCapacity& c) {
    return (int64_t{c.model.num_layers} + 1) * static_cast<int64_t>(sizeof(DecodePlan));
  }

  absl::Status PrepareAttention() {
    const AttentionShape shape = AttentionShapeOf(capacity_);
    SWAA_ASSIGN_OR_RETURN(
        std::byte * workspace,
        arena_.Allocate(AttentionWorkspaceBytes(shape, device_.multiprocessors), "attention"));
    SWAA_ASSIGN_OR_RETURN(std::byte * plans,
                          arena_.Allocate(DecodePlanBytes(capacity_), "plans of attention"));
    decode_plans_ = reinterpret_cast<DecodePlan*>(plans);
    wanted_decode_plans_ = decode_plans_ + capacity_.model.num_layers;
    SWAA_ASSIGN_OR_RETURN(attention_,
                          PagedAttention::Create({.shape = shape,
                                                  .pool = reinterpret_cast<const Bf16*>(pool_),
                                                  .pages = capacity_.num_pages,
                                                  .page_table = page_table().entries,
                                                  .workspace = workspace}));
    return absl::OkStatus();
  }

  // The queries of a matrix of activations, described once.
  const AttentionQueries& QueriesOf(const Bf16* qkv) {
    const auto found = queries_.find(qkv);
    if (found != queries_.end()) return found->second;
    absl::StatusOr<AttentionQueries> queries =
        attention_->Queries(qkv, PaddedRows(capacity_.max_rows), capacity_.model.qkv_width());
    ThrowIfError(queries.status());
    return queries_.emplace(qkv, *std::move(queries)).first->second;
  }

  // --- Warming up ---

  // A step of dead rows. Its shape is that of real ones with as many rows.
  CudaStep* StageDeadRows(int64_t rows, const StepShape& shape) {
    CudaStep& step = steps_[0];
    step.host_logits.clear();
    step.shape = shape;
    step.SetRows(rows, rows);
    const std::vector<uint8_t> layer_class(capacity_.model.num_layers, 0);
    SendStep({.layer_class = layer_class}, &step);
    return &step;
  }

  // Runs the model at every range of row counts that has an algorithm of its own.
  void ChooseAlgorithms(absl::FunctionRef<void(StagedStep*)> forward) {
    warming_up_ = true;
    for (int64_t rows = 1; rows <= capacity_.max_rows;) {
      const int64_t bucket = std::min<int64_t>(RowsBucket(rows), capacity_.max_rows);
      forward(StageDeadRows(bucket, {}));
      SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));
      rows = bucket + 1;
    }
    warming_up_ = false;
  }

  void CaptureGraphs(absl::FunctionRef<void(StagedStep*)> forward) {
    const auto most = std::min<int64_t>({capacity_.num_slots, capacity_.max_rows, kMaxGraphRows});
    for (const int64_t rows : AllGraphRows(most)) {
      for (const bool filters : {false, true}) {
        const StepShape shape{.graph_rows = rows,
                              .features = {filters, /*logprobs=*/false, /*alternatives=*/false}};
        CudaStep* step = StageDeadRows(rows, shape);
        graphs_.Capture(shape, stream_, [&] { forward(step); });
        SWAA_CUDA_CHECK(cudaStreamSynchronize(stream_));
      }
    }
  }

  // What the card has left. Metrics are asked for on threads whose current device may be another.
  int64_t FreeBytes() const {
    size_t free = 0, total = 0;
    if (cudaSetDevice(device_.ordinal) != cudaSuccess) return 0;
    return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(free) : 0;
  }

  const CudaDevice device_;
  std::unique_ptr<Nvml> nvml_;  // null: the driver tells nothing
  const Throttled<int64_t> free_bytes_{kReadingPeriod, [this] { return FreeBytes(); }};
  const Throttled<DeviceFacts> facts_{
      kReadingPeriod, [this] { return nvml_ == nullptr ? DeviceFacts{} : nvml_->Read(); }};
  const Precision precision_{.weights = DataType::kBf16,
                             .activations = DataType::kBf16,
                             .residual = DataType::kF32,
                             .deltas = DataType::kBf16,
                             .queries = DataType::kBf16,
                             .kv = DataType::kBf16};
  DeviceArena arena_;
  cudaStream_t stream_ = nullptr;

  StepCapacity capacity_;
  int64_t page_bytes_ = 0;
  // In the arena:
  std::byte* pool_ = nullptr;
  std::byte* page_table_ = nullptr;
  std::byte* block_ = nullptr;    // the newest step's inputs
  std::byte* results_ = nullptr;  // SampledToken [max_rows], then Alternatives [max_rows]

  std::unique_ptr<Products> products_;
  std::unique_ptr<PagedAttention> attention_;
  DecodePlan* decode_plans_ = nullptr;         // [layers], in the arena
  DecodePlan* wanted_decode_plans_ = nullptr;  // [1]
  std::map<const Bf16*, AttentionQueries> queries_;
  std::unique_ptr<CudaSampler> sampler_;
  std::atomic<int64_t> sampler_bytes_ = 0;  // of the device's memory, beside the arena
  GraphCache graphs_;
  std::vector<bool> filters_of_slot_;
  std::array<CudaStep, kStepsInFlight> steps_;
  int next_step_ = 0;
  bool warming_up_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Operators>> CreateCudaOperators(const OperatorsOptions& options) {
  if (options.dtype != "auto") {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype: \"", options.dtype,
                     "\" is not for GPUs, which compute in bf16; use auto, or "
                     "--device cpu"));
  }
  if (!(options.gpu_memory_utilization > 0 && options.gpu_memory_utilization <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("gpu_memory_utilization: ", options.gpu_memory_utilization,
                     " is not above 0 and at most 1"));
  }
  SWAA_ASSIGN_OR_RETURN(const CudaDevice device, OpenCudaDevice(options.device));
  auto operators = std::make_unique<CudaOperators>(device, options.gpu_memory_utilization);
  SWAA_RETURN_IF_ERROR(operators->Open());
  return operators;
}

}  // namespace swaa::kernels::cuda
