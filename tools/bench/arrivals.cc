// Bench: when the requests of an open loop arrive.

#include "tools/bench/arrivals.h"

#include "base/check.h"
#include "tools/bench/random.h"

namespace swaa::tools::bench {

ArrivalProcess::ArrivalProcess(double rate, double burstiness, uint64_t seed)
    : generator_(MakeGenerator(seed, RandomStream::kArrivals, 0)),
      interval_seconds_(burstiness, 1 / (rate * burstiness)) {
  SWAA_CHECK_GT(rate, 0);
  SWAA_CHECK_GT(burstiness, 0);
}

double ArrivalProcess::NextSeconds() { return now_seconds_ += interval_seconds_(generator_); }

}  // namespace swaa::tools::bench
