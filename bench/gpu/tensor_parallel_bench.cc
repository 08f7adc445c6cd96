// Models that several GPUs share: sums over ranks, and whole models in random weights on one GPU,
// on two and on four, each beside its floor.

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "bench/gpu/driven_model.h"
#include "bench/gpu/gpu_bench.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/ranks/gpu_communicator.h"
#include "kernels/cuda/ranks/sum_norm.h"

namespace swaa::bench {
namespace {

using kernels::Bf16;
using kernels::cuda::GpuCommunicator;
using kernels::cuda::RankBuffers;

constexpr int64_t kHidden = 2560;
constexpr double kProductRate = 700e12, kAttentionRate = 640e12;  // FLOP/s of one GPU
constexpr double kLinkRate = 450e9;                               // bytes/s into a GPU by NVLink 4

int Gpus() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

template <typename T>
T* Zeroed(int64_t bytes) {
  void* data = nullptr;
  SWAA_CUDA_CHECK(cudaMalloc(&data, bytes));
  SWAA_CUDA_CHECK(cudaMemset(data, 0, bytes));
  return static_cast<T*>(data);
}

// Seconds of one `run` on every rank at once, as MedianSeconds has them in a graph.
double OnAllRanks(
    std::vector<std::unique_ptr<GpuCommunicator>>* ranks,
    const std::function<std::function<void(int)>(GpuCommunicator*, cudaStream_t)>& prepare) {
  double seconds = 0;
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < static_cast<int>(ranks->size()); ++rank) {
    threads.emplace_back([&, rank] {
      SWAA_CUDA_CHECK(cudaSetDevice(rank));
      cudaStream_t stream = nullptr;
      SWAA_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
      GpuCommunicator* const end = (*ranks)[rank].get();
      end->Bind(stream);
      const auto run = prepare(end, stream);
      end->Agree(0).IgnoreError();
      run(0);
      run(1);
      SWAA_CUDA_CHECK(cudaStreamSynchronize(stream));
      const double mine = MedianSeconds(stream, run, 20, 20);
      if (rank == 0) seconds = mine;
      end->Agree(0).IgnoreError();
      SWAA_CUDA_CHECK(cudaStreamDestroy(stream));
    });
  }
  threads.clear();  // joins
  return seconds;
}

void BenchSums(int size) {
  std::vector<int> ordinals(size);
  std::iota(ordinals.begin(), ordinals.end(), 0);
  auto made = kernels::cuda::MakeGpuCommunicators(ordinals);
  if (!made.ok()) throw std::runtime_error(std::string(made.status().message()));
  auto ranks = *std::move(made);
  const std::string on = std::to_string(size) + " GPUs: ";
  for (int64_t bytes = 8 << 10; bytes <= 64 << 20; bytes *= 2) {
    const double seconds = OnAllRanks(&ranks, [&](GpuCommunicator* end, cudaStream_t) {
      void* const values = Zeroed<void>(bytes);
      return [=](int) { end->AllReduce(values, bytes / 2, kernels::DataType::kBf16); };
    });
    char note[64];
    std::snprintf(note, sizeof(note), "%.0f GB/s", static_cast<double>(bytes) / seconds / 1e9);
    ReportRow("ranks", on + "NCCL all-reduce, " + std::to_string(bytes >> 10) + " KB", seconds,
              static_cast<double>(bytes) / kLinkRate, note);
  }
  for (const int64_t rows : {1, 8, 64, 512, 8192}) {
    const int64_t bytes = rows * kHidden * 2;
    bool reached = true;
    const double seconds = OnAllRanks(&ranks, [&](GpuCommunicator* end, cudaStream_t stream) {
      end->UseMemory(nullptr, Zeroed<std::byte>(kernels::cuda::SumSignals::Bytes(size)));
      auto* const residual = Zeroed<float>(2 * bytes);
      auto* const weight = Zeroed<float>(kHidden * 4);
      auto* const out = Zeroed<Bf16>(bytes);
      const RankBuffers* peers[2];
      for (const RankBuffers*& each : peers) each = end->Peers(Zeroed<Bf16>(bytes));
      if (peers[0] == nullptr) reached = false;
      return [=, first = peers[0], second = peers[1]](int i) {
        if (first == nullptr) return;
        kernels::cuda::SumNorm({.deltas = i % 2 == 0 ? *first : *second,
                                .residual = residual,
                                .weight = weight,
                                .out = out,
                                .rows = rows,
                                .hidden = kHidden,
                                .epsilon = 1e-6f},
                               {.stream = stream, .programmatic = true});
      };
    });
    if (!reached) continue;
    ReportRow("ranks", on + "sum, residual and norm, " + std::to_string(bytes >> 10) + " KB",
              seconds, static_cast<double>(bytes) / kLinkRate, "");
  }
}

// Of so many tokens on one GPU: products, and attention of every layer.
double PrefillFloor(const ModelConfig& c, double tokens, bool balanced) {
  const double width = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  const double layer = c.hidden * (2 * width + 2 * kv + 3.0 * c.ffn_width);
  const double full = tokens * (tokens + 1) / 2;
  const double sliding = std::min(full, tokens * (2048 + 100));
  const double keys = balanced ? (full + sliding) / 2 : full;
  return c.num_layers * (2 * layer * tokens / kProductRate + 4 * width * keys / kAttentionRate);
}

void BenchModel(const std::string& name, const ModelConfig& config, int32_t ranks) {
  const std::unique_ptr<Device> device = MakeDrivenModel(config, ranks, /*requests=*/1);
  const std::string on = name + " on " + std::to_string(ranks) + ": ";
  for (const bool balanced : {false, true}) {
    const std::string recipe = balanced ? "balanced" : "full";
    const auto request = [&] { return DrivenRequests(device.get(), config, 1, balanced); };
    request().Prefill(8192);  // warms up
    ReportRow("model", on + recipe + ", prefill of 32768", request().Prefill(32768),
              PrefillFloor(config, 32768, balanced) / ranks, "");
    DrivenRequests decodes = request();
    decodes.Prefill(2048);
    const double bytes = static_cast<double>(device->info().weight_bytes) / ranks -
                         2.0 * config.vocab_size * config.hidden;  // the embedding is not read
    ReportRow("model", on + recipe + ", step at 2048", decodes.Decode(200),
              bytes / DeviceCeilings().read_bytes_per_second, "");
  }
}

}  // namespace

SWAA_GPU_BENCHMARK(ranks) {
  for (const int ranks : {2, 4}) {
    if (ranks <= Gpus()) BenchSums(ranks);
  }
  return true;
}

SWAA_GPU_BENCHMARK(tensor_parallel) {
  for (const int ranks : {1, 2, 4}) {
    if (ranks <= Gpus()) BenchModel("Qwen3-4B", Qwen3Shape(36, 2560, 9728, 32), ranks);
  }
  for (const int ranks : {2, 4}) {  // one GPU of 80 GB has no room for it
    if (ranks <= Gpus()) BenchModel("Qwen3-32B", Qwen3Shape(64, 5120, 25600, 64), ranks);
  }
  return true;
}

}  // namespace swaa::bench
