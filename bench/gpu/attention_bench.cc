// What attention reaches on the GPU. Prefill in TFLOP/s over visible pairs, 4 * head_dim * heads
// operations each; decoding as a share of the bandwidth, over the bytes of visible keys and values.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "bench/gpu/gpu_bench.h"
#include "kernels/cuda/cuda_check.h"
#include "tests/gpu/attention_problem.h"

namespace swaa::bench {
namespace {

using kernels::KeySpan;
using kernels::cuda::AttentionKernels;
using kernels::cuda::AttentionLaunch;
using kernels::cuda::AttentionProblem;
using kernels::cuda::AttentionProblemOptions;
using kernels::cuda::AttentionRequest;
using kernels::cuda::AttentionRunner;

constexpr double kErrorLimit = 5e-3;
constexpr int kSamples = 64;

AttentionRequest Request(int32_t first_position, int32_t query_count, KeySpan span = {}) {
  return {.first_position = first_position, .query_count = query_count, .spans = {span}};
}
KeySpan Window(int32_t window, int32_t sinks) { return {.window = window, .sinks = sinks}; }

AttentionProblemOptions Options(int32_t head_dim, int32_t layers = 1) {
  AttentionProblemOptions options;
  options.head_dim = head_dim;
  options.layer_class.assign(layers, 0);
  options.poisoned = false;
  options.gap_rows = 0;
  return options;
}

// One stream for all; never destroyed.
cudaStream_t Stream() {
  static cudaStream_t stream = [] {
    cudaStream_t made;
    SWAA_CUDA_CHECK(cudaStreamCreate(&made));
    return made;
  }();
  return stream;
}

bool IsRight(const AttentionProblem& problem, AttentionRunner& runner, const std::string& name) {
  problem.PoisonOutput();
  runner.Run(0, {.stream = Stream()});
  SWAA_CUDA_CHECK(cudaStreamSynchronize(Stream()));
  const double error = problem.Error(problem.step(), 0, kSamples);
  if (error < kErrorLimit) return true;
  std::fprintf(stderr, "%s: error %.2e\n", name.c_str(), error);
  return false;
}

bool Prefill(const std::string& name, std::vector<AttentionRequest> requests, int32_t head_dim,
             AttentionKernels kernels = AttentionKernels::kAutomatic) {
  const AttentionProblem problem(Options(head_dim), std::move(requests));
  AttentionRunner runner(problem, kernels);
  runner.Plan(problem.step(), Stream());
  const double operations = 4. * head_dim * problem.shape().heads * problem.Pairs(0);
  const double seconds = MedianSeconds(
      Stream(), [&](int) { runner.Run(0, {.stream = Stream()}); }, operations > 5e13 ? 5 : 20);
  ReportRow("prefill", name, seconds, 0,
            absl::StrFormat("%6.1f TFLOP/s", operations / seconds / 1e12));
  return IsRight(problem, runner, name);
}

// Layers rotate, so that L2 does not answer.
bool Decode(const std::string& name, int32_t sequences, int32_t length, KeySpan span,
            int32_t layers, int graph_runs, AttentionProblemOptions options,
            AttentionKernels kernels = AttentionKernels::kAutomatic) {
  options.layer_class.assign(layers, 0);
  const AttentionProblem problem(
      options, std::vector<AttentionRequest>(sequences, Request(length - 1, 1, span)));
  AttentionRunner runner(problem, kernels);
  runner.Plan(problem.step(), Stream());
  const double bytes = 4. * options.kv_heads * options.head_dim * problem.Pairs(0);
  const auto time = [&](bool dependent) {
    return MedianSeconds(
        Stream(),
        [&](int i) { runner.Run(i % layers, {.stream = Stream(), .dependent = dependent}); }, 11,
        graph_runs);
  };
  const double seconds = time(false), dependent = time(true);
  ReportRow("decode", name, seconds, bytes / DeviceCeilings().read_bytes_per_second,
            absl::StrFormat("%.3f TB/s; dependent launches %.2f us", bytes / seconds / 1e12,
                            dependent * 1e6));
  return IsRight(problem, runner, name);
}

// Medians of functions timed in turn: a card at its power limit slows down over a second.
std::vector<double> InTurn(const std::vector<std::function<void()>>& functions) {
  std::vector<std::vector<double>> times(functions.size());
  for (int round = 0; round < 9; ++round) {
    for (size_t f = 0; f < functions.size(); ++f)
      times[f].push_back(MedianSeconds(
          Stream(), [&](int) { functions[f](); }, 3));
  }
  std::vector<double> medians;
  for (auto& t : times) {
    std::sort(t.begin(), t.end());
    medians.push_back(t[t.size() / 2]);
  }
  return medians;
}

// Any mix of recipes in one launch against its requests one launch after another.
bool Mix(const std::string& name, const std::vector<AttentionRequest>& requests) {
  std::vector<std::unique_ptr<AttentionProblem>> problems;
  std::vector<std::unique_ptr<AttentionRunner>> runners;
  const auto add = [&](std::vector<AttentionRequest> part) {
    problems.push_back(std::make_unique<AttentionProblem>(Options(128), std::move(part)));
    runners.push_back(
        std::make_unique<AttentionRunner>(*problems.back(), AttentionKernels::kAutomatic));
    runners.back()->Plan(problems.back()->step(), Stream());
  };
  add(requests);
  for (const AttentionRequest& r : requests) add({r});
  const AttentionLaunch launch{.stream = Stream()};
  const std::vector<double> seconds = InTurn({[&] { runners[0]->Run(0, launch); },
                                              [&] {
                                                for (size_t i = 1; i < runners.size(); ++i)
                                                  runners[i]->Run(0, launch);
                                              }});
  ReportRow("mix", name, seconds[0], 0,
            absl::StrFormat("%.3f of its %d parts' %.2f us", seconds[0] / seconds[1],
                            static_cast<int>(requests.size()), seconds[1] * 1e6));
  return IsRight(*problems[0], *runners[0], name);
}

// What the host and the device plan in a step.
void Plans(const std::string& name, const std::vector<AttentionRequest>& requests,
           int32_t classes) {
  AttentionProblemOptions options = Options(128);
  options.layer_class.clear();
  for (int32_t c = 0; c < classes; ++c) options.layer_class.push_back(c);
  const AttentionProblem problem(options, requests);
  AttentionRunner runner(problem, AttentionKernels::kAutomatic, classes);
  runner.Plan(problem.step(), Stream());
  std::vector<double> host;
  int64_t bytes = 0;
  for (int i = 0; i < 201; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    bytes = runner.attention().Write(problem.step(), &runner.plan());
    host.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::nth_element(host.begin(), host.begin() + 100, host.end());
  const double device = MedianSeconds(
      Stream(), [&](int) { runner.attention().PlanDecode(runner.plan(), Stream()); }, 11, 20);
  ReportRow("plan", name, host[100], 0,
            absl::StrFormat("on the host, %d bytes; on the device %.2f us", bytes, device * 1e6));
}

bool Prefills() {
  bool right = true;
  for (const int32_t n : {8192, 32768, 131072})
    right &= Prefill(absl::StrFormat("causal %d", n), {Request(0, n)}, 128);
  for (const int32_t n : {32768, 131072})
    for (const int32_t k : {10, 128})
      right &=
          Prefill(absl::StrFormat("W=2048 K=%d %d", k, n), {Request(0, n, Window(2048, k))}, 128);
  right &= Prefill("W=512 K=16 32768", {Request(0, 32768, Window(512, 16))}, 128);
  right &= Prefill("chunk 128 at 32640", {Request(32640, 128)}, 128);
  right &= Prefill("chunk 640 at 32128", {Request(32128, 640)}, 128);
  right &= Prefill("chunk 2048 at 30720", {Request(30720, 2048)}, 128);
  right &= Prefill("chunk 8192 at 120000", {Request(120000, 8192)}, 128);
  right &= Prefill("16 x 512", std::vector<AttentionRequest>(16, Request(0, 512)), 128);
  for (const int32_t dim : {64, 96}) {
    for (const int32_t n : {8192, 32768})
      right &= Prefill(absl::StrFormat("head_dim %d causal %d", dim, n), {Request(0, n)}, dim);
    right &= Prefill(absl::StrFormat("head_dim %d W=2048 K=128 32768", dim),
                     {Request(0, 32768, Window(2048, 128))}, dim);
  }
  for (const int32_t dim : {128, 64}) {
    right &= Prefill(absl::StrFormat("portable, head_dim %d causal 8192", dim), {Request(0, 8192)},
                     dim, AttentionKernels::kPortable);
    right &= Prefill(absl::StrFormat("portable, head_dim %d W=2048 K=128 32768", dim),
                     {Request(0, 32768, Window(2048, 128))}, dim, AttentionKernels::kPortable);
  }
  return right;
}

bool Decodes() {
  const AttentionProblemOptions large = Options(128);
  AttentionProblemOptions small = Options(64);
  small.heads = 9;
  small.kv_heads = 3;
  bool right = true;
  right &= Decode("1 x 131072", 1, 131072, {}, 2, 20, large);
  right &= Decode("8 x 32768", 8, 32768, {}, 1, 10, large);
  right &= Decode("32 x 8192", 32, 8192, {}, 1, 10, large);
  right &= Decode("128 x 2048", 128, 2048, {}, 1, 10, large);
  right &= Decode("1 x W=2048 K=128", 1, 32768, Window(2048, 128), 32, 64, large);
  right &= Decode("1 x W=2048 K=10", 1, 32768, Window(2048, 10), 32, 64, large);
  right &= Decode("8 x W=2048 K=128", 8, 32768, Window(2048, 128), 8, 32, large);
  right &= Decode("32 x W=2048 K=128", 32, 32768, Window(2048, 128), 4, 16, large);
  right &= Decode("1 x 2048", 1, 2048, {}, 32, 64, large);
  right &= Decode("head_dim 64, 9/3 heads: 128 x 8192", 128, 8192, {}, 1, 8, small);
  right &=
      Decode("head_dim 64, 9/3 heads: 1 x W=512 K=16", 1, 8192, Window(512, 16), 64, 128, small);
  right &= Decode("portable: 8 x 32768", 8, 32768, {}, 1, 10, large, AttentionKernels::kPortable);
  right &= Decode("portable: 1 x W=2048 K=128", 1, 32768, Window(2048, 128), 32, 64, large,
                  AttentionKernels::kPortable);
  return right;
}

bool Mixes() {
  return Mix("6 requests",
             {Request(0, 8192), Request(24576, 4096), Request(0, 16384, Window(2048, 100)),
              Request(16384, 8192, Window(2048, 10)), Request(0, 8192, Window(512, 16)),
              Request(1000, 3000, Window(4096, 100))}) &
         Mix("5 small requests",
             {Request(0, 4096), Request(30000, 1000, Window(2048, 10)), Request(5000, 1500),
              Request(9000, 1100, Window(2048, 128)), Request(100, 500, Window(512, 16))});
}

void AllPlans() {
  const auto with_classes = [](AttentionRequest r) {
    r.spans = {{}, Window(2048, 100), Window(512, 16)};
    return r;
  };
  std::vector<AttentionRequest> chunks, decodes;
  for (int32_t i = 0; i < 64; ++i) chunks.push_back(with_classes(Request(100 * i, 128)));
  Plans("64 requests, 8192 rows, 3 classes", chunks, 3);
  Plans("chunk 640 at 32128, 3 classes", {with_classes(Request(32128, 640))}, 3);
  for (const int32_t n : {1, 64, 1024}) {
    decodes.assign(n, with_classes(Request(255, 1)));
    Plans(absl::StrFormat("%d decoding, 3 classes", n), decodes, 3);
  }
}

}  // namespace

SWAA_GPU_BENCHMARK(attention) {
  AllPlans();
  const bool decodes = Decodes(), prefills = Prefills(), mixes = Mixes();
  return decodes && prefills && mixes;
}

}  // namespace swaa::bench
