// Bench: plots as SVG.

#include "tools/bench/svg.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace swaa::tools::bench {
namespace {

constexpr double kWidth = 960;
constexpr double kLeft = 84;
constexpr double kRight = 24;
constexpr double kPlotHeight = 230;
constexpr double kPanelHeight = 300;
constexpr double kLegendRow = 22;
constexpr double kHeader = 62;
constexpr double kFooter = 30;
constexpr int kXSteps = 10;
constexpr int kYSteps = 5;
// More dots than this say no more and make the file large.
constexpr size_t kMostDots = 4000;
// More than these overlap, and are drawn fainter.
constexpr size_t kFewDots = 500;

// Distinguishable with every kind of colour vision (after Okabe and Ito).
constexpr std::array kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                 "#7a5c00", "#56b4e9", "#e69f00", "#444444"};

const char* Colour(size_t index) { return kColours[index % kColours.size()]; }

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
}

std::string Text(double x, double y, const std::string& text, const std::string& attributes) {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" %s>%s</text>\n", x, y, attributes.c_str(),
                         Escaped(text).c_str());
}

std::string Line(double x1, double y1, double x2, double y2, const std::string& attributes) {
  return absl::StrFormat("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2,
                         y2, attributes.c_str());
}

// From values to a place on the paper.
struct Scale {
  double top = 0;
  double x_end = 1;
  double y_end = 1;

  double X(double value) const { return kLeft + value / x_end * (kWidth - kLeft - kRight); }
  double Y(double value) const { return top + kPlotHeight * (1 - value / y_end); }
};

template <class Function>
void ForEachPoint(const Panel& panel, Function function) {
  for (const Series& series : panel.series) {
    for (const auto& point : series.line) function(point);
    for (const auto& point : series.dots) function(point);
  }
}

std::string Axes(const Panel& panel, const Scale& scale, const std::vector<double>& x_marks,
                 const std::vector<double>& y_marks) {
  std::string svg = Text(kLeft, scale.top - 12, panel.title, "class=\"panel\"");
  for (double mark : y_marks) {
    const double y = scale.Y(mark);
    svg += Line(kLeft, y, kWidth - kRight, y, "class=\"grid\"");
    svg += Text(kLeft - 8, y + 4, absl::StrCat(mark), "text-anchor=\"end\"");
  }
  const double bottom = scale.top + kPlotHeight;
  for (double mark : x_marks) {
    const double x = scale.X(mark);
    svg += Line(x, bottom, x, bottom + 5, "class=\"axis\"");
    svg += Text(x, bottom + 19, absl::StrCat(mark), "text-anchor=\"middle\"");
  }
  svg += Line(kLeft, bottom, kWidth - kRight, bottom, "class=\"axis\"");
  svg += Line(kLeft, scale.top, kLeft, bottom, "class=\"axis\"");
  const double middle = scale.top + kPlotHeight / 2;
  svg += Text(22, middle, panel.y_label,
              absl::StrFormat("text-anchor=\"middle\" transform=\"rotate(-90 22 %.1f)\"", middle));
  return svg;
}

std::string Drawn(const Series& series, const Scale& scale) {
  const char* colour = Colour(series.colour);
  std::string svg;
  const size_t stride = series.dots.size() / kMostDots + 1;
  const double opacity = series.dots.size() > kFewDots ? 0.35 : 0.6;
  for (size_t i = 0; i < series.dots.size(); i += stride) {
    absl::StrAppend(
        &svg, absl::StrFormat(
                  "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\" fill=\"%s\" fill-opacity=\"%g\"/>\n",
                  scale.X(series.dots[i].first), scale.Y(series.dots[i].second), colour, opacity));
  }
  if (series.line.empty()) return svg;
  std::string points;
  for (const auto& [x, y] : series.line) {
    absl::StrAppend(&points, absl::StrFormat("%.1f,%.1f ", scale.X(x), scale.Y(y)));
  }
  absl::StrAppend(&svg, "<polyline points=\"", points, "\" fill=\"none\" stroke=\"", colour,
                  series.dashed
                      ? "\" stroke-width=\"1.4\" stroke-opacity=\"0.7\" stroke-dasharray=\"6 4\""
                      : "\" stroke-width=\"2\"",
                  "/>\n");
  return svg;
}

// The legend in rows; `height` is what it took.
std::string Legend(const std::vector<LegendEntry>& legend, double* height) {
  std::string svg;
  double x = kLeft;
  double y = kHeader;
  for (const LegendEntry& entry : legend) {
    const double width = 50 + 7.2 * static_cast<double>(entry.label.size());
    if (x > kLeft && x + width > kWidth - kRight) {
      x = kLeft;
      y += kLegendRow;
    }
    svg += Line(x, y, x + 26, y,
                absl::StrFormat("stroke=\"%s\" stroke-width=\"3\"%s", Colour(entry.colour),
                                entry.dashed ? " stroke-dasharray=\"6 4\"" : ""));
    svg += Text(x + 32, y + 4, entry.label, "");
    x += width;
  }
  *height = y + kLegendRow - kHeader;
  return svg;
}

}  // namespace

std::vector<double> AxisMarks(double most, int count) {
  if (!(most > 0)) most = 1;
  const double least_step = most / count;
  const double power = std::pow(10, std::floor(std::log10(least_step)));
  double step = 10 * power;
  for (double factor : {1.0, 2.0, 5.0}) {
    // The slack keeps 0.3 / 3 from being a little above 0.1.
    if (factor * power >= least_step * (1 - 1e-9)) {
      step = factor * power;
      break;
    }
  }
  std::vector<double> marks;
  for (int i = 0;; ++i) {
    // Through the decimal text, so that 3 * 0.1 is 0.3.
    marks.push_back(std::stod(absl::StrFormat("%.9g", i * step)));
    if (marks.back() >= most * (1 - 1e-9)) return marks;
  }
}

std::string RenderSvg(const Figure& figure) {
  double most_x = 0;
  for (const Panel& panel : figure.panels) {
    ForEachPoint(panel, [&](const auto& point) { most_x = std::max(most_x, point.first); });
  }
  if (most_x <= 0) most_x = 1;
  std::vector<double> x_marks = AxisMarks(most_x, kXSteps);
  // Time ends where the run does.
  if (x_marks.back() > most_x) x_marks.pop_back();
  double legend_height = 0;
  const std::string legend = Legend(figure.legend, &legend_height);
  const double panels_top = kHeader + legend_height + 14;
  const double height =
      panels_top + kPanelHeight * static_cast<double>(figure.panels.size()) + kFooter;
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
      "height=\"%.0f\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" "
      "fill=\"#333333\">\n",
      kWidth, height, kWidth, height);
  svg +=
      "<style>.grid{stroke:#e4e4e4}.axis{stroke:#888888}.panel{font-size:14px;font-weight:bold}"
      "</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n";
  svg += Text(kLeft, 24, figure.title, "font-size=\"17\" font-weight=\"bold\"");
  svg += Text(kLeft, 43, figure.note, "fill=\"#777777\"");
  svg += legend;
  for (size_t i = 0; i < figure.panels.size(); ++i) {
    const Panel& panel = figure.panels[i];
    double most_y = 0;
    ForEachPoint(panel, [&](const auto& point) { most_y = std::max(most_y, point.second); });
    if (panel.whole_numbers) most_y = std::max<double>(most_y, kYSteps);
    const std::vector<double> y_marks = AxisMarks(most_y, kYSteps);
    const Scale scale{.top = panels_top + kPanelHeight * static_cast<double>(i) + 24,
                      .x_end = most_x,
                      .y_end = y_marks.back()};
    svg += Axes(panel, scale, x_marks, y_marks);
    for (const Series& series : panel.series) svg += Drawn(series, scale);
  }
  svg += Text((kLeft + kWidth - kRight) / 2, height - 14, figure.x_label, "text-anchor=\"middle\"");
  return svg + "</svg>\n";
}

}  // namespace swaa::tools::bench
