// What the control groups that this process is in leave it.

#include "kernels/cpu/cgroup.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace swaa::kernels::cpu {
namespace {

// The process's group below `mount`, as /proc names it; "": the mount itself. v2 has one for all
// controllers, v1 one for each.
std::string GroupOf(const std::string& root, const std::string& controller) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    // hierarchy:controllers:path
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
    const bool is_wanted = controller.empty() ? parts[0] == "0"
                                              : std::find(controllers.begin(), controllers.end(),
                                                          controller) != controllers.end();
    // A group outside of what this process sees: only the mount is left.
    if (is_wanted) return parts[2] == "/" || parts[2].starts_with("/..") ? "" : parts[2];
  }
  return "";
}

// The group's folder, and those of the groups around it. One that is not there, because the mount
// itself is the group, is no fault.
std::vector<std::string> GroupFolders(const std::string& root, const std::string& controller) {
  std::string mount = root + "/sys/fs/cgroup";
  if (!controller.empty()) absl::StrAppend(&mount, "/", controller);
  std::vector<std::string> folders;
  std::string group = GroupOf(root, controller);
  for (; !group.empty(); group.resize(group.rfind('/'))) folders.push_back(mount + group);
  folders.push_back(std::move(mount));
  return folders;
}

template <typename Number>
void TakeLeast(std::optional<Number> value, std::optional<Number>& least) {
  if (value.has_value() && (!least.has_value() || *value < *least)) least = value;
}

// The number that a file begins with. Nothing: it has none, as "max".
std::optional<int64_t> NumberIn(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? std::optional<int64_t>(value) : std::nullopt;
}

std::optional<double> Quota(std::optional<int64_t> microseconds, std::optional<int64_t> period) {
  if (microseconds.value_or(0) <= 0 || period.value_or(0) <= 0) return std::nullopt;
  return static_cast<double>(*microseconds) / static_cast<double>(*period);
}

// cpu.max: "QUOTA PERIOD", where no limit is "max".
std::optional<double> QuotaOfV2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  int64_t microseconds = 0;
  int64_t period = 0;
  if (!(file >> microseconds >> period)) return std::nullopt;
  return Quota(microseconds, period);
}

std::optional<double> QuotaOfV1(const std::string& folder) {
  return Quota(NumberIn(folder + "/cpu.cfs_quota_us"), NumberIn(folder + "/cpu.cfs_period_us"));
}

struct MemoryFiles {
  const char* limit;
  const char* usage;
  const char* file_cache;  // its name in memory.stat
};

std::optional<int64_t> AvailableBytesIn(const std::string& folder, const MemoryFiles& files) {
  const std::optional<int64_t> limit = NumberIn(absl::StrCat(folder, "/", files.limit));
  const std::optional<int64_t> usage = NumberIn(absl::StrCat(folder, "/", files.usage));
  if (!limit.has_value() || !usage.has_value()) return std::nullopt;
  const int64_t cache = NamedFigure(folder + "/memory.stat", files.file_cache).value_or(0);
  return std::max<int64_t>(0, *limit - *usage + cache);
}

}  // namespace

std::optional<int64_t> NamedFigure(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  int64_t value = 0;
  for (std::string word; file >> word;) {
    if (word == name && file >> value) return value;
  }
  return std::nullopt;
}

std::optional<double> CgroupProcessors(const std::string& root) {
  std::optional<double> least;
  for (const std::string& folder : GroupFolders(root, "")) TakeLeast(QuotaOfV2(folder), least);
  for (const std::string& folder : GroupFolders(root, "cpu")) TakeLeast(QuotaOfV1(folder), least);
  return least;
}

std::optional<int64_t> CgroupAvailableBytes(const std::string& root) {
  constexpr MemoryFiles kV2 = {"memory.max", "memory.current", "inactive_file"};
  constexpr MemoryFiles kV1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                               "total_inactive_file"};
  std::optional<int64_t> least;
  for (const std::string& folder : GroupFolders(root, "")) {
    TakeLeast(AvailableBytesIn(folder, kV2), least);
  }
  for (const std::string& folder : GroupFolders(root, "memory")) {
    TakeLeast(AvailableBytesIn(folder, kV1), least);
  }
  return least;
}

}  // namespace swaa::kernels::cpu
