// Bench: the results as a table.

#include "tools/bench/report.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace swaa::tools::bench {
namespace {

constexpr int kNameWidth = 34;
constexpr int kLeastColumnWidth = 11;

std::string Number(double value) {
  return absl::StrFormat(value != 0 && value < 10 ? "%.2f" : "%.1f", value);
}

std::string Optional(const std::optional<double>& value) { return value ? Number(*value) : "-"; }

// The table's columns: all requests, then each arm.
class Table {
 public:
  explicit Table(const Report& report) : report_(report) {}

  // A row of figures.
  void Row(const std::string& name, const std::function<std::string(const Summary&)>& cell) {
    Begin(name);
    Cell(cell(report_.overall), "all");
    for (const ArmReport& arm : report_.arms) Cell(cell(arm.summary), arm.label);
    text_ += "\n";
  }

  // In seconds where most of it takes longer than one, else in milliseconds.
  void Latency(const std::string& name, Distribution Summary::*field, bool with_p90 = true) {
    const bool seconds = (report_.overall.*field).median >= 1000;
    const auto row = [&](const std::string& which, double Distribution::*value) {
      Row(absl::StrCat(name, seconds ? " s " : " ms ", which), [&](const Summary& summary) {
        const Distribution& distribution = summary.*field;
        if (distribution.count == 0) return std::string("-");
        return Number(distribution.*value / (seconds ? 1000 : 1));
      });
    };
    row("mean", &Distribution::mean);
    row("median", &Distribution::median);
    if (with_p90) row("p90", &Distribution::p90);
    row("p99", &Distribution::p99);
  }

  // A row of ratios to the full-attention arm.
  void Faster(const std::string& name, std::optional<double> Speedup::*field) {
    Begin(name);
    Cell("", "all");
    for (const ArmReport& arm : report_.arms) {
      Cell(arm.speedup ? Optional((*arm.speedup).*field) : "-", arm.label);
    }
    text_ += "\n";
  }

  void Header() {
    Begin("");
    Cell("all", "all");
    for (const ArmReport& arm : report_.arms) Cell(arm.label, arm.label);
    text_ += "\n";
  }

  void Line(const std::string& line) { absl::StrAppend(&text_, line, "\n"); }
  const std::string& text() const { return text_; }

 private:
  void Begin(const std::string& name) {
    absl::StrAppend(&text_, absl::StrFormat("%-*s", kNameWidth, name.c_str()));
  }
  void Cell(const std::string& value, const std::string& label) {
    const int width = std::max(kLeastColumnWidth, static_cast<int>(label.size()) + 2);
    absl::StrAppend(&text_, absl::StrFormat("%*s", width, value.c_str()));
  }

  const Report& report_;
  std::string text_;
};

void AddThroughput(const Report& report, Table* table) {
  table->Row("requests completed", [](const Summary& s) { return absl::StrCat(s.completed); });
  table->Row("requests failed",
             [](const Summary& s) { return absl::StrCat(s.sent - s.completed); });
  table->Row("input tokens", [](const Summary& s) { return absl::StrCat(s.total_input_tokens); });
  table->Row("  of them from the prefix cache",
             [](const Summary& s) { return absl::StrCat(s.cached_input_tokens); });
  table->Row("output tokens", [](const Summary& s) { return absl::StrCat(s.total_output_tokens); });
  table->Row("requests/s", [](const Summary& s) { return Number(s.request_throughput); });
  if (report.overall.request_goodput) {
    table->Row("good requests/s", [](const Summary& s) { return Optional(s.request_goodput); });
  }
  table->Row("output tokens/s", [](const Summary& s) { return Number(s.output_throughput); });
  table->Row("all tokens/s", [](const Summary& s) { return Number(s.total_token_throughput); });
}

void AddServerFigures(Table* table) {
  table->Latency("queue", &Summary::queue_ms, false);
  table->Row("peak KV MB, mean", [](const Summary& s) { return Number(s.peak_kv_mb.mean); });
  table->Row("  under full attention",
             [](const Summary& s) { return Number(s.full_attention_kv_mb.mean); });
  table->Row("keys attended, % of full", [](const Summary& s) {
    if (s.full_attention_attended_keys == 0) return std::string("-");
    return Number(100 * static_cast<double>(s.attended_keys) /
                  static_cast<double>(s.full_attention_attended_keys));
  });
  table->Row("preemptions", [](const Summary& s) { return absl::StrCat(s.preemptions); });
}

void AddFailures(const Report& report, Table* table) {
  for (const auto& [kind, count] : report.overall.failures) {
    table->Line(absl::StrCat("failed ", count, " times: ", kind, ": ",
                             report.overall.failure_examples.at(kind)));
  }
}

}  // namespace

Report MakeReport(const BenchOptions& options, const LoadResult& result) {
  Report report;
  report.date = absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone());
  report.duration_seconds = result.duration_seconds;
  report.interrupted = result.interrupted;
  report.peaks = FindPeaks(result.records);
  report.in_turns = !result.arm_seconds.empty();
  const auto summarize = [&](std::optional<size_t> arm) {
    const bool own = arm.has_value() && report.in_turns;
    return Summarize(result.records, arm, own ? result.arm_seconds[*arm] : result.duration_seconds,
                     options.goodput);
  };
  report.overall = summarize(std::nullopt);
  const ArmReport* full = nullptr;
  report.arms.resize(options.arms.size());
  for (size_t i = 0; i < options.arms.size(); ++i) {
    const RecipeArm& arm = options.arms[i];
    report.arms[i] = {.label = arm.label, .weight = arm.weight, .summary = summarize(i)};
    if (full == nullptr && arm.IsFullAttention()) full = &report.arms[i];
  }
  if (full == nullptr) return report;
  for (ArmReport& arm : report.arms) {
    arm.speedup = CompareToFull(arm.summary, full->summary);
    if (report.in_turns && full->summary.output_throughput > 0) {
      arm.speedup->throughput = arm.summary.output_throughput / full->summary.output_throughput;
    }
  }
  return report;
}

std::string ReportTable(const Report& report) {
  Table table(report);
  table.Line(absl::StrFormat(
      "%s: %.1f s; at most %d requests at once, %.0f output tokens in the best second%s",
      report.model.c_str(), report.duration_seconds, report.peaks.concurrent_requests,
      report.peaks.output_tokens_per_second, report.interrupted ? "; interrupted" : ""));
  table.Header();
  AddThroughput(report, &table);
  table.Latency("TTFT", &Summary::ttft_ms);
  table.Latency("TPOT", &Summary::tpot_ms);
  table.Latency("ITL", &Summary::itl_ms);
  table.Latency("end to end", &Summary::e2el_ms);
  AddServerFigures(&table);
  if (!report.arms.empty() && report.arms[0].speedup) {
    if (report.in_turns) {
      table.Faster("gain over full: output tokens/s", &Speedup::throughput);
      table.Faster("  times faster: TTFT", &Speedup::ttft);
    } else {
      // Each waits for the others' work.
      table.Faster("times faster in full's batch: TTFT", &Speedup::ttft);
    }
    table.Faster("    TPOT", &Speedup::tpot);
    table.Faster("    end to end", &Speedup::e2el);
    table.Faster("  times fewer keys attended", &Speedup::counted);
  }
  AddFailures(report, &table);
  return table.text();
}

}  // namespace swaa::tools::bench
