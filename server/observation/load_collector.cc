// The gauges of what the server holds right now.

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/observation/family_builder.h"
#include "server/observation/metrics.h"

namespace swaa::server {
namespace {

// Adapters by what their requests do, by name, with commas between.
std::string NamesWith(const EngineLoad& load, int32_t RecipeLoad::*requests) {
  std::string names;
  for (const auto& [name, adapter] : load.adapters) {
    if (adapter.*requests > 0) absl::StrAppend(&names, names.empty() ? "" : ",", name);
  }
  return names;
}

}  // namespace

LoadCollector::LoadCollector(Facts facts, std::function<std::vector<std::string>()> recipe_names,
                             std::function<EngineLoad()> load,
                             std::function<AdmissionLoad()> unread)
    : facts_(facts),
      recipe_names_(std::move(recipe_names)),
      load_(std::move(load)),
      unread_(std::move(unread)) {}

std::vector<prometheus::MetricFamily> LoadCollector::Collect() const {
  const EngineLoad load = load_();
  const AdmissionLoad unread = unread_();
  const double capacity = static_cast<double>(load.total_pages * facts_.page_bytes);
  const double usage = load.total_pages == 0 ? 0
                                             : static_cast<double>(load.used_pages) /
                                                   static_cast<double>(load.total_pages);
  FamilyBuilder kv("swaa_kv_cache_bytes", "Bytes of keys and values held, by recipe.");
  FamilyBuilder full("swaa_kv_cache_full_equivalent_bytes",
                     "What the same requests would hold under full attention.");
  std::map<std::string, RecipeLoad> recipes = {{kCustomRecipeLabel, {}}};
  for (const std::string& name : recipe_names_()) recipes[name] = {};
  for (const auto& [label, recipe] : load.recipes) {
    RecipeLoad& sum = recipes[recipes.contains(label) ? label : kCustomRecipeLabel];
    sum.kv_bytes += recipe.kv_bytes;
    sum.full_attention_kv_bytes += recipe.full_attention_kv_bytes;
  }
  for (const auto& [label, recipe] : recipes) {
    kv.Add(static_cast<double>(recipe.kv_bytes), {{"recipe", label}});
    full.Add(static_cast<double>(recipe.full_attention_kv_bytes), {{"recipe", label}});
  }
  return {
      FamilyBuilder("swaa_requests_running", "Requests in the engine.").Add(load.running).Take(),
      FamilyBuilder("swaa_requests_waiting", "Requests in the queue, unread ones included.")
          .Add(load.queued + unread.waiting + unread.running)
          .Take(),
      FamilyBuilder("swaa_unread_requests",
                    "Requests that wait to be parsed and tokenised, or are at it.")
          .Add(unread.waiting + unread.running)
          .Take(),
      FamilyBuilder("swaa_unread_bytes", "Their bytes.")
          .Add(static_cast<double>(unread.bytes))
          .Take(),
      FamilyBuilder("swaa_kv_cache_usage_ratio", "Pages in use of all, evictable ones left out.")
          .Add(usage)
          .Take(),
      FamilyBuilder("swaa_kv_cache_capacity_bytes", "Bytes of the page pool.").Add(capacity).Take(),
      FamilyBuilder("swaa_kv_cache_evictable_bytes",
                    "Bytes of pages that only the prefix cache holds; free on demand.")
          .Add(static_cast<double>(load.evictable_pages * facts_.page_bytes))
          .Take(),
      FamilyBuilder("swaa_prefix_cache_blocks", "Blocks of 64 tokens that the prefix cache knows.")
          .Add(static_cast<double>(load.cached_blocks))
          .Take(),
      FamilyBuilder("swaa_preemptions_total", "Times a running request lost its pages.",
                    prometheus::MetricType::Counter)
          .Add(static_cast<double>(load.preemptions))
          .Take(),
      kv.Take(),
      full.Take(),
      // What routers choose a server by.
      FamilyBuilder("swaa_lora_requests_info",
                    "Adapters of running and waiting requests; always 1.")
          .Add(1, {{"max_lora", absl::StrCat(facts_.max_loras)},
                   {"running_lora_adapters", NamesWith(load, &RecipeLoad::running)},
                   {"waiting_lora_adapters", NamesWith(load, &RecipeLoad::queued)}})
          .Take(),
  };
}

}  // namespace swaa::server
