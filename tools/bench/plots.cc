// Bench: what a run's plots show, as Vega-Lite specifications.

#include "tools/bench/plots.h"

#include <set>

#include "absl/strings/str_cat.h"

namespace swaa::tools::bench {
namespace {

using nlohmann::json;

constexpr double kMegabyte = 1e6;
constexpr double kMillisecondsPerSecond = 1e3;
// A line through fewer points says more than they do.
constexpr size_t kLeastSmoothed = 100;

// Names that no recipe of the run has come after those that it asks for.
json Domain(const BenchOptions& options, const std::set<std::string>& more) {
  json domain = json::array();
  std::set<std::string> known;
  for (const RecipeArm& arm : options.arms) {
    if (known.insert(arm.label).second) domain.push_back(arm.label);
  }
  for (const std::string& name : more) {
    if (known.insert(name).second) domain.push_back(name);
  }
  return domain;
}

// The colour of a recipe is the same in both plots: by its place in the run.
json Colour(const json& domain) {
  return {{"field", "recipe"}, {"type", "nominal"}, {"scale", {{"domain", domain}}}};
}

json Axis(const std::string& field, const std::string& title) {
  return {{"field", field}, {"type", "quantitative"}, {"title", title}};
}

json Plot(const std::string& title, const std::string& subtitle, json rows, json views) {
  return {{"$schema", "https://vega.github.io/schema/vega-lite/v5.json"},
          {"title", {{"text", title}, {"subtitle", subtitle}}},
          {"data", {{"values", std::move(rows)}}},
          {"vconcat", std::move(views)}};
}

json LatencyView(const std::string& field, const std::string& title, bool smoothed,
                 const json& colour) {
  const json encoding = {{"x", Axis("sent", "time of sending, s")},
                         {"y", Axis(field, title + ", s")},
                         {"color", colour}};
  json layers = json::array({{{"mark", {{"type", "point"}, {"opacity", 0.5}, {"tooltip", true}}},
                              {"encoding", encoding}}});
  if (smoothed) {
    layers.push_back(
        {{"transform", {{{"loess", field}, {"on", "sent"}, {"groupby", json::array({"recipe"})}}}},
         {"mark", "line"},
         {"encoding", encoding}});
  }
  return {{"width", 720}, {"height", 260}, {"layer", layers}};
}

json StepView(const std::string& field, const std::string& title, const json& colour) {
  return {
      {"width", 720},
      {"height", 260},
      {"mark", {{"type", "line"}, {"interpolate", "step-after"}, {"tooltip", true}}},
      {"encoding", {{"x", Axis("time", "time, s")}, {"y", Axis(field, title)}, {"color", colour}}}};
}

// A recipe that the sample leaves out holds nothing.
v1::RecipeLoad LoadOf(const std::string& name, const LoadSample& sample) {
  for (const v1::RecipeLoad& recipe : sample.load.recipes()) {
    if (recipe.recipe_name() == name) return recipe;
  }
  return {};
}

}  // namespace

json LatencyPlot(const LoadResult& result, const BenchOptions& options, const std::string& model) {
  json rows = json::array();
  for (const RequestRecord& record : result.records) {
    if (!record.completed() || record.first_token_seconds < 0) continue;
    rows.push_back({{"recipe", options.arms[record.arm].label},
                    {"sent", record.sent_seconds},
                    {"ttft", record.ttft_ms() / kMillisecondsPerSecond},
                    {"e2el", record.e2el_ms() / kMillisecondsPerSecond}});
  }
  const json colour = Colour(Domain(options, {}));
  const bool smoothed = rows.size() >= kLeastSmoothed;
  return Plot(absl::StrCat("Latency over time, ", model),
              smoothed ? "a point: one request; the lines: smoothed over neighbouring requests"
                       : "a point: one request",
              std::move(rows),
              {LatencyView("ttft", "time to first token", smoothed, colour),
               LatencyView("e2el", "end to end", smoothed, colour)});
}

json KvMemoryPlot(const LoadResult& result, const BenchOptions& options, const std::string& model) {
  std::set<std::string> names;
  for (const LoadSample& sample : result.samples) {
    for (const v1::RecipeLoad& recipe : sample.load.recipes()) {
      if (recipe.kv_cache_bytes() > 0 || recipe.running_requests() > 0) {
        names.insert(recipe.recipe_name());
      }
    }
  }
  json rows = json::array();
  for (const LoadSample& sample : result.samples) {
    for (const std::string& name : names) {
      const v1::RecipeLoad load = LoadOf(name, sample);
      rows.push_back(
          {{"recipe", name},
           {"time", sample.seconds},
           {"held", static_cast<double>(load.kv_cache_bytes()) / kMegabyte},
           {"full", static_cast<double>(load.full_attention_kv_cache_bytes()) / kMegabyte},
           {"running", load.running_requests()}});
    }
  }
  const json colour = Colour(Domain(options, names));
  return Plot(absl::StrCat("KV memory over time, ", model), "as the server reports it",
              std::move(rows),
              {StepView("held", "keys and values held, MB", colour),
               StepView("full", "the same requests under full attention, MB", colour),
               StepView("running", "requests running", colour)});
}

}  // namespace swaa::tools::bench
