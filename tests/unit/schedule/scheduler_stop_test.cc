// How generations end: tokens, strings, lengths, and what of the output may be shown.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/schedule/scheduler.h"
#include "tests/unit/testing/fake_device.h"
#include "tests/unit/testing/recording_sink.h"

namespace swaa {
namespace {

using testing::FakeDevice;
using testing::RecordingSink;

constexpr int32_t kLayers = 2;

// By steps in flight.
class StopTest : public ::testing::TestWithParam<int> {
 protected:
  StopTest()
      : tokenizer_(testing::MakeByteTokenizer()),
        device_({.num_layers = kLayers,
                 .num_pages = 200,
                 .page_bytes = 1,
                 .num_slots = 4,
                 .max_pages_per_layer = 16,
                 .max_step_tokens = 64,
                 .max_steps_in_flight = GetParam()}) {
    request_.id = "stop";
    request_.recipe.layer_full = request_.recipe.decode_full = std::vector<bool>(kLayers);
    request_.stopping = {.max_tokens = 100, .ignore_eos = true};
    // Long enough for what follows and free of accidents: no end token in it.
    for (int32_t first = 0; first < 250; ++first) {
      request_.prompt = testing::Shared({first, 2, 3});
      answer_ = testing::ReferenceOutput(*request_.prompt, {}, request_.recipe, 100, true);
      if (std::find(answer_.begin(), answer_.end(), testing::kFakeEos) == answer_.end()) return;
    }
  }

  std::string Bytes(size_t first, size_t count) const {
    std::string bytes;
    for (size_t i = first; i < first + count; ++i) bytes += static_cast<char>(answer_[i]);
    return bytes;
  }

  const RecordingSink& Run() {
    const SchedulerOptions options{
        .max_batch_tokens = 64, .max_running_requests = 4, .max_context_tokens = 1024};
    Scheduler scheduler(options, device_.info(), tokenizer_.get());
    scheduler.Add(request_, sink_, *MaxOutputTokens(request_, options, device_.info()),
                  SteadyClock::now());
    while (!scheduler.idle() || scheduler.steps_in_flight() > 0) Step(&scheduler);
    EXPECT_EQ(scheduler.Load().used_pages, 0);
    EXPECT_TRUE(sink_->result.has_value());
    return *sink_;
  }

  void Step(Scheduler* scheduler) {
    while (scheduler->steps_in_flight() < GetParam()) {
      std::optional<swaa::Step> step = scheduler->NextStep(SteadyClock::now());
      if (!step.has_value()) break;
      device_.Submit(*std::move(step));
    }
    scheduler->Commit(device_.Collect(), SteadyClock::now());
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  FakeDevice device_;
  GenerationRequest request_;
  std::shared_ptr<RecordingSink> sink_ = std::make_shared<RecordingSink>();
  std::vector<int32_t> answer_;
};

INSTANTIATE_TEST_SUITE_P(Depths, StopTest, ::testing::Values(1, 2));

TEST_P(StopTest, AtMaxTokens) {
  const RecordingSink& sink = Run();
  EXPECT_EQ(sink.output, answer_);
  EXPECT_EQ(sink.result->reason, FinishReason::kLength);
  EXPECT_EQ(sink.events.back().visible_bytes, 100u);
}

TEST_P(StopTest, AtAStopTokenWhichCountsButIsNotShown) {
  request_.stopping.stop_token_ids = {answer_[20]};
  const RecordingSink& sink = Run();
  const size_t at = std::find(answer_.begin(), answer_.end(), answer_[20]) - answer_.begin();
  ASSERT_EQ(sink.output.size(), at + 1);
  EXPECT_EQ(sink.result->reason, FinishReason::kStop);
  EXPECT_EQ(sink.result->stop.kind, StopCause::Kind::kStopToken);
  EXPECT_EQ(sink.result->stop.token, answer_[20]);
  EXPECT_FALSE(sink.events.back().shown);
  EXPECT_EQ(sink.events.back().visible_bytes, at);
  EXPECT_EQ(sink.result->stats.completion_tokens, static_cast<int32_t>(at + 1));
}

TEST_P(StopTest, AtAnEndTokenOfTheRequestUnlessEndsAreIgnored) {
  request_.stopping.end_token_ids = {answer_[20]};
  EXPECT_EQ(Run().output, answer_);
  sink_ = std::make_shared<RecordingSink>();
  request_.stopping.ignore_eos = false;
  const RecordingSink& sink = Run();
  EXPECT_EQ(sink.result->reason, FinishReason::kStop);
  EXPECT_EQ(sink.result->stop.kind, StopCause::Kind::kEosToken);
  EXPECT_EQ(sink.result->stop.token, answer_[20]);
  EXPECT_EQ(sink.output.back(), answer_[20]);
}

TEST_P(StopTest, IncludedStopTokenIsShown) {
  request_.stopping.stop_token_ids = {answer_[0]};
  request_.stopping.include_stop_in_output = true;
  const RecordingSink& sink = Run();
  EXPECT_TRUE(sink.events.back().shown);
  EXPECT_EQ(sink.events.back().visible_bytes, 1u);
}

TEST_P(StopTest, MinTokensForbidsStopTokensUntilThen) {
  // The answer would end with its 21st token, and the end token comes next to it: neither may be
  // drawn before 40 are out, and the first of them after that ends it.
  const testing::ReferenceDraws draws{.min_tokens = 40,
                                      .forbidden = {answer_[20], testing::kFakeEos}};
  request_.stopping = {.max_tokens = 100, .min_tokens = 40, .stop_token_ids = {answer_[20]}};
  std::vector<int32_t> expected =
      testing::ReferenceOutput(*request_.prompt, {}, request_.recipe, 100, false, draws);
  const auto stop = std::find(expected.begin() + 40, expected.end(), answer_[20]);
  if (stop != expected.end()) expected.erase(stop + 1, expected.end());
  ASSERT_LT(std::find(answer_.begin(), answer_.end(), answer_[20]) - answer_.begin(), 40);
  EXPECT_EQ(Run().output, expected);
  ASSERT_GE(expected.size(), 40u);
}

TEST_P(StopTest, AtAStopStringAcrossTokensShowingNoneOfIt) {
  request_.stopping.stop_strings = {"never in it", Bytes(30, 4)};
  const RecordingSink& sink = Run();
  ASSERT_EQ(sink.output.size(), 34u);
  EXPECT_EQ(sink.result->stop.kind, StopCause::Kind::kStopString);
  EXPECT_EQ(sink.result->stop.stop_string, Bytes(30, 4));
  for (size_t i = 30; i < 34; ++i) EXPECT_EQ(sink.events[i].visible_bytes, 30u) << i;
  EXPECT_EQ(sink.events[29].visible_bytes, 30u);
}

TEST_P(StopTest, IncludedStopStringIsShown) {
  request_.stopping.stop_strings = {Bytes(30, 4)};
  request_.stopping.include_stop_in_output = true;
  EXPECT_EQ(Run().events.back().visible_bytes, 34u);
}

TEST_P(StopTest, AHalfStopStringIsShownAtTheEnd) {
  std::string never = Bytes(98, 2) + std::string(1, '\1');
  request_.stopping.stop_strings = {never};
  const RecordingSink& sink = Run();
  EXPECT_EQ(sink.result->reason, FinishReason::kLength);
  EXPECT_EQ(sink.events[98].visible_bytes, 98u);
  EXPECT_EQ(sink.events[99].visible_bytes, 100u);
}

TEST_P(StopTest, ForcedTokensAreNotCutButMayBeginAStopString) {
  request_.forced_output.assign(answer_.begin(), answer_.begin() + 32);
  request_.stopping.stop_strings = {Bytes(10, 3), Bytes(30, 4)};
  const RecordingSink& sink = Run();
  EXPECT_EQ(sink.output.size(), 34u);
  EXPECT_EQ(sink.result->stop.stop_string, Bytes(30, 4));
  EXPECT_EQ(sink.events.back().visible_bytes, 30u);
}

}  // namespace
}  // namespace swaa
