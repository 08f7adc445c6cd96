// The frame of the GPU benchmark program: parts register themselves, measure with CUDA events, and
// report rows of one table.

#ifndef SWAA_BENCH_GPU_GPU_BENCH_H_
#define SWAA_BENCH_GPU_GPU_BENCH_H_

#include <cuda_runtime_api.h>
#include <functional>
#include <string>

namespace swaa::bench {

// What the card reaches, measured once when the program starts.
struct Ceilings {
  double read_bytes_per_second = 0;  // 16-byte loads of a range far larger than L2
};
const Ceilings& DeviceCeilings();

// Seconds of one `run` on the stream: the median of `repeats` timings by events, after a warm-up.
// With graph_runs > 0 so many runs are captured into one graph and the median replay is divided by
// their number; `run` gets the number of the run, to rotate its inputs.
double MedianSeconds(cudaStream_t stream, const std::function<void(int run)>& run, int repeats = 20,
                     int graph_runs = 0);

// Prints a row: group, case, measured time, the floor's, their ratio, and a note (rates,
// baselines). floor_seconds <= 0: none.
void ReportRow(const std::string& group, const std::string& name, double seconds,
               double floor_seconds, const std::string& note);

// A part of the program, run when no argument or its name is given on the command line. Throws or
// returns false when a result was wrong.
struct Registration {
  Registration(const char* name, bool (*run)());
};

}  // namespace swaa::bench

// SWAA_GPU_BENCHMARK(attention) { ...; return true; }
#define SWAA_GPU_BENCHMARK(name)                                               \
  static bool Run_##name();                                                    \
  static const ::swaa::bench::Registration register_##name(#name, Run_##name); \
  static bool Run_##name()

#endif  // SWAA_BENCH_GPU_GPU_BENCH_H_
