// A mixture of experts on the GPU, of the shape of one layer of Qwen3-30B-A3B: few rows beside the
// time that reading the touched experts' weights takes, many rows as a rate.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "bench/gpu/gpu_bench.h"
#include "bench/gpu/linear_operands.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/experts/experts.h"

namespace swaa::bench {
namespace {

using kernels::Bf16;
using kernels::ExpertsShape;
using kernels::cuda::ExpertPointers;
using kernels::cuda::ExpertsArguments;
using kernels::cuda::ExpertsKernel;
using kernels::cuda::ExpertsScratchBytes;
using linear_bench::DeviceMemory;
using linear_bench::FillUniform;

constexpr ExpertsShape kShape = {.hidden = 2048, .width = 768, .count = 128, .experts_per_row = 8};
constexpr int64_t kMaxRows = 8192;
// Choices of experts to go through in turn, so that L2 does not answer.
constexpr int kChoices = 16;

class Problem {
 public:
  Problem() {
    const int64_t gate_up = 2 * kShape.width * kShape.hidden, down = kShape.width * kShape.hidden;
    FillUniform(weights_.as<Bf16>(), kShape.count * (gate_up + down), 0.03f);
    FillUniform(x_.as<Bf16>(), kMaxRows * kShape.hidden, 1.7f);
    std::vector<ExpertPointers> pointers;
    for (int64_t e = 0; e < kShape.count; ++e) {
      const Bf16* begin = weights_.as<Bf16>() + e * (gate_up + down);
      pointers.push_back({begin, begin + gate_up});
    }
    SWAA_CUDA_CHECK(cudaMemcpy(pointers_.as<void>(), pointers.data(),
                               pointers.size() * sizeof(ExpertPointers), cudaMemcpyHostToDevice));
  }

  // Random logits for each choice; returns the experts that a run touches on average.
  double Choose(int64_t rows) {
    std::mt19937 random(17);
    std::normal_distribution<float> normal;
    double touched = 0;
    const int64_t count = rows * kShape.count;
    std::vector<float> logits(count);
    logits_ = std::make_unique<DeviceMemory>(kChoices * count * 4);
    for (int choice = 0; choice < kChoices; ++choice) {
      std::set<int64_t> experts;
      for (int64_t r = 0; r < rows; ++r) {
        float* row = logits.data() + r * kShape.count;
        std::generate_n(row, kShape.count, [&] { return normal(random); });
        std::vector<int64_t> order(kShape.count);
        std::iota(order.begin(), order.end(), 0);
        std::partial_sort(order.begin(), order.begin() + kShape.experts_per_row, order.end(),
                          [&](int64_t a, int64_t b) { return row[a] > row[b]; });
        experts.insert(order.begin(), order.begin() + kShape.experts_per_row);
      }
      touched += static_cast<double>(experts.size()) / kChoices;
      SWAA_CUDA_CHECK(cudaMemcpy(logits_->as<float>() + choice * count, logits.data(), count * 4,
                                 cudaMemcpyHostToDevice));
    }
    return touched;
  }

  void Run(int64_t rows, int choice, cudaStream_t stream, ExpertsKernel kernel) const {
    RunExperts({.shape = kShape,
                .normalize = true,
                .experts = pointers_.as<ExpertPointers>(),
                .logits = logits_->as<float>() + choice % kChoices * rows * kShape.count,
                .x = x_.as<Bf16>(),
                .scratch = scratch_.as<std::byte>(),
                .out = out_.as<Bf16>(),
                .rows = rows},
               {.stream = stream, .programmatic = true}, kernel);
  }

  static constexpr double kExpertBytes = 6. * kShape.width * kShape.hidden;

 private:
  DeviceMemory weights_{static_cast<int64_t>(kShape.count * kExpertBytes)};
  DeviceMemory pointers_{static_cast<int64_t>(kShape.count * sizeof(ExpertPointers))};
  DeviceMemory x_{kMaxRows * kShape.hidden * 2};
  DeviceMemory out_{kMaxRows * kShape.hidden * 2};
  DeviceMemory scratch_{ExpertsScratchBytes(kShape, kMaxRows)};
  std::unique_ptr<DeviceMemory> logits_;
};

void Measure(Problem& problem, int64_t rows, const char* name, ExpertsKernel kernel,
             cudaStream_t stream) {
  const double touched = problem.Choose(rows);
  const double seconds = MedianSeconds(
      stream, [&](int run) { problem.Run(rows, run, stream, kernel); }, 20, rows > 1000 ? 0 : 32);
  const double bytes = touched * Problem::kExpertBytes;
  const double operations = Problem::kExpertBytes * static_cast<double>(rows) * 8;
  ReportRow("experts", absl::StrFormat("30B-A3B layer, %d rows, %s", rows, name), seconds,
            bytes / DeviceCeilings().read_bytes_per_second,
            absl::StrFormat("%5.1f experts, %.2f TB/s, %5.1f TFLOP/s", touched,
                            bytes / seconds / 1e12, operations / seconds / 1e12));
}

SWAA_GPU_BENCHMARK(experts) {
  if (const absl::Status status = kernels::cuda::PrepareExperts(); !status.ok()) {
    throw std::runtime_error(std::string(status.message()));
  }
  cudaStream_t stream = nullptr;
  SWAA_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  Problem problem;
  for (const int64_t rows : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512}) {
    Measure(problem, rows, "streamed", ExpertsKernel::kStreamed, stream);
  }
  for (const int64_t rows : {64, 128, 256, 512, 2048, 8192}) {
    Measure(problem, rows, "tiled", ExpertsKernel::kTiled, stream);
  }
  cudaStreamDestroy(stream);
  return true;
}

}  // namespace
}  // namespace swaa::bench
