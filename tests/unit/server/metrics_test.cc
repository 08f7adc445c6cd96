// Counters and gauges against what was told.

#include "server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include "server/errors.h"

namespace swaa::server {
namespace {

using ::testing::HasSubstr;

TEST(MetricsTest, PromptLengthClasses) {
  EXPECT_EQ(PromptLengthClass(2048), "le_2k");
  EXPECT_EQ(PromptLengthClass(2049), "le_8k");
  EXPECT_EQ(PromptLengthClass(32768), "le_32k");
  EXPECT_EQ(PromptLengthClass(131072), "le_128k");
  EXPECT_EQ(PromptLengthClass(131073), "gt_128k");
}

TEST(MetricsTest, CountsWhatEnded) {
  const RecipeCatalog recipes = *RecipeCatalog::Create(BuiltInRecipes(), 4, false, "full");
  Metrics metrics(recipes, "1.2.3", "model", "cpu");
  RequestRecord record;
  record.recipe_label = "fast";
  record.accepted = true;
  record.finish_reason = FinishReason::kStop;
  record.stats = {.attended_keys = 100,
                  .full_attention_attended_keys = 250,
                  .prompt_tokens = 10,
                  .cached_prompt_tokens = 4,
                  .completion_tokens = 3};
  metrics.OnRequestEnd(record);
  RequestRecord refused;
  refused.status = MakeError(absl::StatusCode::kNotFound, "recipe_not_found", "no");
  metrics.OnRequestEnd(refused);
  metrics.OnStep({.prefill_tokens = 6, .decode_tokens = 2, .device_seconds = 0.25});
  const std::string page = prometheus::TextSerializer().Serialize(metrics.registry()->Collect());
  for (const char* line : {
           "swaa_requests_total{finish_reason=\"stop\",grpc_code=\"OK\",recipe=\"fast\"} 1",
           "swaa_requests_total{finish_reason=\"none\",grpc_code=\"NOT_FOUND\",recipe=\"none\"} 1",
           "swaa_requests_rejected_total{reason=\"recipe_not_found\"} 1",
           "swaa_prompt_tokens_total{recipe=\"fast\",source=\"computed\"} 6",
           "swaa_prompt_tokens_total{recipe=\"fast\",source=\"cached\"} 4",
           "swaa_generation_tokens_total{recipe=\"fast\"} 3",
           "swaa_speedup_ratio_sum{kind=\"counted\",recipe=\"fast\"} 2.5",
           "swaa_step_duration_seconds_sum{phase=\"mixed\"} 0.25",
           "swaa_batch_tokens_sum 8",
       }) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

TEST(MetricsTest, LoadIsAskedWhenScraped) {
  EngineLoad load;
  LoadCollector collector(
      {.recipe_labels = {"full", "custom"}, .page_bytes = 10, .weight_bytes = 7},
      [&] { return load; });
  load.running = 3;
  load.used_pages = 5;
  load.total_pages = 20;
  load.recipes["full"].kv_bytes = 50;
  const std::string page = prometheus::TextSerializer().Serialize(collector.Collect());
  for (const char* line :
       {"swaa_requests_running 3", "swaa_kv_cache_usage_ratio 0.25",
        "swaa_kv_cache_capacity_bytes 200", "swaa_kv_cache_bytes{recipe=\"full\"} 50",
        "swaa_kv_cache_bytes{recipe=\"custom\"} 0",
        "swaa_device_memory_bytes{kind=\"weights\"} 7"}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

}  // namespace
}  // namespace swaa::server
