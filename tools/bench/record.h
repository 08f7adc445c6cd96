// Bench: what is kept of one request.

#ifndef SWAA_TOOLS_BENCH_RECORD_H_
#define SWAA_TOOLS_BENCH_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "swaa/v1/generation.pb.h"

namespace swaa::tools::bench {

// Times are the client's, in seconds since the start of the run.
struct RequestRecord {
  size_t arm = 0;                // index into the recipe mix
  double scheduled_seconds = 0;  // when it was due; the time of sending in a closed loop
  double sent_seconds = 0;
  double first_token_seconds = -1;  // -1: none came
  double last_token_seconds = -1;
  double finished_seconds = 0;       // the end of its stream
  std::vector<float> token_gaps_ms;  // between deltas that hold tokens
  uint32_t prompt_tokens = 0;        // as the server counts them
  v1::Usage usage;                   // of the Finished event
  v1::RequestStats stats;            // of the Finished event
  std::string request_id;
  std::string experiment_arm;  // empty: in no experiment
  std::string outcome_token;
  std::string error_code;    // gRPC's name of it, such as UNAVAILABLE; empty: it ended well
  std::string error_reason;  // the server's machine-readable reason, where it gave one
  std::string error_message;

  bool completed() const { return error_code.empty(); }
  double ttft_ms() const { return (first_token_seconds - sent_seconds) * 1e3; }
  double e2el_ms() const { return (finished_seconds - sent_seconds) * 1e3; }
  // Mean time per output token after the first; 0 where there is at most one.
  double tpot_ms() const {
    const uint32_t tokens = usage.completion_tokens();
    return tokens > 1 ? (e2el_ms() - ttft_ms()) / (tokens - 1) : 0;
  }
};

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_RECORD_H_
