// Bench: what a run's plots show.

#ifndef SWAA_TOOLS_BENCH_PLOTS_H_
#define SWAA_TOOLS_BENCH_PLOTS_H_

#include <string>

#include "tools/bench/load.h"
#include "tools/bench/options.h"
#include "tools/bench/svg.h"

namespace swaa::tools::bench {

// Time to first token and end-to-end time of each completed request over the time of its sending,
// with a line of medians of neighbours for each recipe.
Figure LatencyFigure(const LoadResult& result, const BenchOptions& options,
                     const std::string& model);

// Bytes of keys and values, and running requests, over time by recipe, as the server tells; recipes
// given in full are one there, "custom".
Figure KvMemoryFigure(const LoadResult& result, const BenchOptions& options,
                      const std::string& model);

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_PLOTS_H_
