// Bench: plots as SVG.

#ifndef SWAA_TOOLS_BENCH_SVG_H_
#define SWAA_TOOLS_BENCH_SVG_H_

#include <string>
#include <utility>
#include <vector>

namespace swaa::tools::bench {

// What is drawn in one colour.
struct Series {
  size_t colour = 0;                            // an index; equal ones look alike in every panel
  std::vector<std::pair<double, double>> line;  // in order of x; may be empty
  std::vector<std::pair<double, double>> dots;  // may be empty
  bool dashed = false;
};

// A pair of axes, both from 0.
struct Panel {
  std::string title;
  std::string y_label;  // with its unit
  std::vector<Series> series;
  bool whole_numbers = false;  // y counts something
};

struct LegendEntry {
  std::string label;
  size_t colour = 0;
  bool dashed = false;
};

struct Figure {
  std::string title;
  std::string note;     // what lines and dots are
  std::string x_label;  // with its unit
  std::vector<LegendEntry> legend;
  std::vector<Panel> panels;  // one below the other, with the same x axis
};

// Of a scale from 0 to about `most`: marks at multiples of 1, 2 or 5 times a power of ten, the last
// one not below `most`; at most `count` steps. `most` of 0 is taken as 1.
std::vector<double> AxisMarks(double most, int count);

// A whole SVG document, in light colours.
std::string RenderSvg(const Figure& figure);

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_SVG_H_
