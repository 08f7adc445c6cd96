// The CUDA backend: binds its parts to the operators' interface. Everything goes to one stream, so
// that a step's work follows that of the step before without the host; only Wait waits.
// cuda_operators.cc has loading, cuda_submission.cc a step's way in and out, cuda_computation.cc
// what is computed between.

#ifndef SWAA_KERNELS_CUDA_CUDA_BACKEND_H_
#define SWAA_KERNELS_CUDA_CUDA_BACKEND_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_step.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/elementwise/launch.h"
#include "kernels/cuda/experts/experts.h"
#include "kernels/cuda/graph_cache.h"
#include "kernels/cuda/linear/products.h"
#include "kernels/cuda/lora/adapter_memory.h"
#include "kernels/cuda/lora/lora_weight.h"
#include "kernels/cuda/matrix_upload.h"
#include "kernels/cuda/nvml.h"
#include "kernels/cuda/ranks/gpu_communicator.h"
#include "kernels/cuda/sampling/sampler.h"
#include "kernels/cuda/step_inputs.h"
#include "kernels/cuda/throttled.h"
#include "kernels/operators.h"

namespace swaa::kernels::cuda {

class CudaOperators : public Operators {
 public:
  // utilization: the share of the card's memory that may be in use.
  // communicator: with the other ranks of the model; null: there are none.
  CudaOperators(const CudaDevice& device, double utilization,
                std::unique_ptr<GpuCommunicator> communicator)
      : device_(device),
        communicator_(std::move(communicator)),
        arena_(utilization),
        adapters_(device.ordinal) {}
  ~CudaOperators() override;

  // Once, before all else.
  absl::Status Open();

  std::string_view backend() const override { return "cuda"; }
  std::string device_name() const override { return device_.name; }
  const Precision& precision() const override { return precision_; }
  int32_t max_steps_in_flight() const override { return kStepsInFlight; }
  MemoryUse Memory() const override;
  DeviceFacts Facts() const override { return facts_.Get(); }
  Communicator* communicator() const override { return communicator_.get(); }

  // --- Loading ---

  absl::Status Supports(const ModelShape& shape) const override;
  int64_t KvPageBytes(int32_t kv_heads, int32_t head_dim) const override;
  int64_t MaxWeightBytes(int64_t out_features, int64_t in_features) const override {
    return 2 * out_features * in_features;
  }
  int64_t EmbeddingBytes(int64_t vocab, int64_t hidden) const override {
    return 2 * vocab * hidden;
  }
  int64_t PaddedRows(int64_t rows) const override;
  int64_t ExpertScratchBytes(const ExpertsShape& shape, int64_t rows) const override {
    return ExpertsScratchBytes(shape, rows);
  }
  int64_t AvailableBytes() const override;
  int64_t StateBytes(const StepCapacity& capacity) const override;
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes, MemoryKind kind) override;
  void Upload(const void* host, int64_t bytes, void* device) override;
  absl::StatusOr<std::unique_ptr<Weight>> PackWeight(std::span<const HostRows> parts,
                                                     int64_t in_features) override;
  absl::StatusOr<std::unique_ptr<Embedding>> MakeEmbedding(const Weight* tied, HostRows rows,
                                                           int64_t hidden) override;
  absl::Status SupportsLora() const override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<std::unique_ptr<LoraWeight>>> PackLora(
      std::span<const LoraSpec> weights) override {
    return PackCudaLora(weights, &adapters_);
  }
  absl::Status PrepareSteps(const StepCapacity& capacity) override;
  absl::Status WarmUp(absl::FunctionRef<void(StagedStep*)> forward) override;

  // --- A step ---

  StagedStep* Stage(const StepInput& input) override;
  void Replay(StagedStep* step, absl::FunctionRef<void()> enqueue) override;
  void Submit(StagedStep* step) override;
  void Discard(StagedStep* step) override;
  absl::StatusOr<StepOutput> Wait(StagedStep* step) override;

  void Embed(const StagedStep& step, const Embedding& table, void* out) override;
  void RopeTable(const StagedStep& step, const float* inverse_frequencies, float attention_factor,
                 float* cos_sin) override;
  void AddNorm(const kernels::AddNormParams& params) override;
  void Linear(const LinearParams& params) override;
  void GatedLinear(const GatedLinearParams& params) override;
  void Experts(const ExpertsParams& params) override;
  void RopeAndStore(const StagedStep& step, const kernels::RopeAndStoreParams& params) override;
  void Attention(const StagedStep& step, const kernels::AttentionParams& params) override;
  void GatherWantedRows(const StagedStep& step, const void* x, int64_t row_bytes,
                        void* out) override;
  void Sample(StagedStep* step, const kernels::SampleParams& params) override;

 private:
  static constexpr int32_t kStepsInFlight = 2;
  static constexpr size_t kMaxAdaptedSets = 8;
  // Of free memory and the driver's facts: asking takes locks that launches take too.
  static constexpr std::chrono::seconds kReadingPeriod{1};

  struct Matrix {
    const Bf16* data = nullptr;
    int64_t rows = 0;
  };

  static const CudaStep& Cast(const StagedStep& step) { return static_cast<const CudaStep&>(step); }
  // Throws what Operators says of a step: OutOfMemory where memory is short.
  static void ThrowIfError(const absl::Status& status);

  // The current device is a thread's own: whoever loads, launches or waits may be another one.
  void MakeCurrent() const;
  // Every kernel waits for the one before it itself, and may be launched under its tail.
  Launch launch() const { return {.stream = stream_, .programmatic = device_.major >= 9}; }
  PagePoolView pages() const { return {pool_, page_bytes_}; }
  SampledToken* result_tokens() const { return reinterpret_cast<SampledToken*>(results_); }
  Alternatives* result_alternatives() const {
    return reinterpret_cast<Alternatives*>(results_ + capacity_.max_rows * sizeof(SampledToken));
  }
  // What the card has left. Metrics are asked for on threads whose current device may be another.
  int64_t FreeBytes() const;

  absl::Status SupportsOnCuda(const ModelShape& shape) const;
  absl::Status PrepareAttention();
  absl::StatusOr<Matrix> UploadMatrix(std::span<const HostRows> parts, int64_t columns);

  // What the communicator's gathering needs at most.
  int64_t GatherBytes(const StepCapacity& capacity) const;
  int64_t SignalBytes() const {
    return communicator_ == nullptr ? 0 : SumSignals::Bytes(communicator_->shard().size);
  }
  // The sum of all ranks' deltas by kernels that reach them; whether there are such.
  bool SumAndNorm(const kernels::AddNormParams& params);

  LinearArguments ArgumentsOf(const Weight& weight, const void* x, int64_t rows) const;
  void Multiply(const LinearArguments& product);
  // Whether an adapter of the step changes the product; null: none.
  static bool IsAdapted(const LoraUpdate* update);
  // The product and what adapters add to it; out is bf16. gated: as LoraArguments has it.
  void MultiplyAdapted(LinearArguments product, const LoraUpdate& update, Bf16* gated);
  // The weights of a layer's experts as its kernels find them, described once.
  const ExpertPointers* PointersTo(std::span<const ExpertWeights> experts);
  // Whether attention does what RopeAndStore asks for: of steps that graphs replay.
  bool RopesInAttention(const CudaStep& step) const {
    return step.shape.graph_rows > 0 && attention_->ropes();
  }
  // The queries of a matrix of activations, described once.
  const AttentionQueries& QueriesOf(const Bf16* qkv);

  // What can be said of a step before anything is written: its rows, and whether a graph serves it.
  void Describe(const StepInput& input, CudaStep* step);
  std::vector<bool> AdaptedProducts(const StepInput& input, const CudaStep& step);
  SamplingFeatures FeaturesOf(std::span<const LogitsRow> rows) const;
  // A step of dead rows. Its shape is that of real ones with as many rows.
  CudaStep* StageDeadRows(int64_t rows, const StepShape& shape);
  // Runs the model at every range of row counts that has an algorithm of its own.
  void ChooseAlgorithms(absl::FunctionRef<void(StagedStep*)> forward);
  void CaptureGraphs(absl::FunctionRef<void(StagedStep*)> forward);

  const CudaDevice device_;
  const std::unique_ptr<GpuCommunicator> communicator_;  // outlives the graphs that use it
  std::unique_ptr<Nvml> nvml_;                           // null: the driver tells nothing
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
  std::unique_ptr<MatrixUpload> upload_;  // while weights are loaded
  AdapterMemory adapters_;
  cudaStream_t stream_ = nullptr;

  StepCapacity capacity_;
  int64_t page_bytes_ = 0;
  // In the arena:
  std::byte* pool_ = nullptr;
  std::byte* results_ = nullptr;  // SampledToken [max_rows], then Alternatives [max_rows]
  float* lora_sums_ = nullptr;    // LoraSums, where the model takes adapters

  StepInputs inputs_;
  std::unique_ptr<Products> products_;
  std::unique_ptr<PagedAttention> attention_;
  std::map<const Bf16*, AttentionQueries> queries_;
  DecodeRope rope_;  // that the next Attention does, where RopesInAttention
  std::map<const ExpertWeights*, const ExpertPointers*> experts_;  // in the arena
  std::unique_ptr<CudaSampler> sampler_;
  std::atomic<int64_t> sampler_bytes_ = 0;  // of the device's memory, beside the arena
  GraphCache graphs_;
  std::vector<bool> filters_of_slot_;
  std::set<std::vector<bool>> adapted_sets_;  // that steps had; at most kMaxAdaptedSets
  std::array<CudaStep, kStepsInFlight> steps_;
  int next_step_ = 0;
  bool warming_up_ = false;
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_CUDA_BACKEND_H_
