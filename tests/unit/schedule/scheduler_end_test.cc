// Every way to end early, in every state: one step later the request is gone and holds nothing, it
// was told once what became of it, and the others do not notice.

#include <gtest/gtest.h>

#include "engine/schedule/scheduler.h"
#include "tests/unit/schedule/scheduler_bench.h"

namespace swaa {
namespace {

enum class State { kQueued, kPrefilling, kDecoding, kPreempted };
enum class End { kCancel, kAbort, kDeadline };

class SchedulerEnd : public ::testing::TestWithParam<std::tuple<State, End, int>> {
 protected:
  State state() const { return std::get<0>(GetParam()); }
  End end() const { return std::get<1>(GetParam()); }
  int depth() const { return std::get<2>(GetParam()); }

  // An older request beside the victim; two of them outgrow the pool while they decode.
  static Case Make(const std::string& id) {
    std::mt19937 random(id == "victim" ? 1 : 2);
    Case c;
    c.request.id = c.request.recipe_label = id;
    c.request.prompt = testing::Shared(RandomTokens(&random, 128));
    c.request.recipe = FullAttention();
    c.request.stopping = {.max_tokens = 200, .ignore_eos = true};
    c.expected = testing::ReferenceOutput(*c.request.prompt, {}, c.request.recipe, 200, true);
    return c;
  }

  RecipeLoad VictimsLoad() const {
    const EngineLoad load = bench_.scheduler.Load();
    const auto found = load.recipes.find("victim");
    return found == load.recipes.end() ? RecipeLoad() : found->second;
  }

  bool Reached() const {
    const RecipeLoad load = VictimsLoad();
    switch (state()) {
      case State::kQueued:
        return load.queued == 1;
      case State::kPrefilling:
        return load.running == 1 && load.kv_bytes > 0 && victim_.sink->output.empty();
      case State::kDecoding:
        return victim_.sink->output.size() > 2;
      default:
        return load.queued == 1 && bench_.scheduler.Load().preemptions == 1;
    }
  }

  void EndVictim() {
    switch (end()) {
      case End::kCancel:
        return bench_.scheduler.Cancel("victim", victim_.sink.get(), absl::CancelledError("gone"));
      case End::kAbort:
        return bench_.scheduler.Abort("victim");
      case End::kDeadline:
        return bench_.scheduler.ExpireDeadlines(deadline_ + std::chrono::seconds(1));
    }
  }

  void ExpectToldOnce() const {
    const testing::RecordingSink& sink = *victim_.sink;
    ASSERT_TRUE(sink.ended);
    ASSERT_TRUE(std::equal(sink.output.begin(), sink.output.end(), victim_.expected.begin()));
    if (end() == End::kAbort && sink.accepted) {
      ASSERT_TRUE(sink.result.has_value());
      EXPECT_EQ(sink.result->reason, FinishReason::kCancelled);
      EXPECT_EQ(sink.result->stats.completion_tokens, static_cast<int32_t>(sink.output.size()));
      return;
    }
    EXPECT_FALSE(sink.result.has_value());
    EXPECT_EQ(sink.status.code(), end() == End::kDeadline ? absl::StatusCode::kDeadlineExceeded
                                                          : absl::StatusCode::kCancelled);
  }

  const SteadyTime deadline_ = SteadyClock::now() + std::chrono::hours(1);
  Bench bench_{Info(7 * kLayers, depth()),
               {.max_batch_tokens = 70, .max_running_requests = 2, .max_context_tokens = kContext}};
  Case other_ = Make("other");
  Case victim_ = Make("victim");
};

TEST_P(SchedulerEnd, FreesEverythingWithinAStep) {
  victim_.request.deadline = deadline_;
  ASSERT_TRUE(bench_.Add(other_).ok());
  ASSERT_TRUE(bench_.Add(victim_).ok());
  for (int i = 0; i < 1000 && !Reached(); ++i) bench_.Step();
  ASSERT_TRUE(Reached());
  EndVictim();
  EXPECT_TRUE(victim_.sink->ended) << "told at once, whatever is in flight";
  bench_.Step();
  const RecipeLoad load = VictimsLoad();
  EXPECT_EQ(load.running + load.queued, 0);
  EXPECT_EQ(load.kv_bytes, 0);
  EXPECT_EQ(bench_.scheduler.TakeEnded(), 1);
  ExpectToldOnce();
  bench_.RunToEnd();
  EXPECT_EQ(other_.sink->output, other_.expected);
}

INSTANTIATE_TEST_SUITE_P(Matrix, SchedulerEnd,
                         ::testing::Combine(::testing::Values(State::kQueued, State::kPrefilling,
                                                              State::kDecoding, State::kPreempted),
                                            ::testing::Values(End::kCancel, End::kAbort,
                                                              End::kDeadline),
                                            ::testing::Values(1, 2)));

}  // namespace
}  // namespace swaa
