// Reports: the keys that others' tools read.

#include "tools/bench/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace swaa::tools::bench {
namespace {

using Json = nlohmann::ordered_json;

RequestRecord Completed(size_t arm, double ttft_s) {
  RequestRecord record;
  record.arm = arm;
  record.first_token_seconds = ttft_s;
  record.finished_seconds = ttft_s + 1;
  record.token_gaps_ms = {1000};
  record.prompt_tokens = 10;
  record.usage.set_prompt_tokens(10);
  record.usage.set_completion_tokens(2);
  record.stats.set_attended_keys(arm == 0 ? 100 : 25);
  record.stats.set_full_attention_attended_keys(100);
  return record;
}

class ReportTest : public testing::Test {
 protected:
  ReportTest()
      : options_{.arms = *ParseRecipeMix("full=1,window=2"),
                 .prompt_tokens = *LengthDistribution::Parse("10"),
                 .output_tokens = *LengthDistribution::Parse("2")} {
    result_.records = {Completed(0, 0.8), Completed(1, 0.2), Completed(1, 0.2)};
    result_.duration_seconds = 2;
    LoadSample sample{.seconds = 0.5};
    v1::RecipeLoad* load = sample.load.add_recipes();
    load->set_recipe_name("window");
    load->set_kv_cache_bytes(2'000'000);
    result_.samples.push_back(sample);
  }

  Json MakeJson() { return ReportJson(MakeReport(options_, result_), options_, result_); }

  BenchOptions options_;
  LoadResult result_;
};

TEST_F(ReportTest, HasTheKeysOfVllmsBenchmarkOverallAndPerRecipe) {
  const Json json = MakeJson();
  for (const char* key :
       {"date", "backend", "model_id", "num_prompts", "request_rate", "burstiness",
        "max_concurrency", "duration", "max_output_tokens_per_s", "max_concurrent_requests"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  std::vector<std::string> keys = {
      "completed",          "failed",          "total_input_tokens", "total_output_tokens",
      "request_throughput", "request_goodput", "output_throughput",  "total_token_throughput"};
  for (const char* metric : {"ttft_ms", "tpot_ms", "itl_ms", "e2el_ms"}) {
    for (const char* which : {"mean_", "median_", "std_", "p90_", "p99_"}) {
      keys.push_back(std::string(which) + metric);
    }
  }
  for (const std::string& key : keys) {
    EXPECT_TRUE(json.contains(key)) << key;
    EXPECT_TRUE(json["recipes"]["window"].contains(key)) << key;
  }
  EXPECT_EQ(json["completed"], 3);
  EXPECT_EQ(json["request_rate"], "inf");
  EXPECT_TRUE(json["request_goodput"].is_null());
  EXPECT_EQ(json["recipes"]["window"]["completed"], 2);
  EXPECT_NEAR(json["recipes"]["full"]["mean_ttft_ms"].get<double>(), 800, 1e-6);
  EXPECT_NEAR(json["load"][0]["recipes"]["window"]["kv_mb"].get<double>(), 2, 1e-9);
  EXPECT_FALSE(json.contains("requests"));
}

TEST_F(ReportTest, ComparesWithTheFullArm) {
  const Json arm = MakeJson()["recipes"]["window"];
  const Json& window = arm["speedup_over_full"];
  EXPECT_NEAR(window["ttft"].get<double>(), 4, 1e-6);
  EXPECT_NEAR(window["e2el"].get<double>(), 1.5, 1e-6);
  EXPECT_NEAR(arm["attended_keys_ratio"].get<double>(), 4, 1e-9);
  const std::string table = ReportTable(MakeReport(options_, result_));
  EXPECT_THAT(table, testing::HasSubstr("times faster in full's batch: TTFT"));
  EXPECT_THAT(table, testing::HasSubstr("times fewer keys attended"));
  EXPECT_THAT(table, testing::HasSubstr("4.00"));
  EXPECT_TRUE(window["output_throughput"].is_null()) << "they shared one batch";
}

TEST_F(ReportTest, GainsThroughputWhereRecipesTookTurns) {
  result_.arm_seconds = {1.6, 0.8};  // two tokens, and four
  const Json json = MakeJson();
  EXPECT_TRUE(json["in_turns"].get<bool>());
  EXPECT_NEAR(json["recipes"]["full"]["output_throughput"].get<double>(), 1.25, 1e-9);
  const Json window = json["recipes"]["window"];
  EXPECT_NEAR(window["output_throughput"].get<double>(), 5, 1e-9);
  EXPECT_NEAR(window["speedup_over_full"]["output_throughput"].get<double>(), 4, 1e-9);
  EXPECT_THAT(ReportTable(MakeReport(options_, result_)),
              testing::ContainsRegex("gain over full: output tokens/s +1.00 +4.00"));
}

TEST_F(ReportTest, ShowsSecondsOrMillisecondsAsFits) {
  EXPECT_THAT(ReportTable(MakeReport(options_, result_)),
              testing::AllOf(testing::ContainsRegex("TTFT ms median +200.0 +800.0 +200.0"),
                             testing::ContainsRegex("end to end s median +1.20 +1.80 +1.20")));
}

TEST_F(ReportTest, SaysNothingOfSpeedWithoutAFullArm) {
  options_.arms = *ParseRecipeMix("balanced,window");
  EXPECT_TRUE(MakeJson()["recipes"]["window"]["speedup_over_full"].is_null());
  EXPECT_THAT(ReportTable(MakeReport(options_, result_)),
              testing::Not(testing::HasSubstr("times")));
}

TEST_F(ReportTest, DistributionsOfNothingAreNullAndFailuresAreNamed) {
  RequestRecord failed;
  failed.error_code = "RESOURCE_EXHAUSTED";
  failed.error_reason = "queue_full";
  failed.error_message = "the queue holds 8 of 8";
  result_.records = {failed};
  const Json json = MakeJson();
  EXPECT_EQ(json["completed"], 0);
  EXPECT_TRUE(json["mean_ttft_ms"].is_null());
  EXPECT_EQ(json["failures"]["RESOURCE_EXHAUSTED/queue_full"], 1);
  EXPECT_THAT(ReportTable(MakeReport(options_, result_)),
              testing::HasSubstr("RESOURCE_EXHAUSTED/queue_full: the queue holds 8 of 8"));
}

TEST_F(ReportTest, DetailListsEveryRequest) {
  options_.detailed = true;
  const Json json = MakeJson();
  ASSERT_EQ(json["requests"].size(), 3u);
  EXPECT_EQ(json["requests"][0]["recipe"], "full");
  EXPECT_EQ(json["requests"][0]["itl_ms"], Json::array({1000}));
}

}  // namespace
}  // namespace swaa::tools::bench
