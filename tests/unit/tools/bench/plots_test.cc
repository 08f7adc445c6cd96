// Plots: every completed request and every sample is in them, under its recipe's name.

#include "tools/bench/plots.h"

#include <gtest/gtest.h>

namespace swaa::tools::bench {
namespace {

BenchOptions Options() {
  BenchOptions options{.prompt_tokens = *LengthDistribution::Parse("10"),
                       .output_tokens = *LengthDistribution::Parse("10")};
  options.arms = {{.label = "full"}, {.label = "w512", .in_full = true}};
  return options;
}

TEST(LatencyPlot, HasEveryCompletedRequest) {
  LoadResult result;
  result.records.resize(3);
  result.records[0] = {.arm = 1,
                       .sent_seconds = 1,
                       .first_token_seconds = 1.5,
                       .last_token_seconds = 3,
                       .finished_seconds = 3};
  result.records[1] = {.arm = 0, .sent_seconds = 2, .error_code = "UNAVAILABLE"};
  result.records[2] = {.arm = 0,
                       .sent_seconds = 4,
                       .first_token_seconds = 4.25,
                       .last_token_seconds = 5,
                       .finished_seconds = 5};
  const nlohmann::json plot = LatencyPlot(result, Options(), "A \"model\" <of> ours");
  const nlohmann::json rows = plot["data"]["values"];
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["recipe"], "w512");
  EXPECT_DOUBLE_EQ(rows[0]["ttft"], 0.5);
  EXPECT_DOUBLE_EQ(rows[0]["e2el"], 2);
  EXPECT_EQ(rows[1]["recipe"], "full");
  ASSERT_EQ(plot["vconcat"].size(), 2u);
  for (const nlohmann::json& view : plot["vconcat"]) {
    for (const nlohmann::json& layer : view["layer"]) {
      EXPECT_TRUE(rows[0].contains(layer["encoding"]["y"]["field"].get<std::string>()));
      EXPECT_EQ(layer["encoding"]["color"]["scale"]["domain"], nlohmann::json({"full", "w512"}));
    }
  }
  EXPECT_EQ(nlohmann::json::parse(plot.dump()), plot);
}

TEST(KvMemoryPlot, HasEveryRecipeInEverySample) {
  LoadResult result;
  result.samples.resize(2);
  result.samples[0].seconds = 0.5;
  v1::RecipeLoad& held = *result.samples[0].load.add_recipes();
  held.set_recipe_name("custom");
  held.set_kv_cache_bytes(3'000'000);
  held.set_full_attention_kv_cache_bytes(8'000'000);
  held.set_running_requests(2);
  result.samples[0].load.add_recipes()->set_recipe_name("idle");
  result.samples[1].seconds = 1;
  const nlohmann::json plot = KvMemoryPlot(result, Options(), "m");
  const nlohmann::json rows = plot["data"]["values"];
  ASSERT_EQ(rows.size(), 2u) << "what holds nothing in any sample is left out";
  EXPECT_EQ(rows[0]["recipe"], "custom");
  EXPECT_DOUBLE_EQ(rows[0]["held"], 3);
  EXPECT_DOUBLE_EQ(rows[0]["full"], 8);
  EXPECT_EQ(rows[0]["running"], 2);
  EXPECT_EQ(rows[1]["held"], 0) << "and what a sample does not name holds nothing then";
  EXPECT_EQ(plot["vconcat"][0]["encoding"]["color"]["scale"]["domain"],
            nlohmann::json({"full", "w512", "custom"}));
}

}  // namespace
}  // namespace swaa::tools::bench
