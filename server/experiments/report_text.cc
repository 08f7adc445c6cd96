// Tables of text.

#include "server/experiments/report_text.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/experiments/report_words.h"

namespace swaa::server {
namespace {

// Columns as wide as their widest cell; the first is aligned left, the others right.
class Table {
 public:
  explicit Table(std::vector<std::string> header) { Add(std::move(header)); }
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

  std::string Text() const {
    std::vector<size_t> widths;
    for (const auto& row : rows_) {
      widths.resize(std::max(widths.size(), row.size()));
      for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
    std::string text;
    for (const auto& row : rows_) {
      std::string line = " ";
      for (size_t i = 0; i < row.size(); ++i) {
        const std::string padding(widths[i] - row[i].size(), ' ');
        absl::StrAppend(&line, " ", i == 0 ? row[i] + padding : padding + row[i], " ");
      }
      line.erase(line.find_last_not_of(' ') + 1);
      absl::StrAppend(&text, line, "\n");
    }
    return text;
  }

 private:
  std::vector<std::vector<std::string>> rows_;
};

// Broken between words so that lines have at most 100 bytes.
std::string Wrapped(const std::string& text, const std::string& first, const std::string& next) {
  std::string out;
  std::string line = first;
  size_t begin = 0;
  bool empty = true;
  while (begin < text.size()) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    if (!empty && line.size() + 1 + word.size() > 100) {
      absl::StrAppend(&out, line, "\n");
      line = next;
      empty = true;
    }
    absl::StrAppend(&line, empty ? "" : " ", word);
    empty = false;
    begin = end + 1;
  }
  return absl::StrCat(out, line, "\n");
}

void AppendHead(const v1::GetReportResponse& report, std::string* out) {
  const v1::ExperimentStatus& status = report.status();
  const v1::Experiment& experiment = status.experiment();
  absl::StrAppendFormat(out, "Experiment %s, revision %016x: %s\n", experiment.id(),
                        status.revision(), StateInWords(status.state()));
  absl::StrAppendFormat(
      out, "First unit %s, report %s, %s, control %s, from %s\n\n",
      TimeInWords(report.first_exposure_time()), TimeInWords(report.report_time()),
      experiment.design() == v1::EXPERIMENT_DESIGN_SWITCHBACK ? "a switchback" : "arms by unit",
      experiment.control_arm(), absl::StrJoin(report.instance_ids(), ", "));
}

void AppendSampleRatio(const v1::GetReportResponse& report, std::string* out) {
  const v1::SampleRatioCheck& check = report.sample_ratio_check();
  absl::StrAppend(out, "SAMPLE RATIO\n", Wrapped(SampleRatioInWords(report), "  ", "  "));
  if (check.observed_units().empty()) return;
  Table table({"arm", "units", "expected"});
  for (int arm = 0; arm < check.observed_units_size(); ++arm) {
    table.Add({report.arms(arm).arm(), CountInWords(check.observed_units(arm)),
               absl::StrFormat("%.1f", check.expected_units(arm))});
  }
  absl::StrAppend(out, table.Text());
}

void AppendWarnings(const v1::GetReportResponse& report, std::string* out) {
  if (report.warnings().empty()) return;
  absl::StrAppend(out, "\nWARNINGS\n");
  for (const std::string& warning : report.warnings()) {
    absl::StrAppend(out, Wrapped(warning, "  * ", "    "));
  }
}

void AppendComparisons(const v1::GetReportResponse& report, std::string* out) {
  absl::StrAppend(out, "\nCOMPARED WITH ", report.status().experiment().control_arm(), "\n");
  std::string metric;
  for (const v1::Comparison& comparison : report.comparisons()) {
    if (comparison.metric() != metric) {
      metric = comparison.metric();
      absl::StrAppend(out, "  ", metric, " (", DirectionInWords(report, comparison), ")\n");
    }
    absl::StrAppend(out, "    ", comparison.arm(), ", ",
                    PopulationInWords(comparison.triggered_only()), ": ", EffectInWords(comparison),
                    " -> ", VerdictInWords(comparison), "\n");
    absl::StrAppendFormat(out, "        %s, p %.2g", IntervalInWords(comparison),
                          comparison.p_value());
    if (comparison.role() == v1::METRIC_ROLE_GOAL) {
      absl::StrAppendFormat(out, ", corrected %.2g", comparison.adjusted_p_value());
    }
    absl::StrAppend(out, "\n");
  }
}

void AppendEffectsByUnitAge(const v1::GetReportResponse& report, std::string* out) {
  if (report.effects_by_unit_age().empty()) return;
  Table table({"metric", "arm", "since a unit's first request", "effect", "interval"});
  for (const v1::Comparison& effect : report.effects_by_unit_age()) {
    table.Add({effect.metric(), effect.arm(), UnitAgeInWords(effect), EffectInWords(effect),
               IntervalInWords(effect)});
  }
  absl::StrAppend(out, "\nBY HOW LONG UNITS HAVE HAD THEIR ARM (what fades was novelty)\n",
                  table.Text());
}

void AppendSpeedups(const v1::GetReportResponse& report, std::string* out) {
  if (report.speedups().empty()) return;
  absl::StrAppend(out, "\nHOW MANY TIMES LESS THAN ", report.status().experiment().control_arm(),
                  " (below 1: more)\n");
  std::set<std::string> kinds;
  for (const v1::Speedup& speedup : report.speedups()) {
    absl::StrAppend(out, "  ", speedup.arm(), ", ", speedup.kind(), " ", speedup.metric(), ": ",
                    SpeedupRatioInWords(speedup), ", ", CountInWords(speedup.samples()), " ",
                    speedup.kind() == "switchback" ? "pairs" : "requests", "\n");
    kinds.insert(speedup.kind());
  }
  for (const std::string& kind : kinds) {
    const SpeedupWords words = SpeedupInWords(kind);
    absl::StrAppend(
        out, Wrapped(absl::StrCat(kind, ": ", words.question, " Believe it: ", words.trust, "."),
                     "  ", "    "));
  }
}

void AppendArms(const v1::GetReportResponse& report, std::string* out) {
  Table table({"arm", "recipe", "units", "requests", "since trigger", "device seconds",
               "keys of full attention's", "peak KV", "cached", "preemptions"});
  for (const v1::ArmReport& arm : report.arms()) {
    const double full = arm.full_attention_attended_keys();
    table.Add({arm.arm(), arm.recipe_name(), CountInWords(arm.units()),
               CountInWords(arm.requests()), CountInWords(arm.triggered_requests()),
               absl::StrFormat("%.1f", arm.device_seconds()),
               full > 0 ? PercentInWords(arm.attended_keys() / full) : "-",
               BytesInWords(arm.mean_peak_kv_cache_bytes()),
               PercentInWords(arm.cached_prompt_ratio()), NumberInWords(arm.preemptions())});
  }
  absl::StrAppend(out, "\nARMS\n", table.Text());
}

void AppendLatencies(const v1::GetReportResponse& report, std::string* out) {
  const std::vector<LatencyRow> rows = LatencyRows(report);
  if (rows.empty()) return;
  std::vector<std::string> header = {"latency", "prompts", "arm"};
  for (const std::string& name : QuantileNames(rows)) header.push_back(name);
  header.push_back("requests");
  Table table(header);
  for (const LatencyRow& row : rows) {
    std::vector<std::string> cells = {row.metric, row.prompts, row.arm};
    for (const v1::LatencyQuantile& quantile : row.quantiles) {
      cells.push_back(quantile.has_seconds() ? SecondsInWords(quantile.seconds()) : "too few");
    }
    cells.push_back(CountInWords(row.requests));
    table.Add(cells);
  }
  absl::StrAppend(out, "\nLATENCIES\n", table.Text());
}

void AppendAgreements(const v1::GetReportResponse& report, std::string* out) {
  if (report.shadow_agreements().empty()) return;
  Table table({"arm", "answered by", "requests", "tokens", "mean ln p less", "same choice",
               "first other choice", "KV bytes less"});
  for (const v1::ShadowAgreement& agreement : report.shadow_agreements()) {
    table.Add({agreement.arm(), agreement.answered_by_arm(), CountInWords(agreement.requests()),
               CountInWords(agreement.tokens()),
               absl::StrFormat("%.4f", agreement.mean_logprob_difference()),
               PercentInWords(agreement.equal_argmax_ratio()),
               absl::StrFormat("token %.1f", agreement.mean_first_divergence()),
               absl::StrFormat("%.3g times", agreement.kv_cache_bytes_ratio())});
  }
  absl::StrAppend(out, "\nREPLAYED UNDER BOTH RECIPES\n", table.Text());
}

}  // namespace

std::string ReportText(const v1::GetReportResponse& report) {
  std::string text;
  AppendHead(report, &text);
  AppendSampleRatio(report, &text);
  AppendWarnings(report, &text);
  AppendComparisons(report, &text);
  AppendEffectsByUnitAge(report, &text);
  AppendSpeedups(report, &text);
  AppendArms(report, &text);
  AppendLatencies(report, &text);
  AppendAgreements(report, &text);
  return text;
}

}  // namespace swaa::server
