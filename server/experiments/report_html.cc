// The page's parts in the order in which they should be read.

#include "server/experiments/report_html.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/experiments/report_plot.h"
#include "server/experiments/report_words.h"

namespace swaa::server {
namespace {

constexpr char kStyle[] = R"(
:root{--ink:#1c2330;--soft:#5a6472;--line:#d9dee5;--card:#fff;--page:#f4f6f9;--good:#0b7a53;
--bad:#b3261e;--open:#5b6675;--note:#8a5a00;--band:#e8edf5}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#a3adba;--line:#39424f;--card:#1d232c;
--page:#14181f;--good:#4cc38a;--bad:#ff8078;--open:#a3adba;--note:#f0b429;--band:#2a3340}}
body{margin:0 auto;padding:24px;max-width:1080px;font:15px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--page)}
h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:0 0 8px}h3{font-size:15px;margin:16px 0 2px}
section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:16px 20px;
margin:16px 0;overflow-x:auto}
p{margin:4px 0 8px}.soft{color:var(--soft)}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:4px 10px 4px 0;vertical-align:middle;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--soft);font-size:13px}td.n,th.n{text-align:right;white-space:nowrap;
font-variant-numeric:tabular-nums}tr.axis td{border:0;padding-top:0}
.better{color:var(--good)}.worse{color:var(--bad)}.open{color:var(--open)}.untrusted{color:var(--note)}
b.better:before{content:"\25B2\a0"}b.worse:before{content:"\25BC\a0"}
b.untrusted:before{content:"\26A0\a0"}table.forest{table-layout:fixed}
table.forest td:first-child{width:150px}table.forest td:nth-child(2){width:350px}
.warning{border-left:6px solid var(--note)}.alarm{border-left:6px solid var(--bad)}
.fits{border-left:6px solid var(--good)}
svg{display:block}svg .grid{stroke:var(--line)}svg .neutral{stroke:var(--ink);stroke-dasharray:3 2}
svg .band{fill:var(--band)}svg .interval{stroke:currentColor;stroke-width:2}
svg .mark,svg .arrow{fill:currentColor}svg.axis text{font-size:11px;fill:var(--soft)}
svg.untrusted .interval{stroke-dasharray:4 3}
)";

const char* ClassOf(v1::Verdict verdict) {
  switch (verdict) {
    case v1::VERDICT_BETTER:
      return "better";
    case v1::VERDICT_WORSE:
      return "worse";
    case v1::VERDICT_NOT_TO_BE_TRUSTED:
      return "untrusted";
    default:
      return "open";
  }
}

std::string Cell(const std::string& text, bool number = false) {
  return absl::StrCat(number ? "<td class=\"n\">" : "<td>", HtmlEscape(text), "</td>");
}

// The first `words` columns are text, the others numbers.
std::string HeaderRow(const std::vector<std::string>& names, size_t words) {
  std::string row = "<tr>";
  for (size_t i = 0; i < names.size(); ++i) {
    absl::StrAppend(&row, i < words ? "<th>" : "<th class=\"n\">", HtmlEscape(names[i]), "</th>");
  }
  return row + "</tr>\n";
}

std::string Row(const std::vector<std::string>& cells, size_t words) {
  std::string row = "<tr>";
  for (size_t i = 0; i < cells.size(); ++i) absl::StrAppend(&row, Cell(cells[i], i >= words));
  return row + "</tr>\n";
}

std::string Head(const v1::GetReportResponse& report) {
  const v1::ExperimentStatus& status = report.status();
  const v1::Experiment& experiment = status.experiment();
  const bool switchback = experiment.design() == v1::EXPERIMENT_DESIGN_SWITCHBACK;
  return absl::StrFormat(
      "<h1>Experiment %s</h1>\n<p class=\"soft\">%s &middot; %s &middot; control %s &middot; first "
      "unit %s &middot; report %s &middot; revision %016x &middot; from %s</p>\n",
      HtmlEscape(experiment.id()), StateInWords(status.state()),
      switchback ? "switchback: all traffic has one arm at a time" : "every unit keeps its arm",
      HtmlEscape(experiment.control_arm()), TimeInWords(report.first_exposure_time()),
      TimeInWords(report.report_time()), status.revision(),
      HtmlEscape(absl::StrJoin(report.instance_ids(), ", ")));
}

std::string SampleRatio(const v1::GetReportResponse& report) {
  const v1::SampleRatioCheck& check = report.sample_ratio_check();
  std::string html =
      absl::StrCat("<section class=\"", check.mismatch() ? "alarm" : "fits",
                   "\"><h2>Sample ratio</h2><p>", HtmlEscape(SampleRatioInWords(report)), "</p>");
  if (!check.observed_units().empty()) {
    absl::StrAppend(&html, "<table>", HeaderRow({"arm", "units", "expected"}, 1));
    for (int arm = 0; arm < check.observed_units_size(); ++arm) {
      absl::StrAppend(&html, Row({report.arms(arm).arm(), CountInWords(check.observed_units(arm)),
                                  absl::StrFormat("%.1f", check.expected_units(arm))},
                                 1));
    }
    absl::StrAppend(&html, "</table>");
  }
  return html + "</section>\n";
}

std::string Warnings(const v1::GetReportResponse& report) {
  if (report.warnings().empty()) return "";
  std::string html = "<section class=\"warning\"><h2>Before you believe it</h2><ul>";
  for (const std::string& warning : report.warnings()) {
    absl::StrAppend(&html, "<li>", HtmlEscape(warning), "</li>");
  }
  return html + "</ul></section>\n";
}

PlotInterval IntervalOf(const v1::Comparison& comparison) {
  return {comparison.lower(), comparison.effect(), comparison.upper(),
          ClassOf(comparison.verdict())};
}

IntervalPlot PlotOf(const v1::GetReportResponse& report, const std::string& metric) {
  std::vector<PlotInterval> intervals;
  PlotScale scale = PlotScale::kLinear;
  for (const v1::Comparison& comparison : report.comparisons()) {
    if (comparison.metric() != metric) continue;
    intervals.push_back(IntervalOf(comparison));
    if (comparison.scale() == v1::METRIC_SCALE_LOG_MEAN) scale = PlotScale::kRatio;
    if (comparison.scale() == v1::METRIC_SCALE_RATE) scale = PlotScale::kShare;
  }
  return IntervalPlot(scale, scale == PlotScale::kRatio ? 1 : 0,
                      MetricOf(report, metric).minimum_detectable_effect(), intervals);
}

std::string ComparisonRow(const v1::Comparison& comparison, const IntervalPlot& plot) {
  const bool goal = comparison.role() == v1::METRIC_ROLE_GOAL;
  std::string p_value = absl::StrFormat("p %.2g", comparison.p_value());
  if (goal) absl::StrAppendFormat(&p_value, ", corrected %.2g", comparison.adjusted_p_value());
  return absl::StrFormat(
      "<tr><td>%s<br><span class=\"soft\">%s</span></td><td class=\"%s\">%s</td><td><b "
      "class=\"%s\">%s</b><br>%s<br><span class=\"soft\">%s; %s</span></td></tr>\n",
      HtmlEscape(comparison.arm()), PopulationInWords(comparison.triggered_only()),
      ClassOf(comparison.verdict()), plot.Row(IntervalOf(comparison)),
      ClassOf(comparison.verdict()), HtmlEscape(VerdictInWords(comparison)),
      HtmlEscape(EffectInWords(comparison)), HtmlEscape(IntervalInWords(comparison)), p_value);
}

std::string Comparisons(const v1::GetReportResponse& report) {
  std::string html = absl::StrCat(
      "<section><h2>Compared with ", HtmlEscape(report.status().experiment().control_arm()),
      "</h2><p class=\"soft\">The dot is the difference that was seen, the line is where the true "
      "one lies, however often this page was looked at. A line that crosses the dashed one leaves "
      "open whether there is a difference. The grey band holds differences too small to "
      "matter.</p>\n");
  std::string metric;
  const auto close = [&] {
    if (metric.empty()) return;
    absl::StrAppend(&html, "<tr class=\"axis\"><td></td><td>", PlotOf(report, metric).Axis(),
                    "</td><td></td></tr></table>\n");
  };
  for (const v1::Comparison& comparison : report.comparisons()) {
    if (comparison.metric() != metric) {
      close();
      metric = comparison.metric();
      absl::StrAppend(&html, "<h3>", HtmlEscape(metric), " <span class=\"soft\">",
                      DirectionInWords(report, comparison),
                      "</span></h3><table class=\"forest\">\n");
    }
    absl::StrAppend(&html, ComparisonRow(comparison, PlotOf(report, metric)));
  }
  close();
  return html + "</section>\n";
}

std::string EffectsByUnitAge(const v1::GetReportResponse& report) {
  if (report.effects_by_unit_age().empty()) return "";
  std::string html = absl::StrCat(
      "<section><h2>By how long units have had their arm</h2><p class=\"soft\">What is new pleases "
      "or annoys for a while. An effect that fades from the first day to later ones was novelty; "
      "only what is left after a week is the arm's.</p><table>",
      HeaderRow({"metric", "arm", "since a unit's first request", "effect", "interval"}, 5));
  for (const v1::Comparison& effect : report.effects_by_unit_age()) {
    absl::StrAppend(&html, Row({effect.metric(), effect.arm(), UnitAgeInWords(effect),
                                EffectInWords(effect), IntervalInWords(effect)},
                               5));
  }
  return html + "</table></section>\n";
}

std::string Speedups(const v1::GetReportResponse& report) {
  if (report.speedups().empty()) return "";
  std::vector<PlotInterval> intervals;
  const auto interval_of = [](const v1::Speedup& speedup) {
    return PlotInterval{speedup.lower(), speedup.ratio(), speedup.upper(),
                        speedup.kind() == "observed" ? "untrusted" : "open"};
  };
  for (const v1::Speedup& speedup : report.speedups()) intervals.push_back(interval_of(speedup));
  const IntervalPlot plot(PlotScale::kRatio, 1, 0, intervals);
  std::string html = absl::StrCat(
      "<section><h2>How many times less than ",
      HtmlEscape(report.status().experiment().control_arm()),
      "</h2><p class=\"soft\">Right of the dashed line is less time or work than control's. Each "
      "kind answers another question, so they need not agree.</p><table>",
      HeaderRow({"arm", "kind", "of what", "", "times less", "samples"}, 4));
  std::set<std::string> kinds;
  for (const v1::Speedup& speedup : report.speedups()) {
    const PlotInterval interval = interval_of(speedup);
    const char* samples = speedup.kind() == "switchback" ? " pairs" : " requests";
    absl::StrAppend(&html, "<tr>", Cell(speedup.arm()), Cell(speedup.kind()),
                    Cell(speedup.metric()), "<td class=\"", interval.css_class, "\">",
                    plot.Row(interval), "</td>", Cell(SpeedupRatioInWords(speedup), true),
                    Cell(absl::StrCat(CountInWords(speedup.samples()), samples), true), "</tr>\n");
    kinds.insert(speedup.kind());
  }
  absl::StrAppend(&html, "<tr class=\"axis\"><td></td><td></td><td></td><td>", plot.Axis(),
                  "</td><td></td><td></td></tr></table><ul>");
  for (const std::string& kind : kinds) {
    const SpeedupWords words = SpeedupInWords(kind);
    absl::StrAppend(&html, "<li><b>", HtmlEscape(kind), "</b> &ndash; ", HtmlEscape(words.question),
                    " <span class=\"soft\">Believe it: ", HtmlEscape(words.trust), ".</span></li>");
  }
  return html + "</ul></section>\n";
}

std::string Arms(const v1::GetReportResponse& report) {
  std::string html = absl::StrCat(
      "<section><h2>Arms</h2><table>",
      HeaderRow({"arm", "recipe", "units", "requests", "since trigger", "device seconds",
                 "keys of full attention's", "mean peak KV", "prompt cached", "preemptions"},
                2));
  for (const v1::ArmReport& arm : report.arms()) {
    const double full = arm.full_attention_attended_keys();
    absl::StrAppend(
        &html,
        Row({arm.arm(), arm.recipe_name(), CountInWords(arm.units()), CountInWords(arm.requests()),
             CountInWords(arm.triggered_requests()), absl::StrFormat("%.1f", arm.device_seconds()),
             full > 0 ? PercentInWords(arm.attended_keys() / full) : "-",
             BytesInWords(arm.mean_peak_kv_cache_bytes()),
             PercentInWords(arm.cached_prompt_ratio()), NumberInWords(arm.preemptions())},
            2));
  }
  absl::StrAppend(&html, "</table><h3>Means</h3><table>",
                  HeaderRow({"metric", "arm", "of", "value", "requests", "units"}, 3));
  for (const v1::ArmReport& arm : report.arms()) {
    for (const v1::MetricEstimate& estimate : arm.metrics()) {
      const v1::MetricScale scale = MetricOf(report, estimate.metric()).scale();
      absl::StrAppend(
          &html, Row({estimate.metric(), arm.arm(), PopulationInWords(estimate.triggered_only()),
                      EstimateInWords(estimate, scale), CountInWords(estimate.requests()),
                      CountInWords(estimate.units())},
                     3));
    }
  }
  return html + "</table></section>\n";
}

// "1.2 s (1.1 to 1.3)".
std::string QuantileInWords(const v1::LatencyQuantile& quantile) {
  if (!quantile.has_seconds()) return "too few";
  return absl::StrCat(SecondsInWords(quantile.seconds()), " (", SecondsInWords(quantile.lower()),
                      " to ", SecondsInWords(quantile.upper()), ")");
}

std::string Latencies(const v1::GetReportResponse& report) {
  const std::vector<LatencyRow> rows = LatencyRows(report);
  if (rows.empty()) return "";
  std::vector<std::string> header = {"latency", "prompt tokens", "arm"};
  for (const std::string& name : QuantileNames(rows)) header.push_back(name);
  header.push_back("requests");
  std::string html = absl::StrCat(
      "<section><h2>Latencies</h2><p class=\"soft\">Half of the requests were faster than p50, one "
      "in a hundred slower than p99; in brackets where that lies with 95 % for a single look. A "
      "request that failed before its first token counts as never served.</p><table>",
      HeaderRow(header, 3));
  for (const LatencyRow& row : rows) {
    std::vector<std::string> cells = {row.metric, row.prompts, row.arm};
    for (const v1::LatencyQuantile& quantile : row.quantiles) {
      cells.push_back(QuantileInWords(quantile));
    }
    cells.push_back(CountInWords(row.requests));
    absl::StrAppend(&html, Row(cells, 3));
  }
  return html + "</table></section>\n";
}

std::string Agreements(const v1::GetReportResponse& report) {
  if (report.shadow_agreements().empty()) return "";
  std::string html = absl::StrCat(
      "<section><h2>The same requests under both recipes</h2><p class=\"soft\">Answers were scored "
      "again, token by token, under the arm's recipe and under control's. Each answer favours the "
      "recipe that wrote it, so look at both directions.</p><table>",
      HeaderRow({"arm", "answered by", "requests", "tokens", "ln probability lost a token",
                 "same choice", "first other choice", "KV bytes"},
                2));
  for (const v1::ShadowAgreement& agreement : report.shadow_agreements()) {
    absl::StrAppend(&html,
                    Row({agreement.arm(), agreement.answered_by_arm(),
                         CountInWords(agreement.requests()), CountInWords(agreement.tokens()),
                         absl::StrFormat("%.4f", agreement.mean_logprob_difference()),
                         PercentInWords(agreement.equal_argmax_ratio()),
                         absl::StrFormat("token %.1f", agreement.mean_first_divergence()),
                         absl::StrFormat("%.3g times less", agreement.kv_cache_bytes_ratio())},
                        2));
  }
  return html + "</table></section>\n";
}

constexpr char kHowToRead[] =
    "<section><h2>How to read this</h2><p><b>Units</b> are users or conversations: each keeps one "
    "arm. Intervals count units, not requests, so a user who comes back often weighs no more than "
    "is right.</p><p><b>Intervals</b> hold however often one looks, so an experiment may be ended "
    "as soon as a goal is decided. Those of goals are corrected for the number of goals and "
    "arms.</p><p><b>Triggered requests</b> are long enough that the recipes compute differently, "
    "with all that their units sent later. All others are the same in every arm and only dilute "
    "a difference.</p><p><b>Guardrails</b> only ask whether an arm does more harm than allowed; "
    "\"no harm shown\" does not mean that there is none.</p></section>\n";

}  // namespace

std::string ReportHtml(const v1::GetReportResponse& report) {
  return absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><title>Experiment ",
      HtmlEscape(report.status().experiment().id()), "</title><style>", kStyle,
      "</style></head><body>\n", Head(report), SampleRatio(report), Warnings(report),
      Comparisons(report), EffectsByUnitAge(report), Speedups(report), Arms(report),
      Latencies(report), Agreements(report), kHowToRead, "</body></html>\n");
}

}  // namespace swaa::server
