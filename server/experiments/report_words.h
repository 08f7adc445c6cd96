// A report's figures in words, the same in text and in HTML.

#ifndef SWAA_SERVER_EXPERIMENTS_REPORT_WORDS_H_
#define SWAA_SERVER_EXPERIMENTS_REPORT_WORDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "swaa/v1/experiment_service.pb.h"

namespace swaa::server {

// "14,230".
std::string CountInWords(uint64_t count);
// "2026-11-25 16:00 UTC"; a dash for an absent time.
std::string TimeInWords(const google::protobuf::Timestamp& time);
// Three significant digits: "0.00123", "12.3", "4.56e+09".
std::string NumberInWords(double value);
// "12.3 ms", "4.56 s"; "never" for infinity.
std::string SecondsInWords(double seconds);
std::string BytesInWords(double bytes);
std::string PercentInWords(double share);

std::string StateInWords(v1::ExperimentState state);
// "28.9 % less", "7.5 points less", "0.12 more".
std::string EffectInWords(const v1::Comparison& comparison);
// "ratio 0.711, interval 0.66 to 0.77"; "no interval yet" where it is infinite.
std::string IntervalInWords(const v1::Comparison& comparison);
// "better", "worse", "undecided: about 4,000 more units would tell", ...
std::string VerdictInWords(const v1::Comparison& comparison);
// "goal, more is better", "guardrail, less is better", "for information".
std::string DirectionInWords(const v1::GetReportResponse& report, const v1::Comparison& comparison);
// "all requests", "triggered requests".
std::string PopulationInWords(bool triggered_only);
// "the first day", "days 2 to 7", "after a week": since the unit was first in its arm.
std::string UnitAgeInWords(const v1::Comparison& comparison);
// What a metric's estimate is on its scale: "time_to_first_token_seconds: 123 ms (geometric mean)".
std::string EstimateInWords(const v1::MetricEstimate& estimate, v1::MetricScale scale);

struct SpeedupWords {
  std::string question;  // that the kind answers
  std::string trust;     // when to believe it
};
SpeedupWords SpeedupInWords(const std::string& kind);
// "2.04 (1.9 to 2.2)".
std::string SpeedupRatioInWords(const v1::Speedup& speedup);

// Quantiles of one latency of one arm, for prompts of one length or all.
struct LatencyRow {
  std::string metric;
  std::string prompts;  // "all", "le_2k", ...
  std::string arm;
  uint64_t requests = 0;
  std::vector<v1::LatencyQuantile> quantiles;  // in rising order
};
// By metric, then prompts, then arm, so that arms stand below each other.
std::vector<LatencyRow> LatencyRows(const v1::GetReportResponse& report);
// The quantiles that rows have: "p50", "p90", ...
std::vector<std::string> QuantileNames(const std::vector<LatencyRow>& rows);

// A sentence on whether units fell into arms as they should have.
std::string SampleRatioInWords(const v1::GetReportResponse& report);

// The declared metric of that name, else one of no role with the server's scale.
v1::ExperimentMetric MetricOf(const v1::GetReportResponse& report, const std::string& name);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_REPORT_WORDS_H_
