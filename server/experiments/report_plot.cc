// An axis, ticks and rows of a forest plot.

#include "server/experiments/report_plot.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace swaa::server {
namespace {

constexpr int kWidth = 340;
constexpr int kMargin = 24;
constexpr int kRowHeight = 26;
constexpr int kAxisHeight = 20;
constexpr int kMostTicks = 5;
// What is wider than this many times the farthest value is cut.
constexpr double kMostStretch = 4;

std::vector<double> LinearTicks(double low, double high) {
  double step = std::pow(10, std::floor(std::log10((high - low) / kMostTicks)));
  for (const double factor : {2.0, 2.5, 2.0}) {
    if ((high - low) / step <= kMostTicks) break;
    step *= factor;
  }
  std::vector<double> ticks;
  for (double tick = std::ceil(low / step) * step; tick <= high; tick += step) {
    ticks.push_back(std::abs(tick) < step / 1e6 ? 0 : tick);
  }
  return ticks;
}

// Round ratios, transformed: evenly apart on a short axis, 1, 2, 5, 10 on a long one.
std::vector<double> RatioTicks(double low, double high) {
  std::vector<double> ticks;
  if (high - low < std::log(4)) {
    for (const double ratio : LinearTicks(std::exp(low), std::exp(high))) {
      if (ratio > 0) ticks.push_back(std::log(ratio));
    }
    return ticks;
  }
  const bool decades = high - low > std::log(100);
  for (int exponent = -12; exponent <= 12; ++exponent) {
    for (const double digit : {1.0, 2.0, 5.0}) {
      if (decades && digit != 1) continue;
      const double tick = std::log(digit) + exponent * std::log(10);
      if (low <= tick && tick <= high) ticks.push_back(tick);
    }
  }
  return ticks;
}

std::string TickLabel(PlotScale scale, double transformed) {
  if (scale == PlotScale::kRatio) return absl::StrFormat("&times;%.3g", std::exp(transformed));
  if (scale == PlotScale::kShare) return absl::StrFormat("%+.3g", 100 * transformed);
  return absl::StrFormat("%+.3g", transformed);
}

}  // namespace

std::string HtmlEscape(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

IntervalPlot::IntervalPlot(PlotScale scale, double neutral, double matters,
                           const std::vector<PlotInterval>& intervals)
    : scale_(scale), neutral_(0), matters_(matters) {
  neutral_ = Transformed(neutral);
  double farthest = matters;
  for (const PlotInterval& interval : intervals) {
    const double away = std::abs(Transformed(interval.value) - neutral_);
    if (std::isfinite(away)) farthest = std::max(farthest, away);
  }
  if (farthest <= 0) farthest = scale == PlotScale::kLinear ? 1 : 0.01;
  double reach_low = 1.15 * matters;
  double reach_high = 1.15 * matters;
  const auto include = [&](double bound) {
    const double away = Transformed(bound) - neutral_;
    const double cut = std::clamp(away, -kMostStretch * farthest, kMostStretch * farthest);
    reach_low = std::max(reach_low, -1.05 * cut);
    reach_high = std::max(reach_high, 1.05 * cut);
  };
  for (const PlotInterval& interval : intervals) {
    for (const double bound : {interval.lower, interval.value, interval.upper}) {
      if (!std::isnan(bound)) include(bound);
    }
  }
  low_ = neutral_ - std::max(reach_low, 0.2 * farthest);
  high_ = neutral_ + std::max(reach_high, 0.2 * farthest);
  ticks_ = scale == PlotScale::kRatio ? RatioTicks(low_, high_) : LinearTicks(low_, high_);
}

double IntervalPlot::Transformed(double value) const {
  if (scale_ != PlotScale::kRatio) return value;
  return value > 0 ? std::log(value) : -std::numeric_limits<double>::infinity();
}

double IntervalPlot::X(double transformed) const {
  const double share = std::clamp((transformed - low_) / (high_ - low_), 0.0, 1.0);
  return kMargin + share * (kWidth - 2 * kMargin);
}

std::string IntervalPlot::Grid(int height) const {
  std::string svg;
  if (matters_ > 0) {
    const double left = X(neutral_ - matters_);
    absl::StrAppendFormat(&svg,
                          "<rect class=\"band\" x=\"%.1f\" y=\"0\" width=\"%.1f\" height=\"%d\"/>",
                          left, X(neutral_ + matters_) - left, height);
  }
  for (const double tick : ticks_) {
    absl::StrAppendFormat(&svg, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"0\" y2=\"%d\"/>",
                          X(tick), X(tick), height);
  }
  absl::StrAppendFormat(&svg,
                        "<line class=\"neutral\" x1=\"%.1f\" x2=\"%.1f\" y1=\"0\" y2=\"%d\"/>",
                        X(neutral_), X(neutral_), height);
  return svg;
}

std::string IntervalPlot::Row(const PlotInterval& interval) const {
  constexpr int kMiddle = kRowHeight / 2;
  std::string svg = absl::StrFormat(
      "<svg width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\" class=\"%s\">", kWidth,
      kRowHeight, kWidth, kRowHeight, interval.css_class);
  absl::StrAppend(&svg, Grid(kRowHeight));
  const double lower = Transformed(interval.lower);
  const double upper = Transformed(interval.upper);
  absl::StrAppendFormat(&svg,
                        "<line class=\"interval\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>",
                        X(lower), X(upper), kMiddle, kMiddle);
  for (const auto& [bound, cut, outward] :
       {std::tuple(lower, lower < low_, -1.0), std::tuple(upper, upper > high_, 1.0)}) {
    const double x = X(bound);
    if (cut) {
      absl::StrAppendFormat(&svg, "<path class=\"arrow\" d=\"M%.1f %d l%.1f 5 l0 -10 z\"/>",
                            x + 7 * outward, kMiddle, -8 * outward);
    } else {
      absl::StrAppendFormat(
          &svg, "<line class=\"interval\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>", x, x,
          kMiddle - 4, kMiddle + 4);
    }
  }
  const bool known = std::isfinite(lower) || std::isfinite(upper);
  if (!known) return absl::StrCat(svg, "</svg>");
  absl::StrAppendFormat(&svg, "<circle class=\"mark\" cx=\"%.1f\" cy=\"%d\" r=\"4.5\"/></svg>",
                        X(Transformed(interval.value)), kMiddle);
  return svg;
}

std::string IntervalPlot::Axis() const {
  std::string svg =
      absl::StrFormat("<svg width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" class=\"axis\">",
                      kWidth, kAxisHeight, kWidth, kAxisHeight);
  for (const double tick : ticks_) {
    absl::StrAppendFormat(&svg, "<text x=\"%.1f\" y=\"14\" text-anchor=\"middle\">%s</text>",
                          X(tick), TickLabel(scale_, tick));
  }
  return absl::StrCat(svg, "</svg>");
}

}  // namespace swaa::server
