// Summaries of records: each figure by its definition.

#include "tools/bench/summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace swaa::tools::bench {
namespace {

// A completed request; its tokens come at even intervals.
RequestRecord Completed(size_t arm, double sent, double ttft_s, double gap_s, uint32_t tokens) {
  RequestRecord record;
  record.arm = arm;
  record.scheduled_seconds = sent;
  record.sent_seconds = sent;
  record.first_token_seconds = sent + ttft_s;
  record.last_token_seconds = sent + ttft_s + gap_s * (tokens - 1);
  record.finished_seconds = record.last_token_seconds;
  record.token_gaps_ms.assign(tokens - 1, static_cast<float>(gap_s * 1e3));
  record.usage.set_prompt_tokens(100);
  record.usage.set_completion_tokens(tokens);
  record.stats.set_attended_keys(200);
  record.stats.set_full_attention_attended_keys(800);
  record.stats.set_peak_kv_cache_bytes(3'000'000);
  record.stats.set_queue_time_us(2500);
  return record;
}

RequestRecord Failed(size_t arm, const std::string& code, const std::string& reason) {
  RequestRecord record;
  record.arm = arm;
  record.error_code = code;
  record.error_reason = reason;
  record.error_message = "because " + reason;
  return record;
}

TEST(SummaryTest, FiguresFollowTheirDefinitions) {
  std::vector<RequestRecord> records = {Completed(0, 0, 0.1, 0.02, 11),
                                        Completed(0, 1, 0.3, 0.04, 11), Completed(1, 2, 0.5, 0, 1),
                                        Failed(1, "UNAVAILABLE", "draining")};
  const Summary all = Summarize(records, std::nullopt, 4, {});
  EXPECT_EQ(all.sent, 4);
  EXPECT_EQ(all.completed, 3);
  EXPECT_EQ(all.total_input_tokens, 300);
  EXPECT_EQ(all.total_output_tokens, 23);
  EXPECT_DOUBLE_EQ(all.request_throughput, 0.75);
  EXPECT_DOUBLE_EQ(all.output_throughput, 5.75);
  EXPECT_DOUBLE_EQ(all.total_token_throughput, 323 / 4.0);
  EXPECT_FALSE(all.request_goodput.has_value());
  EXPECT_NEAR(all.ttft_ms.mean, 300, 1e-6);
  EXPECT_EQ(all.tpot_ms.count, 2u) << "one token has no time per token after the first";
  EXPECT_NEAR(all.tpot_ms.mean, 30, 1e-6);
  EXPECT_EQ(all.itl_ms.count, 20u);
  EXPECT_NEAR(all.e2el_ms.median, 500, 1e-6);
  EXPECT_NEAR(all.peak_kv_mb.mean, 3, 1e-9);
  EXPECT_NEAR(all.queue_ms.mean, 2.5, 1e-9);
  EXPECT_THAT(all.failures, testing::ElementsAre(testing::Pair("UNAVAILABLE/draining", 1)));
  EXPECT_EQ(all.failure_examples.at("UNAVAILABLE/draining"), "because draining");

  const Summary second = Summarize(records, 1, 4, {});
  EXPECT_EQ(second.sent, 2);
  EXPECT_EQ(second.completed, 1);
  EXPECT_NEAR(second.ttft_ms.mean, 500, 1e-6);
}

// A deadline may be seen by the client alone, or by the server, which gives its reason.
TEST(SummaryTest, AFailureHasOneNameWhoeverSawItFirst) {
  const std::vector<RequestRecord> records = {Failed(0, "DEADLINE_EXCEEDED", ""),
                                              Failed(0, "DEADLINE_EXCEEDED", "deadline_exceeded"),
                                              Failed(0, "UNAVAILABLE", "draining")};
  EXPECT_THAT(Summarize(records, std::nullopt, 1, {}).failures,
              testing::ElementsAre(testing::Pair("DEADLINE_EXCEEDED", 2),
                                   testing::Pair("UNAVAILABLE/draining", 1)));
}

TEST(SummaryTest, GoodputCountsWhatMeetsEveryObjective) {
  std::vector<RequestRecord> records = {
      Completed(0, 0, 0.1, 0.02, 11), Completed(0, 0, 0.3, 0.02, 11),
      Completed(0, 0, 0.1, 0.08, 11), Completed(0, 0, 0.1, 0, 1), Failed(0, "UNAVAILABLE", "")};
  const auto good = [&](const std::string& text) {
    const auto targets = ParseGoodput(text);
    EXPECT_TRUE(targets.ok()) << targets.status();
    return *Summarize(records, std::nullopt, 1, *targets).request_goodput;
  };
  EXPECT_EQ(good("ttft:200"), 3);
  EXPECT_EQ(good("tpot:50"), 3);
  EXPECT_EQ(good("ttft:200,tpot:50"), 2);
  EXPECT_EQ(good("e2el:400,ttft:200,tpot:50"), 2);
  EXPECT_EQ(good("e2el:50"), 0);
}

TEST(SummaryTest, RefusesWhatIsNoObjective) {
  for (const char* text :
       {"ttft", "ttft:", "ttft:0", "ttft:-1", "ttft:x", "itl:5", "ttft:5,ttft:6", "ttft:5,,"}) {
    EXPECT_EQ(ParseGoodput(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_FALSE(ParseGoodput("")->any());
}

TEST(SummaryTest, SpeedupIsARatioOfMediansAndOfCountedKeys) {
  const std::vector<RequestRecord> records = {Completed(0, 0, 0.4, 0.06, 11),
                                              Completed(1, 0, 0.1, 0.02, 11),
                                              Completed(1, 0, 0.1, 0.02, 11)};
  const Speedup speedup = CompareToFull(Summarize(records, 1, 1, {}), Summarize(records, 0, 1, {}));
  EXPECT_NEAR(*speedup.ttft, 4, 1e-6);
  EXPECT_NEAR(*speedup.tpot, 3, 1e-6);
  EXPECT_NEAR(*speedup.e2el, 1.0 / 0.3, 1e-6);
  EXPECT_DOUBLE_EQ(*speedup.counted, 4);
  const Speedup none = CompareToFull(Summarize({}, 1, 1, {}), Summarize(records, 0, 1, {}));
  EXPECT_FALSE(none.ttft || none.tpot || none.e2el || none.counted);
}

TEST(SummaryTest, PeaksOverlapHalfOpenIntervals) {
  // The second starts when the first ends; the third overlaps both.
  const std::vector<RequestRecord> records = {
      Completed(0, 0, 1.0, 0, 1), Completed(0, 1, 1.5, 0, 1), Completed(0, 0.5, 1.0, 0.1, 4),
      Failed(0, "INTERNAL", "")};
  const Peaks peaks = FindPeaks(records);
  EXPECT_EQ(peaks.concurrent_requests, 2);
  EXPECT_DOUBLE_EQ(peaks.output_tokens_per_second, 5) << "1 at 1.0 and 4 from 1.5 on";
}

}  // namespace
}  // namespace swaa::tools::bench
