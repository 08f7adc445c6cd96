// The CUDA backend as a server starts it: what it serves, weights, and what steps need.

#include "kernels/cuda/cuda_operators.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/device_weights.h"

namespace swaa::kernels::cuda {
namespace {

int64_t LoraSumBytes(const StepCapacity& c) {
  return c.adapted_products == 0 ? 0 : LoraSums(c.max_rows) * static_cast<int64_t>(sizeof(float));
}

int64_t ResultBytes(const StepCapacity& c) {
  return c.max_rows * static_cast<int64_t>(sizeof(SampledToken) + sizeof(Alternatives));
}

}  // namespace

CudaOperators::~CudaOperators() {
  cudaSetDevice(device_.ordinal);
  if (stream_ != nullptr) {
    if (communicator_ != nullptr) communicator_->Leave();
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
}

absl::Status CudaOperators::Open() {
  std::array<char, 32> bus_id{};
  if (cudaDeviceGetPCIBusId(bus_id.data(), static_cast<int>(bus_id.size()), device_.ordinal) ==
      cudaSuccess) {
    nvml_ = Nvml::Open(kNvmlLibrary, bus_id.data());
  }
  SWAA_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream"));
  if (communicator_ != nullptr) communicator_->Bind(stream_);
  return absl::OkStatus();
}

MemoryUse CudaOperators::Memory() const {
  MemoryUse use = arena_.Use(free_bytes_.Get());
  use.workspace += sampler_bytes_;
  use.weights += adapters_.bytes();
  return use;
}

int64_t CudaOperators::FreeBytes() const {
  size_t free = 0, total = 0;
  if (cudaSetDevice(device_.ordinal) != cudaSuccess) return 0;
  return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(free) : 0;
}

void CudaOperators::MakeCurrent() const { SWAA_CUDA_CHECK(cudaSetDevice(device_.ordinal)); }

void CudaOperators::ThrowIfError(const absl::Status& status) {
  if (status.ok()) return;
  if (absl::IsResourceExhausted(status)) throw OutOfMemory(std::string(status.message()));
  throw std::runtime_error(std::string(status.message()));
}

absl::Status CudaOperators::Supports(const ModelShape& shape) const {
  const absl::Status supported = SupportsOnCuda(shape);
  if (supported.ok()) return supported;
  return absl::UnimplementedError(
      absl::StrCat(std::string(supported.message()), "; use --device cpu"));
}

absl::Status CudaOperators::SupportsOnCuda(const ModelShape& shape) const {
  if (shape.experts > 0) {
    SWAA_RETURN_IF_ERROR(CheckExpertsShape({.hidden = shape.hidden,
                                            .width = shape.expert_width,
                                            .count = shape.experts,
                                            .experts_per_row = shape.experts_per_row}));
    SWAA_RETURN_IF_ERROR(Products::CheckShape("router", shape.experts, shape.hidden));
  }
  SWAA_RETURN_IF_ERROR(Products::CheckShape("qkv", shape.qkv_width(), shape.hidden));
  SWAA_RETURN_IF_ERROR(Products::CheckShape("gate_up", 2 * shape.ffn_width, shape.hidden));
  SWAA_RETURN_IF_ERROR(Products::CheckShape("ffn_down", shape.hidden, shape.ffn_width));
  SWAA_RETURN_IF_ERROR(Products::CheckShape("attention_output", shape.hidden, shape.head_width()));
  SWAA_RETURN_IF_ERROR(Products::CheckShape("output", shape.logits_columns, shape.hidden));
  SWAA_RETURN_IF_ERROR(CudaSampler::CheckVocab(shape.vocab));
  return SupportsAttention(shape.head_dim, shape.heads, shape.kv_heads,
                           10 * device_.major + device_.minor);
}

int64_t CudaOperators::KvPageBytes(int32_t kv_heads, int32_t head_dim) const {
  return int64_t{2} * kv_heads * kPageTokens * head_dim * 2;
}

int64_t CudaOperators::PaddedRows(int64_t rows) const { return std::max(rows, GraphRows(rows)); }

int64_t CudaOperators::AvailableBytes() const {
  MakeCurrent();
  return arena_.AvailableBytes();
}

int64_t CudaOperators::GatherBytes(const StepCapacity& c) const {
  const int32_t size = shard().size;
  return std::max(GpuCommunicator::GatherBytes(c.max_logits_rows, c.model.vocab, size),
                  GpuCommunicator::GatherBytes(c.max_rows, c.model.experts, size));
}

int64_t CudaOperators::StateBytes(const StepCapacity& c) const {
  return int64_t{c.num_pages} * KvPageBytes(c.model.kv_heads, c.model.head_dim) +
         StepInputs::DeviceBytes(c, device_.multiprocessors) + ResultBytes(c) + LoraSumBytes(c) +
         Products::kWorkspaceBytes + GatherBytes(c) + SignalBytes() +
         AttentionWorkspaceBytes(AttentionShapeOf(c), device_.multiprocessors) +
         CudaSampler::Bytes(c.num_slots, c.model.vocab, c.max_logits_rows);
}

absl::StatusOr<std::unique_ptr<Buffer>> CudaOperators::Allocate(int64_t bytes, MemoryKind kind) {
  MakeCurrent();
  SWAA_ASSIGN_OR_RETURN(
      std::byte * data,
      arena_.Allocate(bytes, kind == MemoryKind::kWeights ? "weights" : "activations", kind));
  return std::make_unique<DeviceBuffer>(data, bytes);
}

void CudaOperators::Upload(const void* host, int64_t bytes, void* device) {
  MakeCurrent();
  SWAA_CUDA_CHECK(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
  // From pageable memory the copy may return before its last part has arrived.
  SWAA_CUDA_CHECK(cudaStreamSynchronize(nullptr));
}

absl::StatusOr<CudaOperators::Matrix> CudaOperators::UploadMatrix(std::span<const HostRows> parts,
                                                                  int64_t columns) {
  Matrix matrix;
  for (const HostRows& part : parts) matrix.rows += part.count;
  SWAA_ASSIGN_OR_RETURN(std::byte * data, arena_.Allocate(2 * matrix.rows * columns, "weights",
                                                          MemoryKind::kWeights));
  matrix.data = reinterpret_cast<const Bf16*>(data);
  if (upload_ == nullptr) upload_ = std::make_unique<MatrixUpload>(device_.ordinal);
  SWAA_RETURN_IF_ERROR(upload_->Fill(data, columns, parts));
  return matrix;
}

absl::StatusOr<std::unique_ptr<Weight>> CudaOperators::PackWeight(std::span<const HostRows> parts,
                                                                  int64_t in_features) {
  MakeCurrent();
  SWAA_ASSIGN_OR_RETURN(const Matrix matrix, UploadMatrix(parts, in_features));
  return std::make_unique<DeviceWeight>(matrix.data, matrix.rows, in_features);
}

absl::StatusOr<std::unique_ptr<Embedding>> CudaOperators::MakeEmbedding(const Weight* tied,
                                                                        HostRows rows,
                                                                        int64_t hidden) {
  if (tied != nullptr) {
    return std::make_unique<DeviceEmbedding>(static_cast<const DeviceWeight*>(tied)->data(),
                                             rows.count, hidden, /*shared=*/true);
  }
  MakeCurrent();
  SWAA_ASSIGN_OR_RETURN(const Matrix matrix, UploadMatrix({&rows, 1}, hidden));
  return std::make_unique<DeviceEmbedding>(matrix.data, matrix.rows, hidden, /*shared=*/false);
}

absl::Status CudaOperators::PrepareSteps(const StepCapacity& capacity) {
  MakeCurrent();
  upload_.reset();
  capacity_ = capacity;
  filters_of_slot_.assign(capacity.num_slots, false);
  const ModelShape& model = capacity.model;
  page_bytes_ = KvPageBytes(model.kv_heads, model.head_dim);
  SWAA_ASSIGN_OR_RETURN(pool_, arena_.Allocate(int64_t{capacity.num_pages} * page_bytes_,
                                               "KV pages", MemoryKind::kKv));
  SWAA_RETURN_IF_ERROR(inputs_.Prepare(capacity, device_.multiprocessors, &arena_));
  SWAA_ASSIGN_OR_RETURN(results_, arena_.Allocate(ResultBytes(capacity), "a step's results"));
  SWAA_ASSIGN_OR_RETURN(std::byte * workspace,
                        arena_.Allocate(Products::kWorkspaceBytes, "products"));
  SWAA_ASSIGN_OR_RETURN(products_, Products::Create(workspace, Products::kWorkspaceBytes));
  SWAA_ASSIGN_OR_RETURN(
      sampler_, CudaSampler::Create(capacity.num_slots, model.vocab, capacity.max_logits_rows));
  sampler_bytes_ = sampler_->bytes();
  if (capacity.adapted_products > 0) {
    SWAA_ASSIGN_OR_RETURN(std::byte * sums,
                          arena_.Allocate(LoraSumBytes(capacity), "products of adapters"));
    lora_sums_ = reinterpret_cast<float*>(sums);
  }
  SWAA_RETURN_IF_ERROR(PrepareAttention());
  if (communicator_ != nullptr) {
    SWAA_ASSIGN_OR_RETURN(std::byte * gathered,
                          arena_.Allocate(GatherBytes(capacity), "logits of all ranks"));
    SWAA_ASSIGN_OR_RETURN(std::byte * signals, arena_.Allocate(SignalBytes(), "signals of ranks"));
    communicator_->UseMemory(gathered, signals);
  }
  if (model.experts > 0) SWAA_RETURN_IF_ERROR(PrepareExperts());
  for (CudaStep& step : steps_) {
    SWAA_RETURN_IF_ERROR(step.Allocate(inputs_.block_bytes(), capacity.max_rows));
  }
  return absl::OkStatus();
}

absl::Status CudaOperators::PrepareAttention() {
  const AttentionShape shape = AttentionShapeOf(capacity_);
  SWAA_ASSIGN_OR_RETURN(
      std::byte * workspace,
      arena_.Allocate(AttentionWorkspaceBytes(shape, device_.multiprocessors), "attention"));
  SWAA_ASSIGN_OR_RETURN(attention_,
                        PagedAttention::Create({.shape = shape,
                                                .pool = reinterpret_cast<const Bf16*>(pool_),
                                                .pages = capacity_.num_pages,
                                                .page_table = inputs_.page_table().entries,
                                                .workspace = workspace}));
  return absl::OkStatus();
}

namespace {

absl::Status CheckOptions(const OperatorsOptions& options) {
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
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Operators>> OpenOperators(
    const CudaDevice& device, double utilization, std::unique_ptr<GpuCommunicator> communicator) {
  SWAA_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device.ordinal), "device"));
  auto operators = std::make_unique<CudaOperators>(device, utilization, std::move(communicator));
  SWAA_RETURN_IF_ERROR(operators->Open());
  return operators;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Operators>> CreateCudaOperators(const OperatorsOptions& options) {
  SWAA_RETURN_IF_ERROR(CheckOptions(options));
  SWAA_ASSIGN_OR_RETURN(const CudaDevice device, OpenCudaDevice(options.device));
  return OpenOperators(device, options.gpu_memory_utilization, nullptr);
}

absl::StatusOr<std::vector<std::unique_ptr<Operators>>> CreateCudaRanks(
    const OperatorsOptions& options, int32_t ranks) {
  SWAA_RETURN_IF_ERROR(CheckOptions(options));
  SWAA_ASSIGN_OR_RETURN(CudaDevice device, OpenCudaDevice(options.device));
  std::vector<CudaDevice> devices = {device};
  while (static_cast<int32_t>(devices.size()) < ranks) {
    const auto next = OpenCudaDevice(absl::StrCat("cuda:", devices.back().ordinal + 1));
    if (!next.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor_parallel_size: ", ranks, " ranks want as many GPUs, from cuda:", device.ordinal,
          " upwards; ", std::string(next.status().message())));
    }
    devices.push_back(*next);
  }
  std::vector<int> ordinals;
  for (const CudaDevice& each : devices) ordinals.push_back(each.ordinal);
  SWAA_ASSIGN_OR_RETURN(auto communicators, MakeGpuCommunicators(ordinals));
  std::vector<std::unique_ptr<Operators>> all;
  for (int32_t rank = 0; rank < ranks; ++rank) {
    SWAA_ASSIGN_OR_RETURN(auto operators,
                          OpenOperators(devices[rank], options.gpu_memory_utilization,
                                        std::move(communicators[rank])));
    all.push_back(std::move(operators));
  }
  return all;
}

}  // namespace swaa::kernels::cuda
