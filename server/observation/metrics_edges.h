// Upper edges of the histograms' buckets.

#ifndef SWAA_SERVER_OBSERVATION_METRICS_EDGES_H_
#define SWAA_SERVER_OBSERVATION_METRICS_EDGES_H_

#include <vector>

namespace swaa::server {

// Rising.
struct MetricsEdges {
  // 1 ms to 4 hours, about three edges a decade.
  std::vector<double> seconds = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,  0.5,  1,    2, 5,
                                 10,    20,    30,    60,   120,  300,  600, 1800, 3600, 14400};
  std::vector<double> ratio = {1, 1.05, 1.1, 1.2, 1.3, 1.5, 1.75, 2, 2.5,
                               3, 4,    6,   8,   12,  16,  32,   64};
  std::vector<double> batch_tokens = {1,   2,   4,   8,    16,   32,   64,
                                      128, 256, 512, 1024, 2048, 4096, 8192};
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_METRICS_EDGES_H_
