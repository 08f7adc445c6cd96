// Draws from one row of logits of a large vocabulary, beside a sort of the row, and the search for
// stop strings.
//
//   build/bin/sampling_bench

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "engine/sampling/stop_matcher.h"
#include "kernels/cpu/draw_token.h"
#include "kernels/cpu/sampler.h"

namespace swaa {
namespace {

using kernels::LogitsRow;
using kernels::SamplingParams;
using kernels::ScoredToken;
using kernels::SlotSetup;

constexpr size_t kVocab = 152064;  // Qwen3's

std::vector<float> RandomLogits() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(kVocab);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// What the others are to be compared with.
void BM_Sort(benchmark::State& state) {
  const std::vector<float> logits = RandomLogits();
  for (auto _ : state) {
    std::vector<float> copy = logits;
    std::sort(copy.begin(), copy.end());
    benchmark::DoNotOptimize(copy);
  }
}
BENCHMARK(BM_Sort)->Unit(benchmark::kMicrosecond);

void BM_Draw(benchmark::State& state, const SamplingParams& params) {
  const std::vector<float> logits = RandomLogits();
  uint32_t index = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(kernels::cpu::DrawToken(logits, params, {.output_index = index++}));
  }
}
BENCHMARK_CAPTURE(BM_Draw, greedy, SamplingParams{.temperature = 0})->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(BM_Draw, plain, SamplingParams{})->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(BM_Draw, filtered,
                  SamplingParams{.temperature = 0.7f, .top_p = 0.9f, .top_k = 40})
    ->Unit(benchmark::kMicrosecond);

void BM_ScoreWithTwentyAlternatives(benchmark::State& state) {
  const std::vector<float> logits = RandomLogits();
  for (auto _ : state) benchmark::DoNotOptimize(kernels::cpu::ScoreToken(logits, 5, 20));
}
BENCHMARK(BM_ScoreWithTwentyAlternatives)->Unit(benchmark::kMicrosecond);

// A thousand distinct tokens in a prompt of range(0): its length costs nothing.
void BM_PenaltiesOfAPrompt(benchmark::State& state) {
  const std::vector<float> logits = RandomLogits();
  std::vector<int32_t> prompt(state.range(0));
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>(i % 1000);
  const SlotSetup setup{.sampling = std::make_shared<const SamplingParams>(
                            SamplingParams{.repetition_penalty = 1.1f}),
                        .prompt = std::make_shared<const std::vector<int32_t>>(std::move(prompt))};
  kernels::cpu::CpuSampler sampler(1, kVocab);
  sampler.SetUp({&setup, 1});
  std::vector<ScoredToken> results(1);
  LogitsRow row;
  for (auto _ : state) {
    sampler.Sample(logits.data(), {&row, 1}, results);
    ++row.output_index;
  }
}
BENCHMARK(BM_PenaltiesOfAPrompt)->Arg(1000)->Arg(2'000'000)->Unit(benchmark::kMicrosecond);

// Text that is ever one byte short of sixteen stop strings of range(0) bytes: their length costs
// nothing.
void BM_RepetitiveStopStrings(benchmark::State& state) {
  const std::vector<std::string> strings(16, std::string(state.range(0) - 1, 'a') + "b");
  const std::string bytes(1 << 20, 'a');
  for (auto _ : state) {
    StopMatcher matcher(strings);
    benchmark::DoNotOptimize(matcher.Append(bytes));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(bytes.size()));
}
BENCHMARK(BM_RepetitiveStopStrings)->Arg(16)->Arg(1024)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace swaa

BENCHMARK_MAIN();
