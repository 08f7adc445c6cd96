// The engine's own work in a step, without the device's: plan, page table, commit. What a GPU would
// wait for.
//
//   build/bin/schedule_bench        processor time of one decode step, in states that were or could
//                                   be slow; mean and worst of the steps. `ahead` is what is done
//                                   while the device computes, and is in no other figure.

#include <algorithm>
#include <ctime>
#include <deque>

#include <benchmark/benchmark.h>

#include "base/check.h"
#include "engine/schedule/scheduler.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa {
namespace {

constexpr int32_t kLayers = 36;  // Qwen3-4B's
constexpr int32_t kRunning = 256;
constexpr int32_t kShort = 4096;  // tokens of a prompt
constexpr int32_t kLong = 128 * 1024;
constexpr int32_t kLongest = (1 << 20) - 1024;

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

int64_t PagesOf(int64_t tokens) { return (tokens + 63) / 64 * kLayers; }

// Processor time of this thread: what else runs on the machine does not count.
double ThreadMicroseconds() {
  timespec now;
  SWAA_CHECK_EQ(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now), 0);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

// A scheduler whose device answers at once, two steps in flight.
class Engine {
 public:
  Engine(int64_t pages, int32_t slots)
      : tokenizer_(OneTokenTokenizer()),
        scheduler_({.max_batch_tokens = 8192,
                    .max_running_requests = slots,
                    .max_context_tokens = 1 << 20},
                   {.num_layers = kLayers,
                    .num_pages = static_cast<int32_t>(pages) + 1,
                    .page_bytes = 1,
                    .num_slots = slots,
                    .max_pages_per_layer = 1 << 14,
                    .max_step_tokens = 8192,
                    .max_steps_in_flight = 2},
                   tokenizer_.get()) {}

  struct Ask {
    int32_t prefix = 0;  // tokens that all with this prefix have
    int32_t own = 0;     // tokens behind it that nobody else has
    int64_t recipe = 0;  // 0: full attention
    int32_t output = 1 << 14;
    float frequency_penalty = 0;
  };
  GenerationRequest Make(const Ask& ask) {
    GenerationRequest request;
    request.id = std::to_string(next_++);
    std::vector<int32_t> prompt(ask.prefix + ask.own, 0);
    for (int bit = 0; bit < 16 && ask.own > 0; ++bit) prompt[ask.prefix + bit] = next_ >> bit & 1;
    request.prompt = std::make_shared<const std::vector<int32_t>>(std::move(prompt));
    request.recipe = RecipeNumber(ask.recipe);
    request.recipe_label = BuiltInRecipes()[ask.recipe % BuiltInRecipes().size()].name;
    request.sampling.frequency_penalty = ask.frequency_penalty;
    request.stopping.ignore_eos = true;
    request.stopping.max_tokens = ask.output;
    return request;
  }
  // Its id.
  std::string Add(GenerationRequest request) {
    std::string id = request.id;
    const auto output = static_cast<int32_t>(*request.stopping.max_tokens);
    scheduler_.Add(std::move(request), sink_, output, SteadyClock::now());
    return id;
  }
  std::string Add(const Ask& ask) { return Add(Make(ask)); }

  // Submits what may be, commits one step; the processor time of all but the device's part.
  double Step() {
    const double start = ThreadMicroseconds();
    while (scheduler_.steps_in_flight() < 2) {
      std::optional<swaa::Step> step = scheduler_.NextStep(SteadyClock::now());
      if (!step.has_value()) break;
      submitted_.push_back(*std::move(step));
    }
    const double planned = ThreadMicroseconds();
    if (submitted_.empty()) return planned - start;
    scheduler_.LookAhead();
    worst_ahead_us_ = std::max(worst_ahead_us_, ThreadMicroseconds() - planned);
    StepResult result{.id = submitted_.front().id};
    result.tokens.assign(submitted_.front().logits.size(), ScoredToken{.token = 1});
    submitted_.pop_front();
    const double answered = ThreadMicroseconds();
    const Scheduler::CommittedStep step = scheduler_.Commit(std::move(result), SteadyClock::now());
    prefilled_ = step.work.prefill_tokens;
    benchmark::DoNotOptimize(scheduler_.Snapshot());
    const double done = ThreadMicroseconds();
    plan_us_ += planned - start;
    commit_us_ += done - answered;
    return planned - start + done - answered;
  }

  // Until so many run and all of them decode.
  void Fill(int32_t running) {
    do {
      Step();
    } while (prefilled_ > 0 || scheduler_.Snapshot().totals.running < running);
    plan_us_ = commit_us_ = worst_ahead_us_ = 0;
  }

  void Abort(const std::string& id) { scheduler_.Abort(id); }
  EngineLoad Load() const { return scheduler_.Load(); }
  double plan_us() const { return plan_us_; }
  double commit_us() const { return commit_us_; }
  double worst_ahead_us() const { return worst_ahead_us_; }

 private:
  std::unique_ptr<Tokenizer> tokenizer_;
  std::shared_ptr<NullSink> sink_ = std::make_shared<NullSink>();
  Scheduler scheduler_;
  std::deque<swaa::Step> submitted_;
  int32_t next_ = 0;
  int32_t prefilled_ = 0;
  double plan_us_ = 0;
  double commit_us_ = 0;
  double worst_ahead_us_ = 0;
};

void Measure(Engine* engine, benchmark::State* state) {
  double worst = 0;
  for (auto _ : *state) {
    const double step = engine->Step();
    worst = std::max(worst, step);
    state->SetIterationTime(step * 1e-6);
  }
  state->counters["worst_us"] = worst;
  state->counters["worst_ahead_us"] = engine->worst_ahead_us();
  state->counters["plan_us"] =
      benchmark::Counter(engine->plan_us(), benchmark::Counter::kAvgIterations);
  state->counters["commit_us"] =
      benchmark::Counter(engine->commit_us(), benchmark::Counter::kAvgIterations);
}

// `count` requests of all built-in recipes in turn, or of full attention.
void AddShort(Engine* engine, int32_t count, bool full = false) {
  for (int32_t i = 0; i < count; ++i) engine->Add({.own = kShort, .recipe = full ? 0 : i});
}

// `count` requests for later: making their prompts empties the caches, and with them any step costs
// five times as much.
std::vector<GenerationRequest> MakeAll(Engine* engine, int64_t count, const Engine::Ask& ask) {
  std::vector<GenerationRequest> requests;
  for (int64_t i = 0; i < count; ++i) requests.push_back(engine->Make(ask));
  return requests;
}

void AddAll(Engine* engine, std::vector<GenerationRequest> requests) {
  for (GenerationRequest& request : requests) engine->Add(std::move(request));
}

// The states last for so many steps.
#define SWAA_STEP_BENCHMARK(name) \
  BENCHMARK(name)->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(250)

// range(0) requests decode, with prompts of 4,096 tokens and all built-in recipes.
void BM_Decode(benchmark::State& state) {
  const auto running = static_cast<int32_t>(state.range(0));
  Engine engine(running * PagesOf(2 * kShort), running);
  AddShort(&engine, running);
  engine.Fill(running);
  Measure(&engine, &state);
}
SWAA_STEP_BENCHMARK(BM_Decode)->Arg(1)->Arg(16)->Arg(kRunning);

// Besides 256 that decode, range(0) wait, whose first 128k tokens a running request holds (all of
// an experiment's arms share their system prompt) and whose own 512k have no room.
void BM_WaitingBehindAHeldPrefix(benchmark::State& state) {
  Engine engine(kRunning * PagesOf(kShort + 512) + PagesOf(kLong + 64), 2 * kRunning);
  auto waiting = MakeAll(&engine, state.range(0), {.prefix = kLong, .own = 4 * kLong});
  engine.Add({.prefix = kLong, .own = 64});
  AddShort(&engine, kRunning - 1);
  engine.Fill(kRunning);
  AddAll(&engine, std::move(waiting));
  Measure(&engine, &state);
  SWAA_CHECK_EQ(engine.Load().queued, state.range(0));
}
SWAA_STEP_BENCHMARK(BM_WaitingBehindAHeldPrefix)->Arg(1)->Arg(16);

// The same, but nobody holds the prefix, and what decodes takes its pages one after the other.
void BM_WaitingWhileThePrefixIsEvicted(benchmark::State& state) {
  Engine engine(kRunning * PagesOf(kShort + 192) + PagesOf(kLong + 64), 2 * kRunning);
  auto waiting = MakeAll(&engine, state.range(0), {.prefix = kLong, .own = 4 * kLong});
  engine.Add({.prefix = kLong, .own = 64, .output = 2});
  engine.Fill(0);
  AddShort(&engine, kRunning, /*full=*/true);
  engine.Fill(kRunning);
  AddAll(&engine, std::move(waiting));
  const int64_t cached = engine.Load().evictable_pages;
  Measure(&engine, &state);
  SWAA_CHECK_EQ(engine.Load().queued, state.range(0));
  state.counters["evicted_pages"] = static_cast<double>(cached - engine.Load().evictable_pages);
}
SWAA_STEP_BENCHMARK(BM_WaitingWhileThePrefixIsEvicted)->Arg(1)->Arg(16);

// Eight of 256 have 128k tokens, 16 wait, and fewer pages are left than a step might take.
void BM_ShortOfPages(benchmark::State& state) {
  Engine engine(8 * PagesOf(kLong) + (kRunning - 8) * PagesOf(kShort + 192), 2 * kRunning);
  auto waiting = MakeAll(&engine, 16, {.own = kLong});
  for (int i = 0; i < 8; ++i) engine.Add({.own = kLong - 1024});
  AddShort(&engine, kRunning - 8, /*full=*/true);
  engine.Fill(kRunning);
  AddAll(&engine, std::move(waiting));
  const EngineLoad load = engine.Load();
  state.counters["free_pages"] = static_cast<double>(load.total_pages - load.used_pages);
  Measure(&engine, &state);
  SWAA_CHECK_EQ(engine.Load().queued, 16);
}
SWAA_STEP_BENCHMARK(BM_ShortOfPages)->Iterations(100);

// One of 256 has a million tokens, and its sampling counts them all; 16 wait.
void BM_PenaltiesAtAMillion(benchmark::State& state) {
  Engine engine(PagesOf(1 << 20) + kRunning * PagesOf(2 * kShort), kRunning);
  auto waiting = MakeAll(&engine, 16, {.own = kShort});
  engine.Add({.own = kLongest, .output = 1000, .frequency_penalty = 1});
  AddShort(&engine, kRunning - 1);
  engine.Fill(kRunning);
  AddAll(&engine, std::move(waiting));
  Measure(&engine, &state);
}
SWAA_STEP_BENCHMARK(BM_PenaltiesAtAMillion);

// One of 257 had a million tokens and has ended; 16 as long wait that have no room beside the rest.
void BM_AfterAMillionEnded(benchmark::State& state) {
  Engine engine(PagesOf(1 << 20) + kRunning * PagesOf(kShort + 192), kRunning + 1);
  auto waiting = MakeAll(&engine, 16, {.own = kLongest + 1000, .output = 20});
  const std::string longest = engine.Add({.own = kLongest, .output = 1000});
  AddShort(&engine, kRunning, /*full=*/true);
  engine.Fill(kRunning + 1);
  AddAll(&engine, std::move(waiting));
  engine.Abort(longest);
  Measure(&engine, &state);
  SWAA_CHECK_EQ(engine.Load().queued, 16);
}
SWAA_STEP_BENCHMARK(BM_AfterAMillionEnded);

}  // namespace
}  // namespace swaa

BENCHMARK_MAIN();
