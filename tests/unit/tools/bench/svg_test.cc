// Plots: marks of axes, and a document that any XML reader takes.

#include "tools/bench/svg.h"

#include <cmath>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tools/bench/plots.h"

namespace swaa::tools::bench {
namespace {

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(SvgTest, MarksAreRoundAndReachTheMost) {
  EXPECT_THAT(AxisMarks(100, 5), testing::ElementsAre(0, 20, 40, 60, 80, 100));
  EXPECT_THAT(AxisMarks(0.3, 3), testing::ElementsAre(0, 0.1, 0.2, 0.3));
  EXPECT_THAT(AxisMarks(0, 5), testing::ElementsAre(0, 0.2, 0.4, 0.6, 0.8, 1));
  std::mt19937_64 generator(3);
  for (int i = 0; i < 1000; ++i) {
    const double most = std::exp(std::uniform_real_distribution<double>(-8, 12)(generator));
    const std::vector<double> marks = AxisMarks(most, 5);
    ASSERT_GE(marks.size(), 3u) << most;
    ASSERT_LE(marks.size(), 6u) << most;
    ASSERT_GE(marks.back(), most * (1 - 1e-6));
    ASSERT_LT(marks[marks.size() - 2], most);
  }
}

TEST(SvgTest, DrawsLinesDotsLegendAndUnits) {
  Figure figure{.title = "A < B & C", .note = "n", .x_label = "time, s"};
  figure.legend = {{.label = "full", .colour = 0}, {.label = "window", .colour = 1}};
  figure.panels = {
      {.title = "T",
       .y_label = "TTFT, ms",
       .series = {
           {.colour = 0, .line = {{0, 1}, {2, 3}}},
           {.colour = 1, .line = {{0, 2}, {1, 9}}, .dots = {{0, 2}, {1, 9}}, .dashed = true}}}};
  const std::string svg = RenderSvg(figure);
  EXPECT_THAT(svg, testing::StartsWith("<svg xmlns="));
  EXPECT_THAT(svg, testing::EndsWith("</svg>\n"));
  EXPECT_THAT(svg, testing::HasSubstr("A &lt; B &amp; C"));
  for (const char* text : {">full<", ">window<", ">TTFT, ms<", ">time, s<"}) {
    EXPECT_THAT(svg, testing::HasSubstr(text));
  }
  EXPECT_EQ(Count(svg, "<polyline"), 2u);
  EXPECT_EQ(Count(svg, "<circle"), 2u);
  EXPECT_EQ(Count(svg, "nan"), 0u);
}

TEST(SvgTest, AnEmptyFigureIsStillOne) {
  const std::string svg = RenderSvg({.panels = {{.title = "nothing"}}});
  EXPECT_EQ(Count(svg, "nan"), 0u);
  EXPECT_EQ(Count(svg, "inf"), 0u);
}

TEST(SvgTest, ARecipeHasOneColourInBothPlots) {
  const BenchOptions options{.arms = *ParseRecipeMix("full,window,{\"sliding_window_tokens\":5}"),
                             .prompt_tokens = *LengthDistribution::Parse("10"),
                             .output_tokens = *LengthDistribution::Parse("2")};
  LoadResult result{.duration_seconds = 10};
  for (size_t arm = 0; arm < 3; ++arm) {
    RequestRecord record;
    record.arm = arm;
    record.first_token_seconds = 1;
    record.finished_seconds = 2;
    result.records.push_back(record);
  }
  LoadSample sample{.seconds = 1};
  for (const char* name : {"balanced", "custom", "window"}) {
    v1::RecipeLoad* load = sample.load.add_recipes();
    load->set_recipe_name(name);
    load->set_kv_cache_bytes(name == std::string("balanced") ? 0 : 5'000'000);
  }
  result.samples = {sample};
  const Figure latency = LatencyFigure(result, options, "m");
  const Figure memory = KvMemoryFigure(result, options, "m");
  ASSERT_EQ(latency.legend.size(), 3u);
  ASSERT_EQ(memory.legend.size(), 2u) << "a recipe that never held anything is left out";
  EXPECT_EQ(memory.legend[0].label, "window");
  EXPECT_EQ(memory.legend[0].colour, 1u);
  EXPECT_EQ(memory.legend[1].label, "custom");
  EXPECT_EQ(memory.legend[1].colour, 2u) << "the only recipe in full of the mix";
  EXPECT_EQ(latency.panels[0].series[1].dots, (std::vector<std::pair<double, double>>{{0, 1}}));
  EXPECT_EQ(latency.panels[0].y_label, "TTFT, s") << "as fits";
  EXPECT_EQ(memory.panels[0].series[1].line, (std::vector<std::pair<double, double>>{{1, 5}}));
}

TEST(SvgTest, TheLineOfLatenciesIsThatOfMediansOfNeighbours) {
  const BenchOptions options{.arms = *ParseRecipeMix("full"),
                             .prompt_tokens = *LengthDistribution::Parse("10"),
                             .output_tokens = *LengthDistribution::Parse("2")};
  LoadResult result{.duration_seconds = 1000};
  // Out of order, as records come; the tens digit of a TTFT is that of its time.
  for (int i = 399; i >= 0; --i) {
    RequestRecord record;
    record.sent_seconds = i;
    record.first_token_seconds = i + (i % 10 == 9 ? 1000 : i / 10);
    record.finished_seconds = i + 2000;
    result.records.push_back(record);
  }
  const Series series = LatencyFigure(result, options, "m").panels[0].series[0];
  EXPECT_EQ(series.dots.size(), 400u);
  ASSERT_EQ(series.line.size(), 40u);
  for (size_t group = 0; group < 40; ++group) {
    EXPECT_DOUBLE_EQ(series.line[group].first, static_cast<double>(group) * 10 + 4.5);
    EXPECT_NEAR(series.line[group].second, static_cast<double>(group), 1e-9)
        << "one slow request in ten moves no median";
  }
}

}  // namespace
}  // namespace swaa::tools::bench
