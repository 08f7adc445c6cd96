// Bench: what a run amounts to, overall and per recipe.

#include "tools/bench/summary.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace swaa::tools::bench {
namespace {

constexpr double kMegabyte = 1e6;

// The values behind the distributions of a summary.
struct Samples {
  std::vector<double> ttft, tpot, itl, e2el, send_delay, queue, prefill, decode, kv, full_kv;

  void Add(const RequestRecord& record) {
    // An answer without a token has no first one.
    if (record.first_token_seconds >= 0) ttft.push_back(record.ttft_ms());
    if (record.usage.completion_tokens() > 1) tpot.push_back(record.tpot_ms());
    itl.insert(itl.end(), record.token_gaps_ms.begin(), record.token_gaps_ms.end());
    e2el.push_back(record.e2el_ms());
    const v1::RequestStats& stats = record.stats;
    queue.push_back(static_cast<double>(stats.queue_time_us()) / 1e3);
    prefill.push_back(static_cast<double>(stats.prefill_time_us()) / 1e3);
    decode.push_back(static_cast<double>(stats.decode_time_us()) / 1e3);
    kv.push_back(static_cast<double>(stats.peak_kv_cache_bytes()) / kMegabyte);
    full_kv.push_back(static_cast<double>(stats.full_attention_kv_cache_bytes()) / kMegabyte);
  }

  void DescribeIn(Summary* summary) {
    summary->ttft_ms = Describe(std::move(ttft));
    summary->tpot_ms = Describe(std::move(tpot));
    summary->itl_ms = Describe(std::move(itl));
    summary->e2el_ms = Describe(std::move(e2el));
    summary->send_delay_ms = Describe(std::move(send_delay));
    summary->queue_ms = Describe(std::move(queue));
    summary->prefill_ms = Describe(std::move(prefill));
    summary->decode_ms = Describe(std::move(decode));
    summary->peak_kv_mb = Describe(std::move(kv));
    summary->full_attention_kv_mb = Describe(std::move(full_kv));
  }
};

void CountFailure(const RequestRecord& record, Summary* summary) {
  // A reason that is the code's own name says no more than the code, which is all that there is
  // where the client saw the failure first.
  const bool says_more = !record.error_reason.empty() &&
                         record.error_reason != absl::AsciiStrToLower(record.error_code);
  const std::string kind =
      says_more ? absl::StrCat(record.error_code, "/", record.error_reason) : record.error_code;
  ++summary->failures[kind];
  summary->failure_examples.try_emplace(kind, record.error_message);
}

std::optional<double> Ratio(const Distribution& full, const Distribution& arm) {
  if (full.count == 0 || arm.count == 0 || arm.median <= 0) return std::nullopt;
  return full.median / arm.median;
}

}  // namespace

bool GoodputTargets::MetBy(const RequestRecord& record) const {
  return (!ttft_ms || record.ttft_ms() <= *ttft_ms) && (!tpot_ms || record.tpot_ms() <= *tpot_ms) &&
         (!e2el_ms || record.e2el_ms() <= *e2el_ms);
}

absl::StatusOr<GoodputTargets> ParseGoodput(const std::string& text) {
  GoodputTargets targets;
  if (text.empty()) return targets;
  for (const std::string& item : std::vector<std::string>(absl::StrSplit(text, ','))) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(item, absl::MaxSplits(':', 1));
    std::optional<double>* target = nullptr;
    if (parts.first == "ttft") target = &targets.ttft_ms;
    if (parts.first == "tpot") target = &targets.tpot_ms;
    if (parts.first == "e2el") target = &targets.e2el_ms;
    double milliseconds = 0;
    if (target == nullptr || target->has_value() ||
        !absl::SimpleAtod(parts.second, &milliseconds) || !std::isfinite(milliseconds) ||
        milliseconds <= 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", item,
                       "\" is no objective; give ttft, tpot and e2el at most once each with "
                       "milliseconds above 0, such as ttft:500,tpot:50,e2el:4000"));
    }
    *target = milliseconds;
  }
  return targets;
}

Summary Summarize(const std::vector<RequestRecord>& records, std::optional<size_t> arm,
                  double duration_seconds, const GoodputTargets& goodput) {
  Summary summary;
  Samples samples;
  int64_t good = 0;
  for (const RequestRecord& record : records) {
    if (arm.has_value() && record.arm != *arm) continue;
    ++summary.sent;
    samples.send_delay.push_back((record.sent_seconds - record.scheduled_seconds) * 1e3);
    if (!record.completed()) {
      CountFailure(record, &summary);
      continue;
    }
    ++summary.completed;
    summary.total_input_tokens += record.usage.prompt_tokens();
    summary.total_output_tokens += record.usage.completion_tokens();
    summary.cached_input_tokens += record.usage.cached_prompt_tokens();
    summary.attended_keys += record.stats.attended_keys();
    summary.full_attention_attended_keys += record.stats.full_attention_attended_keys();
    summary.preemptions += record.stats.preemptions();
    samples.Add(record);
    if (goodput.MetBy(record)) ++good;
  }
  const auto per_second = [duration_seconds](int64_t count) {
    return duration_seconds > 0 ? static_cast<double>(count) / duration_seconds : 0;
  };
  summary.request_throughput = per_second(summary.completed);
  if (goodput.any()) summary.request_goodput = per_second(good);
  summary.output_throughput = per_second(summary.total_output_tokens);
  summary.total_token_throughput =
      per_second(summary.total_input_tokens + summary.total_output_tokens);
  samples.DescribeIn(&summary);
  return summary;
}

Speedup CompareToFull(const Summary& arm, const Summary& full) {
  Speedup speedup;
  speedup.ttft = Ratio(full.ttft_ms, arm.ttft_ms);
  speedup.tpot = Ratio(full.tpot_ms, arm.tpot_ms);
  speedup.e2el = Ratio(full.e2el_ms, arm.e2el_ms);
  if (arm.attended_keys > 0) {
    speedup.counted = static_cast<double>(arm.full_attention_attended_keys) /
                      static_cast<double>(arm.attended_keys);
  }
  return speedup;
}

Peaks FindPeaks(const std::vector<RequestRecord>& records) {
  Peaks peaks;
  std::vector<std::pair<double, int>> changes;  // an end comes before a start at the same time
  std::map<int64_t, double> tokens_of_second;
  for (const RequestRecord& record : records) {
    if (!record.completed()) continue;
    changes.emplace_back(record.sent_seconds, 1);
    changes.emplace_back(record.finished_seconds, -1);
    if (record.first_token_seconds < 0) continue;
    double now = record.first_token_seconds;
    // A delta may hold several tokens; the average spreads them over the deltas.
    const double tokens_per_delta = static_cast<double>(record.usage.completion_tokens()) /
                                    static_cast<double>(record.token_gaps_ms.size() + 1);
    tokens_of_second[static_cast<int64_t>(now)] += tokens_per_delta;
    for (float gap_ms : record.token_gaps_ms) {
      now += gap_ms / 1e3;
      tokens_of_second[static_cast<int64_t>(now)] += tokens_per_delta;
    }
  }
  std::sort(changes.begin(), changes.end());
  int64_t running = 0;
  for (const auto& change : changes) {
    running += change.second;
    peaks.concurrent_requests = std::max(peaks.concurrent_requests, running);
  }
  for (const auto& [second, tokens] : tokens_of_second) {
    peaks.output_tokens_per_second = std::max(peaks.output_tokens_per_second, tokens);
  }
  return peaks;
}

}  // namespace swaa::tools::bench
