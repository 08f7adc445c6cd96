// A report as text and as a page: what it must say, and that the page is well formed.

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/experiments/report.h"
#include "server/experiments/report_html.h"
#include "server/experiments/report_plot.h"
#include "server/experiments/report_text.h"
#include "server/experiments/report_words.h"
#include "tests/unit/server/experiments/simulated_experiment.h"

namespace swaa::server {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

v1::GetReportResponse Report(double lost_units = 0, int requests = 20000) {
  const Simulation simulation =
      Simulate({.experiment =
                    "id: 'windows' arms { name: 'full' recipe_name: 'full' } "
                    "arms { name: 'window' recipe_name: 'window' } "
                    "arms { name: 'sinks' recipe_name: 'sinks' } "
                    "metrics { name: 'liked' role: METRIC_ROLE_GOAL scale: METRIC_SCALE_RATE "
                    "          higher_is_better: true minimum_detectable_effect: 0.05 } "
                    "metrics { name: 'device_seconds' role: METRIC_ROLE_GOAL } "
                    "metrics { name: 'time_to_first_token_seconds' role: METRIC_ROLE_GOAL } "
                    "metrics { name: 'error_rate' role: METRIC_ROLE_GUARDRAIL maximum_harm: 0.01 }",
                .effects = {{}, {.cost = 0.5, .latency = 0.7}, {.liking = -0.15, .errors = 0.1}},
                .requests = requests,
                .lost_units = lost_units});
  return *MakeReport(Merge(simulation.files), simulation.experiment.revision, kSimulationEndMs);
}

// Every element is closed in its order, and text holds no bare '<' or '&'.
void ExpectWellFormed(const std::string& html) {
  std::vector<std::string> open;
  const std::string body = html.substr(html.find("<html"));
  for (size_t at = 0; at < body.size(); ++at) {
    if (body[at] == '&') {
      const size_t end = body.find(';', at);
      ASSERT_TRUE(end != std::string::npos && end - at < 10) << body.substr(at, 40);
    }
    if (body[at] != '<') continue;
    const size_t end = body.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = body.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(0, tag.find_first_of(" /", 1));
    if (tag[0] == '/') {
      ASSERT_FALSE(open.empty()) << tag;
      ASSERT_EQ("/" + open.back(), tag) << body.substr(at > 200 ? at - 200 : 0, 250);
      open.pop_back();
    } else if (tag.back() != '/' && name != "meta" && name != "br") {
      open.push_back(name);
    }
    at = end;
  }
  EXPECT_TRUE(open.empty());
}

TEST(ReportRenderingTest, TextSaysWhatCameOut) {
  const std::string text = ReportText(Report());
  EXPECT_THAT(text, AllOf(HasSubstr("Experiment windows, revision "),
                          HasSubstr("Fits: units fell into the arms"),
                          HasSubstr("liked (goal, more is better)"), HasSubstr("less -> worse\n"),
                          HasSubstr("less -> better\n"), HasSubstr("more -> worse than allowed\n"),
                          HasSubstr("window, counted attended_keys: 1.98 (1.98 to 1.98)"),
                          HasSubstr("observed: How much faster is one user served")));
  // Nothing comes before the sample ratio and the warnings.
  EXPECT_LT(text.find("SAMPLE RATIO"), text.find("WARNINGS"));
  EXPECT_LT(text.find("WARNINGS"), text.find("COMPARED WITH full"));
}

TEST(ReportRenderingTest, PagesAreWellFormedAndNeedNothingElse) {
  for (const v1::GetReportResponse& report : {Report(), Report(0.2), Report(0, 0)}) {
    const std::string html = ReportHtml(report);
    ExpectWellFormed(html);
    EXPECT_THAT(html, AllOf(Not(HasSubstr("http")), Not(HasSubstr("<script")),
                            Not(HasSubstr("nan")), Not(HasSubstr("inf "))));
    EXPECT_LT(html.find("Sample ratio"), html.find("Compared with"));
  }
  EXPECT_THAT(ReportHtml(Report()),
              AllOf(HasSubstr("<b class=\"better\">better</b>"),
                    HasSubstr("<b class=\"worse\">worse</b>"), HasSubstr("class=\"untrusted\"")));
  EXPECT_THAT(ReportHtml(Report(0.2)), HasSubstr("<section class=\"alarm\">"));
}

TEST(ReportRenderingTest, StoredTextCannotBecomeMarkup) {
  v1::GetReportResponse report = Report(0, 200);
  report.add_warnings("<script>alert('x' & \"y\")</script>");
  report.add_instance_ids("<b>");
  const std::string html = ReportHtml(report);
  ExpectWellFormed(html);
  EXPECT_THAT(html, AllOf(Not(HasSubstr("<script>")),
                          HasSubstr("&lt;script&gt;alert(&#39;x&#39; &amp; &quot;y&quot;)")));
}

TEST(ReportRenderingTest, FiguresInWords) {
  EXPECT_EQ(CountInWords(0), "0");
  EXPECT_EQ(CountInWords(999), "999");
  EXPECT_EQ(CountInWords(1234567), "1,234,567");
  EXPECT_EQ(SecondsInWords(0.0123), "12.3 ms");
  EXPECT_EQ(SecondsInWords(4.567), "4.57 s");
  EXPECT_EQ(SecondsInWords(4567), "4567 s");
  EXPECT_EQ(BytesInWords(3.5 * 1024 * 1024), "3.5 MiB");
  v1::Comparison comparison;
  comparison.set_scale(v1::METRIC_SCALE_LOG_MEAN);
  comparison.set_effect(0.711);
  EXPECT_EQ(EffectInWords(comparison), "28.9 % less");
  comparison.set_effect(2.5);
  EXPECT_EQ(EffectInWords(comparison), "2.5 times as much");
  comparison.set_scale(v1::METRIC_SCALE_RATE);
  comparison.set_effect(-0.075);
  EXPECT_EQ(EffectInWords(comparison), "7.5 points less");
  comparison.set_verdict(v1::VERDICT_UNDECIDED);
  comparison.set_role(v1::METRIC_ROLE_GOAL);
  comparison.set_further_units(4200);
  EXPECT_EQ(VerdictInWords(comparison),
            "undecided: about 4,200 more would tell a difference that matters");
  comparison.set_role(v1::METRIC_ROLE_GUARDRAIL);
  EXPECT_EQ(VerdictInWords(comparison), "no harm shown");
}

TEST(ReportRenderingTest, WideIntervalsEndInArrows) {
  const PlotInterval narrow = {0.9, 1, 1.1, "open"};
  const PlotInterval wide = {0, 1, 1e300, "open"};
  const IntervalPlot plot(PlotScale::kRatio, 1, 0.05, {narrow, wide});
  EXPECT_THAT(plot.Row(narrow), Not(HasSubstr("arrow")));
  EXPECT_THAT(plot.Row(wide), HasSubstr("arrow"));
  EXPECT_THAT(plot.Axis(), HasSubstr("&times;1<"));
}

}  // namespace
}  // namespace swaa::server
