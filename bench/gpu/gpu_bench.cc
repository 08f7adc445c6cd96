// The GPU benchmark program: swaa_gpu_bench [PART...]. Exits non-zero when a part failed or a
// result was wrong.

#include "bench/gpu/gpu_bench.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <utility>
#include <vector>

#include "bench/gpu/read_bandwidth.h"
#include "kernels/cuda/cuda_check.h"

namespace swaa::bench {
namespace {

struct Part {
  const char* name;
  bool (*run)();
};

std::vector<Part>& Parts() {
  static std::vector<Part> parts;
  return parts;
}

float ElapsedMilliseconds(cudaStream_t stream, const std::function<void()>& work) {
  cudaEvent_t begin, end;
  SWAA_CUDA_CHECK(cudaEventCreate(&begin));
  SWAA_CUDA_CHECK(cudaEventCreate(&end));
  SWAA_CUDA_CHECK(cudaEventRecord(begin, stream));
  work();
  SWAA_CUDA_CHECK(cudaEventRecord(end, stream));
  SWAA_CUDA_CHECK(cudaEventSynchronize(end));
  float milliseconds = 0;
  SWAA_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
  SWAA_CUDA_CHECK(cudaEventDestroy(begin));
  SWAA_CUDA_CHECK(cudaEventDestroy(end));
  return milliseconds;
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

}  // namespace

Registration::Registration(const char* name, bool (*run)()) { Parts().push_back({name, run}); }

const Ceilings& DeviceCeilings() {
  static const Ceilings ceilings{.read_bytes_per_second = MeasureReadBandwidth()};
  return ceilings;
}

double MedianSeconds(cudaStream_t stream, const std::function<void(int run)>& run, int repeats,
                     int graph_runs) {
  cudaGraphExec_t graph = nullptr;
  if (graph_runs > 0) {
    cudaGraph_t captured;
    SWAA_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < graph_runs; ++i) run(i);
    SWAA_CUDA_CHECK(cudaStreamEndCapture(stream, &captured));
    SWAA_CUDA_CHECK(cudaGraphInstantiate(&graph, captured, 0));
    SWAA_CUDA_CHECK(cudaGraphDestroy(captured));
  }
  const auto once = [&](int i) {
    if (graph != nullptr) {
      SWAA_CUDA_CHECK(cudaGraphLaunch(graph, stream));
    } else {
      run(i);
    }
  };
  for (int i = 0; i < 3; ++i) once(i);
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    seconds.push_back(ElapsedMilliseconds(stream, [&] { once(i); }) / 1e3);
  }
  if (graph != nullptr) SWAA_CUDA_CHECK(cudaGraphExecDestroy(graph));
  return Median(std::move(seconds)) / std::max(graph_runs, 1);
}

void ReportRow(const std::string& group, const std::string& name, double seconds,
               double floor_seconds, const std::string& note) {
  std::printf("%-12s %-44s %10.2f us", group.c_str(), name.c_str(), seconds * 1e6);
  if (floor_seconds > 0) {
    std::printf("  floor %10.2f us  floor/time %5.2f", floor_seconds * 1e6,
                floor_seconds / seconds);
  }
  std::printf("  %s\n", note.c_str());
  std::fflush(stdout);
}

}  // namespace swaa::bench

int main(int argc, char** argv) {
  using swaa::bench::Parts;
  cudaDeviceProp device;
  const cudaError_t code = cudaGetDeviceProperties(&device, 0);
  if (code != cudaSuccess) {
    std::fprintf(stderr, "swaa_gpu_bench: no usable GPU: %s\n", cudaGetErrorString(code));
    return 1;
  }
  int failed = 0;
  try {
    std::printf("%s, %d multiprocessors, read bandwidth %.3f TB/s\n", device.name,
                device.multiProcessorCount,
                swaa::bench::DeviceCeilings().read_bytes_per_second / 1e12);
    for (const auto& part : Parts()) {
      const bool wanted = argc == 1 || std::any_of(argv + 1, argv + argc, [&](const char* name) {
                            return std::strcmp(name, part.name) == 0;
                          });
      if (!wanted || part.run()) continue;
      std::fprintf(stderr, "%s: a result was wrong\n", part.name);
      failed = 1;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "swaa_gpu_bench: %s\n", error.what());
    return 1;
  }
  return failed;
}
