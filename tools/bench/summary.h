// Bench: what a run amounts to, overall and per recipe.

#ifndef SWAA_TOOLS_BENCH_SUMMARY_H_
#define SWAA_TOOLS_BENCH_SUMMARY_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/bench/record.h"
#include "tools/bench/statistics.h"

namespace swaa::tools::bench {

// A request is good when it meets every objective that is set.
struct GoodputTargets {
  std::optional<double> ttft_ms;
  std::optional<double> tpot_ms;
  std::optional<double> e2el_ms;

  bool any() const { return ttft_ms || tpot_ms || e2el_ms; }
  bool MetBy(const RequestRecord& record) const;
};

// Parses ttft:500,tpot:50,e2el:4000 (milliseconds, any of them); empty sets none. INVALID_ARGUMENT
// for another name or a number that is not above 0; the message names no flag.
absl::StatusOr<GoodputTargets> ParseGoodput(const std::string& text);

// The figures of a set of requests. Names, units and definitions are those of `vllm bench serve`
// where it has them; latencies are of the completed requests alone.
struct Summary {
  int64_t sent = 0;
  int64_t completed = 0;
  int64_t total_input_tokens = 0;
  int64_t total_output_tokens = 0;
  int64_t cached_input_tokens = 0;
  double request_throughput = 0;  // per second, of the whole run's duration
  std::optional<double> request_goodput;
  double output_throughput = 0;
  double total_token_throughput = 0;
  Distribution ttft_ms;
  Distribution tpot_ms;
  Distribution itl_ms;
  Distribution e2el_ms;
  Distribution send_delay_ms;  // how late the client itself sent
  // As the server measured them.
  Distribution queue_ms;
  Distribution prefill_ms;
  Distribution decode_ms;
  Distribution peak_kv_mb;
  Distribution full_attention_kv_mb;
  uint64_t attended_keys = 0;
  uint64_t full_attention_attended_keys = 0;
  int64_t preemptions = 0;
  std::map<std::string, int64_t> failures;              // by gRPC code, with the server's reason
  std::map<std::string, std::string> failure_examples;  // a message for each of them
};

// The requests of arm `arm`, or all of them.
Summary Summarize(const std::vector<RequestRecord>& records, std::optional<size_t> arm,
                  double duration_seconds, const GoodputTargets& goodput);

// How many times faster an arm is than the full-attention arm of the same run, and how many times
// fewer keys it attends, which is no measure of time; absent where either has no value.
struct Speedup {
  std::optional<double> throughput;  // of output tokens; absent where they shared one batch
  std::optional<double> ttft;        // ratio of medians
  std::optional<double> tpot;
  std::optional<double> e2el;
  std::optional<double>
      counted;  // keys that full attention attends over keys attended, the arm's own
};

Speedup CompareToFull(const Summary& arm, const Summary& full);

// What the whole run reached at its best.
struct Peaks {
  int64_t concurrent_requests = 0;      // among the completed
  double output_tokens_per_second = 0;  // in the best second
};
Peaks FindPeaks(const std::vector<RequestRecord>& records);

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_SUMMARY_H_
