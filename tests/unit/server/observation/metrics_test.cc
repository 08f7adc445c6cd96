// Counters and gauges against what was told.

#include "server/observation/metrics.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include "server/generate/errors.h"

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
                  .completion_tokens = 3,
                  .device_seconds = 0.5,
                  .full_attention_device_seconds = 0.75};
  metrics.OnRequestEnd(record);
  RequestRecord refused;
  refused.status = MakeError(absl::StatusCode::kNotFound, "recipe_not_found", "no");
  metrics.OnRequestEnd(refused);
  metrics.OnStep({.prefill_tokens = 6,
                  .decode_tokens = 2,
                  .device_seconds = 0.25,
                  .model = {.error_ratio = 0.125, .closure_ratio = 1.5}});
  metrics.OnStep({.decode_tokens = 1, .device_seconds = 2, .shadow = true});
  metrics.OnShadowSpeedup("fast", 3);
  const std::string page = prometheus::TextSerializer().Serialize(metrics.registry()->Collect());
  for (const char* line : {
           "swaa_requests_total{finish_reason=\"stop\",grpc_code=\"OK\",recipe=\"fast\"} 1",
           "swaa_requests_total{finish_reason=\"none\",grpc_code=\"NOT_FOUND\",recipe=\"none\"} 1",
           "swaa_requests_rejected_total{reason=\"recipe_not_found\"} 1",
           "swaa_prompt_tokens_total{recipe=\"fast\",source=\"computed\"} 6",
           "swaa_prompt_tokens_total{recipe=\"fast\",source=\"cached\"} 4",
           "swaa_generation_tokens_total{recipe=\"fast\"} 3",
           "swaa_attended_keys_ratio_sum{recipe=\"fast\"} 2.5",
           "swaa_step_duration_seconds_sum{phase=\"mixed\"} 0.25",
           "swaa_batch_tokens_sum 8",
           "swaa_attributed_device_seconds_total{recipe=\"fast\"} 0.5",
           "swaa_speedup_ratio_sum{kind=\"attributed\",recipe=\"fast\"} 1.5",
           "swaa_speedup_ratio_sum{kind=\"shadow\",recipe=\"fast\"} 3",
           "swaa_step_model_error_ratio 0.125",
           "swaa_step_model_closure_ratio 1.5",
           "swaa_shadow_device_seconds_total 2",
           "swaa_step_duration_seconds_count{phase=\"decode\"} 0",
       }) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

std::string Page(const Metrics& metrics) {
  return prometheus::TextSerializer().Serialize(metrics.registry()->Collect());
}

TEST(MetricsTest, SeriesFollowTheRegisteredRecipes) {
  std::vector<NamedRecipeSpec> specs = BuiltInRecipes();
  Metrics metrics(*RecipeCatalog::Create(specs, 4, false, "full"), "1", "model", "cpu");
  const std::string before = Page(metrics);
  RequestRecord record;
  record.accepted = true;
  record.finish_reason = FinishReason::kStop;
  record.stats.completion_tokens = 2;
  // However many names come and go, no more series are left.
  for (int i = 0; i < 50; ++i) {
    std::vector<NamedRecipeSpec> more = specs;
    record.recipe_label = "extra" + std::to_string(i);
    more.push_back({.name = record.recipe_label});
    metrics.SetRecipes(*RecipeCatalog::Create(more, 4, false, "full"));
    metrics.OnRequestEnd(record);
    metrics.OnInterTokenLatency(record.recipe_label, absl::Seconds(1));
    EXPECT_THAT(Page(metrics), HasSubstr("swaa_recipe_info{full_attention_decode=\"all\",full_"
                                         "attention_layers=\"all\",recipe=\"" +
                                         record.recipe_label));
  }
  metrics.SetRecipes(*RecipeCatalog::Create(specs, 4, false, "full"));
  const std::string after = Page(metrics);
  EXPECT_EQ(after.find("extra"), std::string::npos);
  EXPECT_EQ(std::count(after.begin(), after.end(), '\n'),
            std::count(before.begin(), before.end(), '\n'));
  // One that ends after its recipe has gone counts as custom.
  metrics.OnRequestEnd(record);
  EXPECT_THAT(Page(metrics), HasSubstr("swaa_generation_tokens_total{recipe=\"custom\"} 2"));
  EXPECT_EQ(Page(metrics).find("extra"), std::string::npos);
}

TEST(MetricsTest, ReplacedRecipeHasOneInfo) {
  std::vector<NamedRecipeSpec> specs = {{.name = "full"}};
  Metrics metrics(*RecipeCatalog::Create(specs, 4, false, "full"), "1", "model", "cpu");
  specs[0].spec.sliding_window_tokens = 77;
  metrics.SetRecipes(*RecipeCatalog::Create(specs, 4, false, "full"));
  const std::string page = Page(metrics);
  EXPECT_THAT(page, HasSubstr("sliding_window_tokens=\"77\""));
  EXPECT_EQ(page.find("sliding_window_tokens=\"\""), std::string::npos);
}

TEST(MetricsTest, EdgesAreConfigurable) {
  const RecipeCatalog recipes = *RecipeCatalog::Create(BuiltInRecipes(), 4, false, "full");
  Metrics metrics(recipes, "1", "model", "cpu", {.seconds = {0.25, 7}});
  const std::string page = Page(metrics);
  EXPECT_THAT(page, HasSubstr("swaa_request_duration_seconds_bucket{recipe=\"full\",le=\"0.25\"}"));
  EXPECT_EQ(page.find("le=\"0.1\""), std::string::npos);
}

TEST(MetricsTest, ReloadsAreCounted) {
  const RecipeCatalog recipes = *RecipeCatalog::Create(BuiltInRecipes(), 4, false, "full");
  Metrics metrics(recipes, "1", "model", "cpu");
  EXPECT_THAT(Page(metrics), HasSubstr("swaa_config_last_reload_successful 1\n"));
  metrics.OnConfigReload(true);
  metrics.OnConfigReload(false);
  metrics.OnConfigReload(false);
  const std::string page = Page(metrics);
  EXPECT_THAT(page, HasSubstr("swaa_config_last_reload_successful 0\n"));
  EXPECT_THAT(page, HasSubstr("swaa_config_reloads_total{result=\"ok\"} 1"));
  EXPECT_THAT(page, HasSubstr("swaa_config_reloads_total{result=\"failed\"} 2"));
}

TEST(MetricsTest, TokensAreCountedAsTheyComeAndOnce) {
  Metrics metrics(*RecipeCatalog::Create(BuiltInRecipes(), 4, false, "full"), "1", "model", "cpu");
  metrics.OnFirstToken("full", 10, absl::Seconds(2));
  LiveCounts added{.tokens = 7, .attended_keys = 50, .full_attention_attended_keys = 60};
  metrics.OnTokens("full", added);
  const auto expect = [&](const std::vector<std::string>& lines) {
    const std::string page = Page(metrics);
    for (const std::string& line : lines) EXPECT_THAT(page, HasSubstr(line));
  };
  const std::string first =
      "swaa_time_to_first_token_seconds_count{prompt_len=\"le_2k\",recipe=\"full\"} 1";
  expect({"swaa_generation_tokens_total{recipe=\"full\"} 7",
          "swaa_attended_keys_total{recipe=\"full\"} 50", first});
  RequestRecord record;
  record.recipe_label = "full";
  record.accepted = true;
  record.finish_reason = FinishReason::kLength;
  record.counted = added;
  record.counted.first_token = true;
  record.stats = {.attended_keys = 80, .full_attention_attended_keys = 90, .completion_tokens = 9};
  metrics.OnRequestEnd(record);
  expect({"swaa_generation_tokens_total{recipe=\"full\"} 9",
          "swaa_attended_keys_total{recipe=\"full\"} 80",
          "swaa_attended_keys_full_equivalent_total{recipe=\"full\"} 90", first});
}

TEST(MetricsTest, RefusalsHaveASeriesBeforeTheFirst) {
  Metrics metrics(*RecipeCatalog::Create(BuiltInRecipes(), 4, false, "full"), "1", "model", "cpu");
  EXPECT_THAT(Page(metrics), HasSubstr("swaa_requests_rejected_total{reason=\"queue_full\"} 0"));
}

TEST(MetricsTest, LoadIsAskedWhenScraped) {
  EngineLoad load;
  LoadCollector collector(
      {.page_bytes = 10, .max_loras = 2}, [] { return std::vector<std::string>{"full"}; },
      [&] { return load; }, [] { return AdmissionLoad{.waiting = 2, .running = 1, .bytes = 77}; });
  load.running = 3;
  load.used_pages = 5;
  load.total_pages = 20;
  load.recipes["full"].kv_bytes = 50;
  load.recipes["removed"].kv_bytes = 30;
  load.recipes["custom"].kv_bytes = 5;
  load.adapters["b"] = {.running = 1, .queued = 2};
  load.adapters["a"] = {.running = 3};
  load.preemptions = 9;
  load.evictable_pages = 4;
  load.cached_blocks = 6;
  const std::string page = prometheus::TextSerializer().Serialize(collector.Collect());
  for (const char* line :
       {"swaa_requests_running 3", "swaa_kv_cache_usage_ratio 0.25",
        "swaa_kv_cache_capacity_bytes 200", "swaa_kv_cache_bytes{recipe=\"full\"} 50",
        "swaa_kv_cache_bytes{recipe=\"custom\"} 35", "swaa_preemptions_total 9",
        "swaa_lora_requests_info{max_lora=\"2\",running_lora_adapters=\"a,b\",waiting_lora_"
        "adapters="
        "\"b\"} 1",
        "swaa_kv_cache_evictable_bytes 40", "swaa_prefix_cache_blocks 6"}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

}  // namespace
}  // namespace swaa::server
