// The engine's own work in a step, without the device's: plan, page table, commit. What the GPU
// would wait for.
//
//   build/bin/schedule_bench        time of one decode step at 1, 16 and 256 running requests

#include <benchmark/benchmark.h>

#include "absl/time/clock.h"
#include "base/check.h"
#include "engine/schedule/scheduler.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa {
namespace {

constexpr int32_t kLayers = 36;  // Qwen3-4B's

class NullSink final : public GenerationSink {
 public:
  void OnAccepted() override {}
  void OnPromptLogprobs(int32_t, std::vector<ScoredToken>) override {}
  void OnTokens(std::vector<OutputToken> tokens) override { benchmark::DoNotOptimize(tokens); }
  void OnFinished(const GenerationResult&) override {}
  void OnFailed(const absl::Status&, const GenerationStats&) override {}
};

std::unique_ptr<Tokenizer> OneTokenTokenizer() {
  TokenizerData data;
  data.tokens = {"a", "b"};
  data.kinds = {TokenKind::kNormal, TokenKind::kNormal};
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(std::move(data));
  SWAA_CHECK(tokenizer.ok()) << tokenizer.status().message();
  return *std::move(tokenizer);
}

Recipe RecipeNumber(int64_t i) {
  const std::vector<NamedRecipeSpec>& named = BuiltInRecipes();
  return *ResolveRecipe(named[i % static_cast<int64_t>(named.size())].spec, kLayers);
}

StepResult Answer(const Step& step) {
  StepResult result{.id = step.id};
  result.tokens.assign(step.logits.size(), ScoredToken{.token = 1});
  return result;
}

// range(0) requests with prompts of 4,096 tokens and all built-in recipes decode.
void BM_DecodeStep(benchmark::State& state) {
  const auto requests = static_cast<int32_t>(state.range(0));
  const SchedulerOptions options{
      .max_batch_tokens = 8192, .max_running_requests = requests, .max_context_tokens = 1 << 20};
  const DeviceInfo device{.num_layers = kLayers,
                          .num_pages = requests * 300 * kLayers,
                          .page_bytes = 1,
                          .num_slots = requests,
                          .max_pages_per_layer = 1 << 14,
                          .max_step_tokens = 8192};
  const std::unique_ptr<Tokenizer> tokenizer = OneTokenTokenizer();
  Scheduler scheduler(options, device, tokenizer.get());
  const auto sink = std::make_shared<NullSink>();
  for (int32_t i = 0; i < requests; ++i) {
    GenerationRequest request;
    request.id = std::to_string(i);
    request.prompt.assign(4096, 0);
    request.prompt[0] = i % 2;
    request.cache_salt = request.id;
    request.recipe = RecipeNumber(i);
    request.recipe_label = BuiltInRecipes()[i % BuiltInRecipes().size()].name;
    request.stopping.ignore_eos = true;
    request.stopping.max_tokens = 15000;
    scheduler.Add(std::move(request), sink, 15000);
  }
  while (scheduler.step_prefill_tokens() > 0 || scheduler.Load().running < requests) {
    std::optional<Step> step = scheduler.NextStep(absl::Now());
    SWAA_CHECK(step.has_value());
    scheduler.Commit(Answer(*step), absl::Now());
  }
  double plan_seconds = 0;
  double commit_seconds = 0;
  for (auto _ : state) {
    const absl::Time start = absl::Now();
    std::optional<Step> step = scheduler.NextStep(start);
    const absl::Time planned = absl::Now();
    StepResult result = Answer(*step);
    const absl::Time answered = absl::Now();
    scheduler.Commit(std::move(result), answered);
    benchmark::DoNotOptimize(scheduler.Load());
    const absl::Time done = absl::Now();
    plan_seconds += absl::ToDoubleSeconds(planned - start);
    commit_seconds += absl::ToDoubleSeconds(done - answered);
    state.SetIterationTime(absl::ToDoubleSeconds(planned - start + (done - answered)));
  }
  state.counters["plan_us"] =
      benchmark::Counter(plan_seconds * 1e6, benchmark::Counter::kAvgIterations);
  state.counters["commit_us"] =
      benchmark::Counter(commit_seconds * 1e6, benchmark::Counter::kAvgIterations);
}
BENCHMARK(BM_DecodeStep)
    ->Arg(1)
    ->Arg(16)
    ->Arg(256)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond)
    ->Iterations(2000);

}  // namespace
}  // namespace swaa

BENCHMARK_MAIN();
