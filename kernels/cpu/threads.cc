// The OpenMP threads of the CPU backend.

#include "kernels/cpu/threads.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <omp.h>
#include <optional>
#include <sched.h>
#include <string>
#include <unistd.h>
#include <vector>
#include <xmmintrin.h>

#include "kernels/cpu/cgroup.h"

namespace swaa::kernels::cpu {
namespace {

// Iterations that a thread spins before it sleeps: a few microseconds.
constexpr char kSpinCount[] = "3000";
// Set when the program was executed again, so that it never happens twice.
constexpr char kConfiguredVariable[] = "SWAA_OPENMP_CONFIGURED";

std::vector<int> AllowedProcessors() {
  std::vector<int> allowed;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return allowed;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) allowed.push_back(cpu);
  }
  return allowed;
}

std::vector<std::string> CommandLine() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<std::string> arguments;
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = std::min(all.find('\0', begin), all.size());
    arguments.push_back(all.substr(begin, end - begin));
    begin = end + 1;
  }
  return arguments;
}

void BindTo(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof(set), &set);  // Failing only costs speed.
}

}  // namespace

void ConfigureOpenMp(int threads) {
  if (getenv(kConfiguredVariable) != nullptr) {
    unsetenv(kConfiguredVariable);
    return;
  }
  if (getenv("GOMP_SPINCOUNT") != nullptr || getenv("OMP_WAIT_POLICY") != nullptr) return;
  std::vector<std::string> arguments = CommandLine();
  if (arguments.empty()) return;
  setenv("GOMP_SPINCOUNT", kSpinCount, 1);
  if (threads > 0) setenv("OMP_NUM_THREADS", std::to_string(threads).c_str(), 0);
  setenv(kConfiguredVariable, "1", 1);
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  // By its own path, which names the process, not by the link.
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
  if (length > 0) {
    path[length] = '\0';
    execv(path, argv.data());
  }
  unsetenv(kConfiguredVariable);
}

int AvailableProcessors(const std::string& root) {
  const int allowed = std::max<int>(1, static_cast<int>(AllowedProcessors().size()));
  const std::optional<double> quota = CgroupProcessors(root);
  if (!quota.has_value() || *quota >= allowed) return allowed;
  return std::max(1, static_cast<int>(std::ceil(*quota)));
}

void PrepareOpenMpThreads(int threads) {
  static thread_local int prepared = 0;
  if (prepared == threads) return;
  prepared = threads;
  omp_set_dynamic(0);
  omp_set_num_threads(threads);
  const std::vector<int> allowed = AllowedProcessors();
  const bool bind = threads == static_cast<int>(allowed.size());
  const bool bind_master = gettid() != getpid();
#pragma omp parallel num_threads(threads)
  {
    _mm_setcsr(_mm_getcsr() | 0x8040u);  // flush to zero, denormals are zero
    const int thread = omp_get_thread_num();
    if (bind && (thread > 0 || bind_master)) BindTo(allowed[thread]);
  }
}

}  // namespace swaa::kernels::cpu
