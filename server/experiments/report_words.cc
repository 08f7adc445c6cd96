// Figures in words.

#include "server/experiments/report_words.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "server/experiments/experiment_data.h"
#include "server/experiments/metric_names.h"

namespace swaa::server {
namespace {

bool IsSeconds(const std::string& metric) { return metric.ends_with("_seconds"); }

// A difference with its direction in words, not in its sign.
std::string WithDirection(const std::string& size, double difference) {
  if (difference == 0) return "no difference";
  return absl::StrCat(size, difference < 0 ? " less" : " more");
}

}  // namespace

std::string CountInWords(uint64_t count) {
  std::string digits = absl::StrCat(count);
  for (int place = static_cast<int>(digits.size()) - 3; place > 0; place -= 3) {
    digits.insert(static_cast<size_t>(place), 1, ',');
  }
  return digits;
}

std::string TimeInWords(const google::protobuf::Timestamp& time) {
  if (time.seconds() == 0) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M UTC", absl::FromUnixSeconds(time.seconds()),
                          absl::UTCTimeZone());
}

std::string NumberInWords(double value) { return absl::StrFormat("%.3g", value); }

std::string SecondsInWords(double seconds) {
  if (std::isinf(seconds)) return "never";
  if (seconds < 0.9995) return absl::StrFormat("%.3g ms", 1000 * seconds);
  return seconds < 1000 ? absl::StrFormat("%.3g s", seconds) : absl::StrFormat("%.0f s", seconds);
}

std::string BytesInWords(double bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  for (; bytes >= 1024 && unit < 4; ++unit) bytes /= 1024;
  return absl::StrFormat("%.3g %s", bytes, kUnits[unit]);
}

std::string PercentInWords(double share) { return absl::StrFormat("%.3g %%", 100 * share); }

std::string StateInWords(v1::ExperimentState state) {
  switch (state) {
    case v1::EXPERIMENT_STATE_SCHEDULED:
      return "scheduled";
    case v1::EXPERIMENT_STATE_RUNNING:
      return "running";
    case v1::EXPERIMENT_STATE_STOPPED:
      return "stopped";
    case v1::EXPERIMENT_STATE_ENDED:
      return "ended";
    default:
      return "unknown";
  }
}

std::string EffectInWords(const v1::Comparison& comparison) {
  const double effect = comparison.effect();
  if (!std::isfinite(comparison.upper())) return "not known yet";
  switch (comparison.scale()) {
    case v1::METRIC_SCALE_LOG_MEAN:
      if (effect > 2) return absl::StrFormat("%.3g times as much", effect);
      return WithDirection(PercentInWords(std::abs(effect - 1)), effect - 1);
    case v1::METRIC_SCALE_RATE:
      return WithDirection(absl::StrFormat("%.3g points", 100 * std::abs(effect)), effect);
    default:
      return WithDirection(NumberInWords(std::abs(effect)), effect);
  }
}

std::string IntervalInWords(const v1::Comparison& comparison) {
  if (!std::isfinite(comparison.lower()) || !std::isfinite(comparison.upper())) {
    return "no interval yet";
  }
  switch (comparison.scale()) {
    case v1::METRIC_SCALE_LOG_MEAN:
      return absl::StrFormat("ratio %.3g, interval %.3g to %.3g", comparison.effect(),
                             comparison.lower(), comparison.upper());
    case v1::METRIC_SCALE_RATE:
      return absl::StrFormat("%+.3g points, interval %+.3g to %+.3g", 100 * comparison.effect(),
                             100 * comparison.lower(), 100 * comparison.upper());
    default:
      return absl::StrFormat("%+.3g, interval %+.3g to %+.3g", comparison.effect(),
                             comparison.lower(), comparison.upper());
  }
}

std::string VerdictInWords(const v1::Comparison& comparison) {
  const bool guardrail = comparison.role() == v1::METRIC_ROLE_GUARDRAIL;
  const std::string further =
      comparison.has_further_units() && comparison.further_units() > 0
          ? absl::StrCat(": about ", CountInWords(comparison.further_units()),
                         " more would tell a difference that matters")
          : "";
  switch (comparison.verdict()) {
    case v1::VERDICT_BETTER:
      return "better";
    case v1::VERDICT_WORSE:
      return guardrail ? "worse than allowed" : "worse";
    case v1::VERDICT_UNDECIDED:
      if (guardrail) return "no harm shown";
      return further.empty() ? "undecided: no difference that matters has shown itself"
                             : absl::StrCat("undecided", further);
    case v1::VERDICT_TOO_FEW_UNITS:
      return absl::StrCat("too few yet", further);
    case v1::VERDICT_NOT_TO_BE_TRUSTED:
      return "no verdict: see the warnings";
    default:
      return "no verdict";
  }
}

std::string DirectionInWords(const v1::GetReportResponse& report,
                             const v1::Comparison& comparison) {
  if (comparison.role() == v1::METRIC_ROLE_INFORMATION) return "for information";
  return absl::StrCat(comparison.role() == v1::METRIC_ROLE_GOAL ? "goal" : "guardrail", ", ",
                      MetricOf(report, comparison.metric()).higher_is_better() ? "more" : "less",
                      " is better");
}

std::string PopulationInWords(bool triggered_only) {
  return triggered_only ? "triggered requests" : "all requests";
}

std::string UnitAgeInWords(const v1::Comparison& comparison) {
  if (comparison.unit_age() == kUnitAgeNames[0]) return "the first day";
  return comparison.unit_age() == kUnitAgeNames[1] ? "days 2 to 7" : "after a week";
}

std::string EstimateInWords(const v1::MetricEstimate& estimate, v1::MetricScale scale) {
  if (scale == v1::METRIC_SCALE_RATE) return PercentInWords(estimate.value());
  if (IsSeconds(estimate.metric())) return SecondsInWords(estimate.value());
  if (estimate.metric().ends_with("_bytes")) return BytesInWords(estimate.value());
  return NumberInWords(estimate.value());
}

SpeedupWords SpeedupInWords(const std::string& kind) {
  if (kind == "counted") {
    return {"How much less attention work is there?", "always: it is counted, not measured"};
  }
  if (kind == "attributed") {
    return {"How much less of the device does a request cost (capacity, money)?",
            "while swaa_step_model_error_ratio is below 0.1"};
  }
  if (kind == "shadow") {
    return {"How much faster is it alone, on an idle device?",
            "the same requests, replayed under both recipes"};
  }
  if (kind == "switchback") {
    return {"How much faster will users be served if all switch, at this load?",
            "from 12 pairs of windows; not near saturation"};
  }
  return {"How much faster is one user served who switches alone today?",
          "shared batch: never a verdict on the recipe, in sign or size"};
}

std::string SpeedupRatioInWords(const v1::Speedup& speedup) {
  const bool known = std::isfinite(speedup.upper()) && speedup.lower() > 0;
  const std::string interval =
      known ? absl::StrFormat("%.3g to %.3g", speedup.lower(), speedup.upper()) : "no interval yet";
  return absl::StrFormat("%.3g (%s)", speedup.ratio(), interval);
}

std::vector<LatencyRow> LatencyRows(const v1::GetReportResponse& report) {
  std::vector<LatencyRow> rows;
  for (const v1::ArmReport& arm : report.arms()) {
    for (const v1::LatencyQuantile& quantile : arm.latencies()) {
      const std::string prompts = quantile.prompt_len().empty() ? "all" : quantile.prompt_len();
      if (rows.empty() || rows.back().arm != arm.arm() || rows.back().prompts != prompts ||
          rows.back().metric != quantile.metric()) {
        rows.push_back({quantile.metric(), prompts, arm.arm(), quantile.requests(), {}});
      }
      rows.back().quantiles.push_back(quantile);
    }
  }
  const auto place = [](const std::string& metric, const std::string& prompts) {
    const std::vector<std::string> metrics(std::begin(kSketchedMetrics),
                                           std::end(kSketchedMetrics));
    const std::vector<std::string> lengths = {"all", "le_2k", "le_8k", "le_32k", "le_128k"};
    return std::pair(std::find(metrics.begin(), metrics.end(), metric) - metrics.begin(),
                     std::find(lengths.begin(), lengths.end(), prompts) - lengths.begin());
  };
  std::stable_sort(rows.begin(), rows.end(), [&](const LatencyRow& a, const LatencyRow& b) {
    return place(a.metric, a.prompts) < place(b.metric, b.prompts);
  });
  return rows;
}

std::vector<std::string> QuantileNames(const std::vector<LatencyRow>& rows) {
  std::vector<std::string> names;
  if (rows.empty()) return names;
  for (const v1::LatencyQuantile& quantile : rows.front().quantiles) {
    names.push_back(absl::StrFormat("p%.4g", 100 * quantile.quantile()));
  }
  return names;
}

std::string SampleRatioInWords(const v1::GetReportResponse& report) {
  const v1::SampleRatioCheck& check = report.sample_ratio_check();
  if (check.observed_units().empty()) {
    return "A switchback's units meet both arms, so there is no ratio to check.";
  }
  const std::string figures =
      absl::StrFormat("p = %.2g at all times; chi-squared for a single look: p = %.2g",
                      check.p_value(), check.chi_squared_p_value());
  if (check.mismatch()) {
    return absl::StrCat("MISMATCH: units did not fall into the arms as they should have (", figures,
                        "). Nothing below can be trusted.");
  }
  return absl::StrCat("Fits: units fell into the arms as they should have (", figures, ").");
}

v1::ExperimentMetric MetricOf(const v1::GetReportResponse& report, const std::string& name) {
  for (const v1::ExperimentMetric& metric : report.status().experiment().metrics()) {
    if (metric.name() == name) return metric;
  }
  v1::ExperimentMetric metric;
  metric.set_name(name);
  const ServerMetric* measured = FindServerMetric(name);
  metric.set_scale(measured == nullptr ? v1::METRIC_SCALE_MEAN : measured->scale);
  return metric;
}

}  // namespace swaa::server
