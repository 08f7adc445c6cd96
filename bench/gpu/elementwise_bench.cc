// Benchmarks: the memory-bound operators and the sampler in Qwen3-4B's shapes, beside the time in
// which the card reads as many bytes.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/gpu/gpu_bench.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/elementwise/elementwise.h"
#include "kernels/cuda/sampling/sampler.h"

namespace swaa::bench {
namespace {

using kernels::Bf16;
using namespace kernels::cuda;

constexpr int64_t kHidden = 2560, kHeads = 32, kKvHeads = 8, kHeadDim = 128, kFfn = 9728;
constexpr int64_t kQkv = (kHeads + 2 * kKvHeads) * kHeadDim;
constexpr int32_t kVocab = 151936;
constexpr int kGraphRuns = 64;
// Inputs in turn: more than L2 holds, up to a limit of memory.
constexpr int64_t kRotatedBytes = int64_t{256} << 20;

// Device memory of random bf16 values (also read as f32: finite ones).
class Memory {
 public:
  explicit Memory(int64_t bytes) {
    SWAA_CUDA_CHECK(cudaMalloc(&data_, bytes));
    std::mt19937 random(1);
    std::vector<Bf16> values(std::min<int64_t>(bytes / 2 + 1, 1 << 20));
    std::normal_distribution<float> normal;
    for (Bf16& value : values) value = kernels::ToBf16(normal(random));
    const auto block = static_cast<int64_t>(values.size() * 2);
    for (int64_t at = 0; at < bytes; at += block) {
      SWAA_CUDA_CHECK(cudaMemcpy(static_cast<std::byte*>(data_) + at, values.data(),
                                 std::min(block, bytes - at), cudaMemcpyHostToDevice));
    }
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { cudaFree(data_); }

  template <typename T>
  T* at(int64_t byte = 0) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(data_) + byte);
  }

 private:
  void* data_ = nullptr;
};

template <typename T>
std::unique_ptr<Memory> Upload(const std::vector<T>& values) {
  auto memory = std::make_unique<Memory>(static_cast<int64_t>(values.size() * sizeof(T)));
  SWAA_CUDA_CHECK(cudaMemcpy(memory->at<T>(), values.data(), values.size() * sizeof(T),
                             cudaMemcpyHostToDevice));
  return memory;
}

class Stream {
 public:
  Stream() { SWAA_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

bool Programmatic() {
  int major = 0;
  SWAA_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  return major >= 9;
}

// Runs of `work(copy, launch)` in a graph over rotated copies of `bytes` each; reports the time of
// one.
template <typename Work>
void Report(const std::string& name, int64_t bytes, int64_t copies, const Work& work) {
  const Stream stream;
  const bool programmatic = Programmatic();
  const double seconds = MedianSeconds(
      stream,
      [&](int run) {
        // The first of a graph has no kernel before it.
        work(run % copies, Launch{.stream = stream, .programmatic = programmatic && run > 0});
      },
      20, kGraphRuns);
  ReportRow(
      "elementwise", name, seconds,
      static_cast<double>(bytes) / DeviceCeilings().read_bytes_per_second,
      std::to_string(static_cast<int64_t>(static_cast<double>(bytes) / seconds / 1e9)) + " GB/s");
}

int64_t Copies(int64_t bytes) { return std::clamp<int64_t>(kRotatedBytes / bytes, 1, kGraphRuns); }

void BenchAddNorm(int64_t rows) {
  for (const bool is_float : {true, false}) {
    const int64_t residual = rows * kHidden * (is_float ? 4 : 2), half = rows * kHidden * 2;
    const int64_t copies = Copies(residual + 2 * half);
    const Memory x(copies * residual), delta(copies * half), out(copies * half),
        weight(kHidden * 4);
    Report("AddNorm " + std::string(is_float ? "f32" : "bf16") + " residual, rows " +
               std::to_string(rows),
           2 * residual + 2 * half + 4 * kHidden, copies, [&](int64_t copy, const Launch& launch) {
             AddNorm(
                 {.residual = x.at<void>(copy * residual),
                  .residual_type = is_float ? kernels::DataType::kF32 : kernels::DataType::kBf16,
                  .delta = delta.at<Bf16>(copy * half),
                  .weight = weight.at<float>(),
                  .out = out.at<Bf16>(copy * half),
                  .rows = rows,
                  .hidden = kHidden,
                  .epsilon = 1e-6f},
                 launch);
           });
  }
}

void BenchSiluMul(int64_t rows) {
  const int64_t in = rows * 2 * kFfn * 2, out_bytes = rows * kFfn * 2;
  const int64_t copies = Copies(in + out_bytes);
  const Memory x(copies * in), out(copies * out_bytes);
  Report("SiluMul, rows " + std::to_string(rows), in + out_bytes, copies,
         [&](int64_t copy, const Launch& launch) {
           SiluMul({.gate_up = x.at<Bf16>(copy * in),
                    .out = out.at<Bf16>(copy * out_bytes),
                    .rows = rows,
                    .width = kFfn},
                   launch);
         });
}

void BenchRopeAndStore(int64_t rows) {
  const int64_t qkv_bytes = rows * kQkv * 2, page_bytes = 4 * kKvHeads * 64 * kHeadDim;
  const int64_t copies = Copies(2 * qkv_bytes);
  const auto blocks = static_cast<int32_t>((rows + 63) / 64);
  std::vector<int32_t> positions(rows), slots(rows, 0), table(blocks);
  for (int64_t row = 0; row < rows; ++row) positions[row] = static_cast<int32_t>(row);
  for (int32_t block = 0; block < blocks; ++block) table[block] = blocks - 1 - block;
  const auto device_positions = Upload(positions), device_slots = Upload(slots);
  const auto device_table = Upload(table);
  const Memory qkv(copies * qkv_bytes), pages(copies * blocks * page_bytes),
      cos_sin(rows * kHeadDim * 4), norm(kHeadDim * 4);
  const int64_t bytes = 2 * qkv_bytes + rows * kHeadDim * 4;
  Report("RopeAndStore with norms, rows " + std::to_string(rows), bytes, copies,
         [&](int64_t copy, const Launch& launch) {
           RopeAndStore({.qkv = qkv.at<Bf16>(copy * qkv_bytes),
                         .cos_sin = cos_sin.at<float>(),
                         .q_norm = norm.at<float>(),
                         .k_norm = norm.at<float>(),
                         .norm_epsilon = 1e-6f,
                         .positions = device_positions->at<int32_t>(),
                         .slots = device_slots->at<int32_t>(),
                         .page_table = {device_table->at<int32_t>(), 1, blocks},
                         .pages = {pages.at<std::byte>(copy * blocks * page_bytes), page_bytes},
                         .rows = rows,
                         .heads = kHeads,
                         .kv_heads = kKvHeads,
                         .head_dim = kHeadDim},
                        launch);
         });
}

void BenchEmbedAndTables(int64_t rows) {
  std::vector<int32_t> ids(rows), positions(rows);
  std::mt19937 random(2);
  for (int64_t row = 0; row < rows; ++row) {
    ids[row] = static_cast<int32_t>(random() % kVocab);
    positions[row] = static_cast<int32_t>(random() % (1 << 20));
  }
  const auto device_ids = Upload(ids), device_positions = Upload(positions);
  const Memory table(int64_t{kVocab} * kHidden * 2), frequencies(kHeadDim * 2);
  const int64_t out_bytes = rows * kHidden * 2, copies = Copies(out_bytes);
  const Memory out(copies * out_bytes), cos_sin(rows * kHeadDim * 4);
  Report("Embed, rows " + std::to_string(rows), 2 * out_bytes, copies,
         [&](int64_t copy, const Launch& launch) {
           Embed({.ids = device_ids->at<int32_t>(),
                  .slots = device_ids->at<int32_t>(),
                  .drawn = device_ids->at<int32_t>(),
                  .table = table.at<Bf16>(),
                  .out = out.at<Bf16>(copy * out_bytes),
                  .rows = rows,
                  .hidden = kHidden,
                  .vocab = kVocab},
                 launch);
         });
  Report("RopeTable, rows " + std::to_string(rows), rows * kHeadDim * 4, 1,
         [&](int64_t, const Launch& launch) {
           RopeTable({.positions = device_positions->at<int32_t>(),
                      .inverse_frequencies = frequencies.at<float>(),
                      .cos_sin = cos_sin.at<float>(),
                      .rows = rows,
                      .half = kHeadDim / 2},
                     launch);
         });
}

struct SamplingCase {
  const char* name;
  kernels::SamplingParams params;
  int32_t alternatives;
};

bool BenchSampling(int32_t rows) {
  const std::vector<SamplingCase> cases = {
      {"greedy", {.temperature = 0}, -1},
      {"temperature 1", {}, -1},
      {"temperature 0.7, top-p 0.9, top-k 40",
       {.temperature = 0.7f, .top_p = 0.9f, .top_k = 40},
       -1},
      {"top-p 0.95", {.top_p = 0.95f}, -1},
      {"penalties", {.frequency_penalty = 0.5f, .repetition_penalty = 1.1f}, -1},
      {"greedy, 5 alternatives", {.temperature = 0}, 5},
  };
  absl::StatusOr<std::unique_ptr<CudaSampler>> sampler = CudaSampler::Create(rows, kVocab, rows);
  if (!sampler.ok()) return false;
  const int64_t bytes = int64_t{rows} * kVocab * 4, copies = Copies(bytes);
  // As a model gives them: normal, with a best one that stands out a little.
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 2.5f);
  std::vector<float> logits(static_cast<size_t>(copies) * rows * kVocab);
  std::vector<float> some(1 << 20);
  for (float& value : some) value = normal(random);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = some[(i * 2654435761u >> 7) % some.size()];
  for (size_t row = 0; row < logits.size() / kVocab; ++row) {
    logits[row * kVocab + random() % kVocab] += 12;
  }
  const auto device_logits = Upload(logits);
  const auto live = Upload(std::vector<int32_t>{rows});
  const Memory tokens(int64_t{rows} * sizeof(SampledToken)),
      alternatives(int64_t{rows} * sizeof(Alternatives));
  for (const SamplingCase& c : cases) {
    std::vector<kernels::SlotSetup> setups;
    std::vector<kernels::LogitsRow> wanted;
    for (int32_t slot = 0; slot < rows; ++slot) {
      kernels::SamplingParams params = c.params;
      params.seed = slot;
      setups.push_back({.slot = slot,
                        .sampling = std::make_shared<kernels::SamplingParams>(params),
                        .prompt = std::make_shared<std::vector<int32_t>>(1000, 7)});
      wanted.push_back({.row = slot, .slot = slot, .alternatives = c.alternatives});
    }
    if (!(*sampler)->SetUp(setups, nullptr).ok()) return false;
    SWAA_CUDA_CHECK(cudaDeviceSynchronize());
    const auto device_rows = Upload(wanted);
    const bool filters = c.params.top_k != 0 || c.params.top_p < 1;
    Report("sample, rows " + std::to_string(rows) + ", " + c.name, bytes, copies,
           [&](int64_t copy, const Launch& launch) {
             (*sampler)->Sample({.logits = device_logits->at<float>(copy * bytes),
                                 .rows = device_rows->at<kernels::LogitsRow>(),
                                 .live_rows = live->at<int32_t>(),
                                 .tokens = tokens.at<SampledToken>(),
                                 .alternatives = alternatives.at<Alternatives>(),
                                 .max_rows = rows,
                                 .features = {.filters = filters,
                                              .logprobs = c.alternatives >= 0,
                                              .alternatives = c.alternatives > 0}},
                                launch);
           });
  }
  return true;
}

}  // namespace

SWAA_GPU_BENCHMARK(elementwise) {
  for (const int64_t rows : {1, 64, 8192}) {
    BenchEmbedAndTables(rows);
    BenchAddNorm(rows);
    BenchRopeAndStore(rows);
    BenchSiluMul(rows);
  }
  return true;
}

SWAA_GPU_BENCHMARK(sampling) {
  for (const int32_t rows : {1, 8, 64, 256}) {
    if (!BenchSampling(rows)) return false;
  }
  return true;
}

}  // namespace swaa::bench
