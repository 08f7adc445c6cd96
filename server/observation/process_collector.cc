// What the process takes of the machine, and who is connected.

#include "server/observation/process_collector.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <system_error>
#include <unistd.h>

#include <sys/resource.h>

#include "server/observation/family_builder.h"
#include "server/observation/request_log.h"

namespace swaa::server {
namespace {

constexpr auto kCounter = prometheus::MetricType::Counter;

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

struct Facts {
  double cpu_seconds = 0;
  double virtual_bytes = 0;
  double resident_bytes = 0;
  double open_files = 0;
  double most_files = 0;
};

Facts Read() {
  Facts facts;
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  facts.cpu_seconds = Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
  const auto page = static_cast<double>(sysconf(_SC_PAGESIZE));
  double pages = 0;
  double resident = 0;
  if (std::ifstream statm("/proc/self/statm"); statm >> pages >> resident) {
    facts.virtual_bytes = pages * page;
    facts.resident_bytes = resident * page;
  }
  std::error_code error;
  std::filesystem::directory_iterator files("/proc/self/fd", error);
  for (; !error && files != std::filesystem::directory_iterator(); files.increment(error)) {
    ++facts.open_files;
  }
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  facts.most_files = static_cast<double>(limit.rlim_cur);
  return facts;
}

// Since 1970; the same at every scrape.
double StartTime() {
  std::ifstream stat("/proc/self/stat");
  std::ifstream boot("/proc/stat");
  const std::string line((std::istreambuf_iterator<char>(stat)), {});
  // After the name in brackets, which may hold anything, the start is the 20th field.
  std::istringstream fields(line.substr(line.rfind(')') + 1));
  std::string field;
  for (int i = 0; i < 20; ++i) fields >> field;
  double booted = 0;
  std::string key;
  while (boot >> key) {
    if (key == "btime") {
      boot >> booted;
      break;
    }
    std::getline(boot, key);
  }
  return booted + std::strtod(field.c_str(), nullptr) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

}  // namespace

std::vector<prometheus::MetricFamily> ProcessCollector::Collect() const {
  static const double start_time = StartTime();
  const Facts facts = Read();
  const Connections connections = connections_();
  return {
      FamilyBuilder("process_cpu_seconds_total", "Processor time, user and system.", kCounter)
          .Add(facts.cpu_seconds)
          .Take(),
      FamilyBuilder("process_virtual_memory_bytes", "Address space.")
          .Add(facts.virtual_bytes)
          .Take(),
      FamilyBuilder("process_resident_memory_bytes", "Memory in use.")
          .Add(facts.resident_bytes)
          .Take(),
      FamilyBuilder("process_open_fds", "Open file descriptors.").Add(facts.open_files).Take(),
      FamilyBuilder("process_max_fds", "The limit of open file descriptors.")
          .Add(facts.most_files)
          .Take(),
      FamilyBuilder("process_start_time_seconds", "When the process started, since 1970.")
          .Add(start_time)
          .Take(),
      FamilyBuilder("swaa_connections_open", "Connections to the gRPC port.")
          .Add(static_cast<double>(connections.open))
          .Take(),
      FamilyBuilder("swaa_connections_cut_off_total",
                    "Connections cut off for what they sent: endless headers, calls left at once.",
                    kCounter)
          .Add(static_cast<double>(connections.cut_off))
          .Take(),
      FamilyBuilder("swaa_connections_accepted_total",
                    "Connections that were taken, the server's own checks included.", kCounter)
          .Add(static_cast<double>(connections.accepted))
          .Take(),
      FamilyBuilder("swaa_connections_refused_total",
                    "Connections closed at once: too many, or no file descriptor left.", kCounter)
          .Add(static_cast<double>(connections.refused))
          .Take(),
      FamilyBuilder("swaa_log_lines_suppressed_total", "Log lines left out to bound the log.",
                    kCounter)
          .Add(static_cast<double>(SuppressedLogLines()))
          .Take(),
      FamilyBuilder("swaa_log_lines_lost_total",
                    "Log lines lost: nobody read them in time, or memory ran out.", kCounter)
          .Add(static_cast<double>(LostLogLines()))
          .Take(),
  };
}

}  // namespace swaa::server
