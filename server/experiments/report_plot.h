// Plots of intervals as inline SVG.

#ifndef SWAA_SERVER_EXPERIMENTS_REPORT_PLOT_H_
#define SWAA_SERVER_EXPERIMENTS_REPORT_PLOT_H_

#include <string>
#include <string_view>
#include <vector>

namespace swaa::server {

// `text` as HTML shows it, in elements and in quoted attributes.
std::string HtmlEscape(std::string_view text);

// Ratios have a logarithmic axis; their values and ticks are given as ratios.
enum class PlotScale { kLinear, kRatio, kShare };

// An interval as a line with a mark at its value. `css_class` colours it.
struct PlotInterval {
  double lower = 0;
  double value = 0;
  double upper = 0;
  std::string css_class;
};

// One axis for several intervals, so that they can be compared by eye.
class IntervalPlot {
 public:
  // `neutral` is where no difference is: 0, or 1 of ratios. `matters` is the least difference that
  // does (of logarithms, of ratios): the axis shows at least it, as a band; 0: none. Intervals that
  // are infinite, or much wider than all values, are cut and end in arrows.
  IntervalPlot(PlotScale scale, double neutral, double matters,
               const std::vector<PlotInterval>& intervals);

  std::string Row(const PlotInterval& interval) const;
  // Ticks with their values.
  std::string Axis() const;

 private:
  double Transformed(double value) const;
  double X(double transformed) const;
  std::string Grid(int height) const;

  PlotScale scale_;
  double neutral_;  // transformed, as are those below
  double matters_;
  double low_;
  double high_;
  std::vector<double> ticks_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_REPORT_PLOT_H_
