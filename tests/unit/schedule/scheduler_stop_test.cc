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

class StopTest : public ::testing::Test {
 protected:
  StopTest()
      : tokenizer_(testing::MakeByteTokenizer()),
        device_({.num_layers = kLayers,
                 .num_pages = 200,
                 .page_bytes = 1,
                 .num_slots = 4,
                 .max_pages_per_layer = 16,
                 .max_step_tokens = 64}) {
    request_.id = "stop";
    request_.prompt = {1, 2, 3};
    request_.recipe.layer_full = request_.recipe.decode_full = std::vector<bool>(kLayers);
    request_.stopping = {.max_tokens = 100, .ignore_eos = true};
    // Long enough for what follows and free of accidents: no end token in it.
    for (int32_t first = 0; first < 250; ++first) {
      request_.prompt[0] = first;
      answer_ = testing::ReferenceOutput(request_.prompt, {}, request_.recipe, 100, true);
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
    scheduler.Add(request_, sink_, *MaxOutputTokens(request_, options, device_.info()));
    while (!scheduler.idle()) {
      device_.Submit(*scheduler.NextStep(absl::Now()));
      scheduler.Commit(device_.Collect(), absl::Now());
    }
    EXPECT_EQ(scheduler.Load().used_pages, 0);
    EXPECT_TRUE(sink_->result.has_value());
    return *sink_;
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  FakeDevice device_;
  GenerationRequest request_;
  std::shared_ptr<RecordingSink> sink_ = std::make_shared<RecordingSink>();
  std::vector<int32_t> answer_;
};

TEST_F(StopTest, AtMaxTokens) {
  const RecordingSink& sink = Run();
  EXPECT_EQ(sink.output, answer_);
  EXPECT_EQ(sink.result->reason, FinishReason::kLength);
  EXPECT_EQ(sink.events.back().visible_bytes, 100u);
}

TEST_F(StopTest, AtAStopTokenWhichCountsButIsNotShown) {
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

TEST_F(StopTest, AtAnEndTokenOfTheRequestUnlessEndsAreIgnored) {
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

TEST_F(StopTest, IncludedStopTokenIsShown) {
  request_.stopping.stop_token_ids = {answer_[0]};
  request_.stopping.include_stop_in_output = true;
  const RecordingSink& sink = Run();
  EXPECT_TRUE(sink.events.back().shown);
  EXPECT_EQ(sink.events.back().visible_bytes, 1u);
}

TEST_F(StopTest, MinTokensForbidsStopTokensUntilThen) {
  request_.stopping.stop_token_ids = {answer_[20]};
  request_.stopping.min_tokens = 5;
  const RecordingSink& sink = Run();
  // The hashing device draws whatever it likes; what is asked of it is what counts.
  EXPECT_GE(sink.output.size(), 1u);
  FakeDevice probe(device_.info());
  const SchedulerOptions options{
      .max_batch_tokens = 64, .max_running_requests = 4, .max_context_tokens = 1024};
  Scheduler scheduler(options, probe.info(), tokenizer_.get());
  auto other = std::make_shared<RecordingSink>();
  request_.stopping.ignore_eos = false;
  scheduler.Add(request_, other, 100);
  for (int drawn = 0; drawn < 7 && !scheduler.idle(); ++drawn) {
    std::optional<Step> step = scheduler.NextStep(absl::Now());
    ASSERT_EQ(step->logits.size(), 1u);
    const std::vector<int32_t> forbidden = step->logits[0].forbidden;
    if (drawn < 5) {
      EXPECT_THAT(forbidden, ::testing::UnorderedElementsAre(answer_[20], testing::kFakeEos));
    } else {
      EXPECT_THAT(forbidden, ::testing::IsEmpty());
    }
    probe.Submit(*std::move(step));
    scheduler.Commit(probe.Collect(), absl::Now());
  }
}

TEST_F(StopTest, AtAStopStringAcrossTokensShowingNoneOfIt) {
  request_.stopping.stop_strings = {"never in it", Bytes(30, 4)};
  const RecordingSink& sink = Run();
  ASSERT_EQ(sink.output.size(), 34u);
  EXPECT_EQ(sink.result->stop.kind, StopCause::Kind::kStopString);
  EXPECT_EQ(sink.result->stop.stop_string, Bytes(30, 4));
  for (size_t i = 30; i < 34; ++i) EXPECT_EQ(sink.events[i].visible_bytes, 30u) << i;
  EXPECT_EQ(sink.events[29].visible_bytes, 30u);
}

TEST_F(StopTest, IncludedStopStringIsShown) {
  request_.stopping.stop_strings = {Bytes(30, 4)};
  request_.stopping.include_stop_in_output = true;
  EXPECT_EQ(Run().events.back().visible_bytes, 34u);
}

TEST_F(StopTest, AHalfStopStringIsShownAtTheEnd) {
  std::string never = Bytes(98, 2) + std::string(1, '\1');
  request_.stopping.stop_strings = {never};
  const RecordingSink& sink = Run();
  EXPECT_EQ(sink.result->reason, FinishReason::kLength);
  EXPECT_EQ(sink.events[98].visible_bytes, 98u);
  EXPECT_EQ(sink.events[99].visible_bytes, 100u);
}

TEST_F(StopTest, ForcedTokensAreNotCutButMayBeginAStopString) {
  request_.forced_output.assign(answer_.begin(), answer_.begin() + 32);
  request_.stopping.stop_strings = {Bytes(10, 3), Bytes(30, 4)};
  const RecordingSink& sink = Run();
  EXPECT_EQ(sink.output.size(), 34u);
  EXPECT_EQ(sink.result->stop.stop_string, Bytes(30, 4));
  EXPECT_EQ(sink.events.back().visible_bytes, 30u);
}

}  // namespace
}  // namespace swaa
