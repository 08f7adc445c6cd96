// Memory that runs out on the engine's thread costs a request at most; where a step gets lost by
// it, all of them and the engine, but never the process, and nobody is left without an end. This
// program's own allocation functions refuse one allocation of that thread: in turn the first, the
// second and so on, until a whole life of requests needs no more.

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "tests/unit/testing/fake_device.h"
#include "tests/unit/testing/refusing_new.h"

namespace {

thread_local bool is_test_thread = false;  // what is not is the engine's
thread_local int exempt = 0;               // within what is not the engine's on its thread
std::atomic<int64_t> allocations = 0;      // of the engine's thread
std::atomic<int64_t> refused_from = 0;     // the first that is refused; 0: none
std::atomic<int64_t> refused_to = 0;       // behind the last
std::atomic<int64_t> refusals = 0;

}  // namespace

bool swaa::testing::RefusesAllocation() {
  if (is_test_thread || exempt > 0) return false;
  const int64_t number = ++allocations;
  if (number < refused_from || number >= refused_to) return false;
  ++refusals;
  return true;
}

namespace swaa {
namespace {

constexpr int32_t kLayers = 2;
constexpr absl::Duration kLong = absl::Seconds(120);

class Exempt {
 public:
  Exempt() { ++exempt; }
  ~Exempt() { --exempt; }
};

// The device has memory, but for the step that is to be lost: what it needs is not the engine's.
class ExemptDevice final : public Device {
 public:
  ExemptDevice(const DeviceInfo& info, uint64_t lost_step) : device_(info), lost_(lost_step) {}
  const DeviceInfo& info() const override { return device_.info(); }
  void Submit(Step step) override {
    const Exempt scope;
    if (step.id == lost_) throw std::bad_alloc();
    device_.Submit(std::move(step));
  }
  StepResult Collect() override {
    const Exempt scope;
    return device_.Collect();
  }
  kernels::MemoryUse Memory(int32_t rank) const override { return device_.Memory(rank); }
  kernels::DeviceFacts Facts(int32_t rank) const override { return device_.Facts(rank); }

 private:
  testing::FakeDevice device_;
  const uint64_t lost_;
};

class Sink final : public GenerationSink {
 public:
  void OnAccepted() override {}
  void OnPromptLogprobs(int32_t, std::vector<ScoredToken> tokens) override {
    scored += tokens.size();
  }
  void OnTokens(std::vector<OutputToken> tokens) override {
    const Exempt scope;
    for (const OutputToken& token : tokens) output.push_back(token.scored.token);
  }
  void OnFinished(const GenerationResult& result) override {
    finished = result.reason;
    ++ends;
  }
  void OnFailed(const absl::Status& failed, const GenerationStats&) override {
    status = failed;
    ++ends;
  }

  size_t scored = 0;
  std::vector<int32_t> output;
  std::optional<FinishReason> finished;
  absl::Status status;
  std::atomic<int> ends{0};
};

struct Asked {
  GenerationRequest request;
  std::vector<int32_t> expected;
  std::shared_ptr<Sink> sink = std::make_shared<Sink>();
};

Asked Ask(const std::string& name, int32_t first, int32_t prompt_tokens, uint32_t max_tokens) {
  Asked asked;
  GenerationRequest& request = asked.request;
  request.id = name + ", an id that is too long to be stored in a string itself";
  std::vector<int32_t> prompt(prompt_tokens);
  for (int32_t i = 0; i < prompt_tokens; ++i) prompt[i] = (first + i * i) % 256;
  request.prompt = testing::Shared(prompt);
  request.recipe.layer_full = request.recipe.decode_full = std::vector<bool>(kLayers);
  request.recipe_label = "a label of more than fifteen bytes, of " + name;
  request.stopping = {.max_tokens = max_tokens, .ignore_eos = true};
  return asked;
}

// Everything that a request may need memory for: a window, sinks, forced output, penalties, scores,
// a stop string, and a prefix that the cache has.
std::vector<Asked> Company() {
  std::vector<Asked> all;
  all.push_back(Ask("window", 3, 150, 12));
  all.back().request.recipe.window = 70;
  all.back().request.recipe.sinks = 5;
  all.push_back(Ask("scores", 5, 90, 6));
  all.back().request.prompt_logprobs = all.back().request.output_logprobs = 1;
  all.push_back(Ask("forced", 7, 60, 9));
  all.back().request.forced_output = {1, 2, 3};
  all.back().request.sampling.repetition_penalty = 1.5F;
  all.push_back(Ask("stops", 9, 20, 8));
  all.back().request.stopping.stop_strings = {std::string(40, 'x')};
  all.push_back(Ask("cached", 3, 150, 4));
  for (Asked& asked : all) {
    const GenerationRequest& request = asked.request;
    asked.expected = testing::ReferenceOutput(*request.prompt, request.forced_output,
                                              request.recipe, *request.stopping.max_tokens, true,
                                              {.history = request.sampling.needs_history()});
  }
  return all;
}

// By steps in flight.
class EngineMemoryTest : public ::testing::TestWithParam<int> {
 protected:
  static void SetUpTestSuite() { is_test_thread = true; }
  void SetUp() override { is_test_thread = true; }
  void TearDown() override { refused_from = refused_to = 0; }

  // What came of a life in which allocations were refused, or a step was lost.
  struct Outcome {
    int failed = 0;     // requests
    bool lost = false;  // the engine
  };

  Outcome Live(int64_t first, int64_t last, uint64_t lost_step = 0) {
    SCOPED_TRACE(::testing::Message()
                 << "allocations " << first << " to " << last << ", lost step " << lost_step);
    const std::unique_ptr<Tokenizer> tokenizer = testing::MakeByteTokenizer();
    // Too few pages for all at once.
    ExemptDevice device({.num_layers = kLayers,
                         .num_pages = 15,
                         .page_bytes = 1,
                         .num_slots = 3,
                         .max_pages_per_layer = 8,
                         .max_step_tokens = 64,
                         .max_steps_in_flight = GetParam()},
                        lost_step);
    std::atomic<int> losses = 0;
    allocations = refusals = 0;
    refused_from = first;
    refused_to = last;
    std::unique_ptr<Engine> engine = Engine::Create(
        {.max_batch_tokens = 64,
         .max_running_requests = 3,
         .max_queued_requests = 100,
         .max_context_tokens = 400},
        &device, tokenizer.get(), {.on_device_lost = [&](const absl::Status& status) {
          EXPECT_TRUE(IsDeviceLost(status) && IsOutOfMemory(status));
          ++losses;
        }});
    std::vector<Asked> company = Company();
    for (const Asked& asked : company) Submit(engine.get(), asked);
    Asked left = Ask("left", 11, 30, 300);
    Submit(engine.get(), left);
    engine->Cancel(left.request.id, left.sink.get());
    EXPECT_TRUE(engine->AwaitIdle(kLong)) << "somebody is left without an end";
    refused_from = refused_to = 0;
    Outcome outcome{.lost = IsLost(engine.get())};
    for (const Asked& asked : company) outcome.failed += Check(asked, outcome.lost);
    EXPECT_EQ(left.sink->ends, 1);
    CheckAfterwards(engine.get(), outcome.lost);
    engine.reset();
    EXPECT_EQ(losses, outcome.lost ? 1 : 0);
    return outcome;
  }

  static bool IsLost(Engine* engine) {
    const Asked probe = Ask("probe", 13, 1, 1);
    Submit(engine, probe);
    EXPECT_TRUE(engine->AwaitIdle(kLong));
    return IsDeviceLost(probe.sink->status);
  }

  static void Submit(Engine* engine, const Asked& asked) {
    const absl::Status status = engine->Submit(asked.request, asked.sink);
    if (status.ok()) return;
    EXPECT_TRUE(IsDeviceLost(status)) << status;
    asked.sink->OnFailed(status, {});
  }

  // Whether it failed.
  static bool Check(const Asked& asked, bool lost) {
    const Sink& sink = *asked.sink;
    EXPECT_EQ(sink.ends, 1) << asked.request.id;
    EXPECT_LE(sink.output.size(), asked.expected.size());
    EXPECT_TRUE(std::equal(sink.output.begin(), sink.output.end(), asked.expected.begin()))
        << asked.request.id;
    if (sink.finished.has_value()) {
      EXPECT_EQ(sink.output.size(), asked.expected.size()) << asked.request.id;
      EXPECT_EQ(sink.scored,
                asked.request.prompt_logprobs ? asked.request.prompt->size() : size_t{0});
      return false;
    }
    EXPECT_TRUE(IsOutOfMemory(sink.status)) << sink.status;
    const absl::StatusCode code = sink.status.code();
    if (!lost) {
      EXPECT_EQ(code, absl::StatusCode::kResourceExhausted);
    } else {
      EXPECT_TRUE(code == absl::StatusCode::kInternal || code == absl::StatusCode::kUnavailable ||
                  code == absl::StatusCode::kResourceExhausted)
          << sink.status;
    }
    return true;
  }

  // Nothing is left behind, and who comes then is served, or told to go elsewhere.
  static void CheckAfterwards(Engine* engine, bool lost) {
    const EngineLoad load = engine->Load();
    EXPECT_EQ(load.used_pages, 0);
    EXPECT_EQ(load.running + load.queued, 0);
    EXPECT_TRUE(load.recipes.empty());
    std::vector<Asked> again = Company();
    for (const Asked& asked : again) {
      const absl::Status status = engine->Submit(asked.request, asked.sink);
      EXPECT_EQ(status.code(), lost ? absl::StatusCode::kUnavailable : absl::StatusCode::kOk);
    }
    ASSERT_TRUE(engine->AwaitIdle(kLong));
    if (lost) return;
    for (const Asked& asked : again) EXPECT_FALSE(Check(asked, false)) << asked.sink->status;
  }
};

INSTANTIATE_TEST_SUITE_P(Depths, EngineMemoryTest, ::testing::Values(1, 2));

TEST_P(EngineMemoryTest, OneAllocationCostsOneRequestAtMost) {
  int lives_by_failed[2] = {};
  for (int64_t n = 1; !HasFailure(); ++n) {
    const Outcome outcome = Live(n, n + 1);
    if (refusals == 0) break;  // a whole life needs fewer
    ASSERT_FALSE(outcome.lost) << "allocation " << n;
    ASSERT_LE(outcome.failed, 1) << "allocation " << n;
    ++lives_by_failed[outcome.failed];
  }
  RecordProperty("none failed", lives_by_failed[0]);
  RecordProperty("one failed", lives_by_failed[1]);
  EXPECT_GT(lives_by_failed[0], 20);
  EXPECT_GT(lives_by_failed[1], 20);
}

TEST_P(EngineMemoryTest, ALostStepEndsTheEngineAndNobodyIsLeftWithoutAnEnd) {
  for (uint64_t step = 1; step <= 12; ++step) EXPECT_TRUE(Live(0, 0, step).lost) << step;
}

// Not one allocation but hundreds in a row: nothing hangs, and nobody is told twice.
TEST_P(EngineMemoryTest, NobodyIsLeftWithoutAnEndWhileThereIsNoMemory) {
  for (int64_t n = 1; !HasFailure(); n += 7) {
    Live(n, n + 300);
    if (refusals == 0) break;
  }
}

}  // namespace
}  // namespace swaa
