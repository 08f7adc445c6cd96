// Bench: the results, as a table and as JSON.

#ifndef SWAA_TOOLS_BENCH_REPORT_H_
#define SWAA_TOOLS_BENCH_REPORT_H_

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tools/bench/load.h"
#include "tools/bench/options.h"
#include "tools/bench/summary.h"

namespace swaa::tools::bench {

// One recipe's results.
struct ArmReport {
  std::string label;
  double weight = 1;
  Summary summary;
  std::optional<Speedup> speedup;  // absent without a full-attention arm
};

struct Report {
  std::string model;
  std::string date;  // RFC 3339
  double duration_seconds = 0;
  bool interrupted = false;
  bool in_turns = false;  // recipes were measured one after the other
  Summary overall;
  Peaks peaks;
  std::vector<ArmReport> arms;
};

Report MakeReport(const BenchOptions& options, const LoadResult& result);

// The table for a person: a row a figure, a column a recipe.
std::string ReportTable(const Report& report);

// One object: settings, the overall figures under the keys of `vllm bench serve`, the same per
// recipe under "recipes" with "speedup_over_full", and the server's load over time. Distributions
// without a value are null.
nlohmann::ordered_json ReportJson(const Report& report, const BenchOptions& options,
                                  const LoadResult& result);

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_REPORT_H_
