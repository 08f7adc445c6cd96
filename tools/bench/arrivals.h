// Bench: when the requests of an open loop arrive.

#ifndef SWAA_TOOLS_BENCH_ARRIVALS_H_
#define SWAA_TOOLS_BENCH_ARRIVALS_H_

#include <cstdint>
#include <random>

namespace swaa::tools::bench {

// Arrivals with gamma-distributed intervals of mean 1 / rate and coefficient of variation
// 1 / sqrt(burstiness): 1 is a Poisson process, below 1 comes in bursts, above 1 is more even.
class ArrivalProcess {
 public:
  // `rate` in requests per second and `burstiness`, both above 0.
  ArrivalProcess(double rate, double burstiness, uint64_t seed);

  // When the next request arrives, in seconds since the start; never falls.
  double NextSeconds();

 private:
  std::mt19937_64 generator_;
  std::gamma_distribution<double> interval_seconds_;
  double now_seconds_ = 0;
};

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_ARRIVALS_H_
