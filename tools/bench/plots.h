// Bench: what a run's plots show, as Vega-Lite specifications (https://vega.github.io/vega-lite)
// with their data in them.

#ifndef SWAA_TOOLS_BENCH_PLOTS_H_
#define SWAA_TOOLS_BENCH_PLOTS_H_

#include <string>

#include <nlohmann/json.hpp>

#include "tools/bench/load.h"
#include "tools/bench/options.h"

namespace swaa::tools::bench {

// Time to first token and end-to-end time, in seconds, of each completed request over the time of
// its sending; of a hundred and more, with a smoothed line for each recipe.
nlohmann::json LatencyPlot(const LoadResult& result, const BenchOptions& options,
                           const std::string& model);

// Megabytes of keys and values, those that the same requests would hold under full attention, and
// running requests, over time by recipe, as the server tells; recipes given in full are one there,
// "custom", unless there is but one.
nlohmann::json KvMemoryPlot(const LoadResult& result, const BenchOptions& options,
                            const std::string& model);

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_PLOTS_H_
