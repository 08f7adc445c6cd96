// Bench: what a run's plots show.

#include "tools/bench/plots.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/bench/statistics.h"

namespace swaa::tools::bench {
namespace {

// Of the lines of medians.
constexpr size_t kMostGroups = 40;
constexpr size_t kLeastGroup = 5;
constexpr double kMegabyte = 1e6;

using Points = std::vector<std::pair<double, double>>;

// The median of each group of neighbours, at the median x of the group; `points` in order of x.
Points GroupMedians(const Points& points) {
  const size_t group = std::max(kLeastGroup, (points.size() + kMostGroups - 1) / kMostGroups);
  Points medians;
  for (size_t begin = 0; begin < points.size(); begin += group) {
    std::vector<double> xs;
    std::vector<double> ys;
    for (size_t i = begin; i < std::min(begin + group, points.size()); ++i) {
      xs.push_back(points[i].first);
      ys.push_back(points[i].second);
    }
    medians.emplace_back(Describe(std::move(xs)).median, Describe(std::move(ys)).median);
  }
  return medians;
}

template <class Value>
std::vector<Series> LatencySeries(const LoadResult& result, size_t arms, Value value) {
  std::vector<Series> all(arms);
  for (size_t arm = 0; arm < arms; ++arm) all[arm].colour = arm;
  for (const RequestRecord& record : result.records) {
    if (!record.completed() || record.first_token_seconds < 0) continue;
    all[record.arm].dots.emplace_back(record.sent_seconds, value(record));
  }
  for (Series& series : all) {
    std::sort(series.dots.begin(), series.dots.end());
    series.line = GroupMedians(series.dots);
  }
  return all;
}

// The recipe names that the server reports, in the colours of the arms of that name; the others
// take the colours after those.
std::map<std::string, size_t> LoadColours(const LoadResult& result, const BenchOptions& options) {
  std::set<std::string> names;
  for (const LoadSample& sample : result.samples) {
    for (const v1::RecipeLoad& recipe : sample.load.recipes()) {
      if (recipe.kv_cache_bytes() > 0 || recipe.running_requests() > 0) {
        names.insert(recipe.recipe_name());
      }
    }
  }
  std::map<std::string, size_t> colours;
  std::vector<size_t> in_full;
  for (size_t i = 0; i < options.arms.size(); ++i) {
    if (names.count(options.arms[i].label) > 0) {
      colours[options.arms[i].label] = i;
    } else if (options.arms[i].in_full) {
      in_full.push_back(i);
    }
  }
  size_t next = options.arms.size();
  for (const std::string& name : names) {
    if (colours.count(name) > 0) continue;
    // A single recipe in full is the one that the server means.
    colours[name] = in_full.size() == 1 ? in_full[0] : next++;
  }
  return colours;
}

std::vector<std::pair<std::string, size_t>> ByColour(const std::map<std::string, size_t>& colours) {
  std::vector<std::pair<std::string, size_t>> sorted(colours.begin(), colours.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second < b.second; });
  return sorted;
}

// A recipe that the sample leaves out holds nothing.
v1::RecipeLoad LoadOf(const std::string& name, const LoadSample& sample) {
  for (const v1::RecipeLoad& recipe : sample.load.recipes()) {
    if (recipe.recipe_name() == name) return recipe;
  }
  return {};
}

// Each value holds until the next sample.
void AddStep(double at, double value, Series* series) {
  if (!series->line.empty()) series->line.emplace_back(at, series->line.back().second);
  series->line.emplace_back(at, value);
}

// Series of milliseconds, shown in seconds where that fits better.
Panel LatencyPanel(const std::string& title, const std::string& what, std::vector<Series> series) {
  double most = 0;
  for (const Series& one : series) {
    for (const auto& [at, value] : one.dots) most = std::max(most, value);
  }
  const bool seconds = most >= 1000;
  for (Series& one : series) {
    for (auto* points : {&one.dots, &one.line}) {
      for (auto& [at, value] : *points) value /= seconds ? 1000 : 1;
    }
  }
  return {.title = title,
          .y_label = absl::StrCat(what, seconds ? ", s" : ", ms"),
          .series = std::move(series)};
}

}  // namespace

Figure LatencyFigure(const LoadResult& result, const BenchOptions& options,
                     const std::string& model) {
  Figure figure{.title = absl::StrCat("Latency over time, ", model),
                .note = "a dot: one request; the lines: medians of neighbouring requests",
                .x_label = "time of sending, s"};
  for (size_t i = 0; i < options.arms.size(); ++i) {
    figure.legend.push_back({.label = options.arms[i].label, .colour = i});
  }
  const size_t arms = options.arms.size();
  figure.panels.push_back(LatencyPanel(
      "Time to first token", "TTFT",
      LatencySeries(result, arms, [](const auto& record) { return record.ttft_ms(); })));
  figure.panels.push_back(LatencyPanel(
      "End to end", "end to end",
      LatencySeries(result, arms, [](const auto& record) { return record.e2el_ms(); })));
  return figure;
}

Figure KvMemoryFigure(const LoadResult& result, const BenchOptions& options,
                      const std::string& model) {
  Figure figure{.title = absl::StrCat("KV memory over time, ", model),
                .note =
                    "as the server reports it; dashed: what the same requests would hold under "
                    "full attention",
                .x_label = "time, s"};
  Panel memory{.title = "Keys and values held", .y_label = "KV memory, MB"};
  Panel running{.title = "Requests running", .y_label = "requests", .whole_numbers = true};
  for (const auto& [name, colour] : ByColour(LoadColours(result, options))) {
    Series held{.colour = colour};
    Series full{.colour = colour, .dashed = true};
    Series requests{.colour = colour};
    for (const LoadSample& sample : result.samples) {
      const v1::RecipeLoad load = LoadOf(name, sample);
      const double at = sample.seconds;
      AddStep(at, static_cast<double>(load.kv_cache_bytes()) / kMegabyte, &held);
      AddStep(at, static_cast<double>(load.full_attention_kv_cache_bytes()) / kMegabyte, &full);
      AddStep(at, load.running_requests(), &requests);
    }
    figure.legend.push_back({.label = name, .colour = colour});
    memory.series.push_back(std::move(full));
    memory.series.push_back(std::move(held));
    running.series.push_back(std::move(requests));
  }
  figure.panels = {std::move(memory), std::move(running)};
  return figure;
}

}  // namespace swaa::tools::bench
