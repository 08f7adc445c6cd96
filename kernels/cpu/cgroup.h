// What the control groups that this process is in leave it, and those around them: Linux's cgroup
// v2 (Documentation/admin-guide/cgroup-v2.rst) and v1. In a container that sees its own groups
// alone, these are all that count.

#ifndef SWAA_KERNELS_CPU_CGROUP_H_
#define SWAA_KERNELS_CPU_CGROUP_H_

#include <cstdint>
#include <optional>
#include <string>

namespace swaa::kernels::cpu {

// Both read anew each time; any thread. `root` is a folder that stands for "/": files are looked
// for in root/proc and root/sys. What cannot be read limits nothing.

// Processors' worth of time; nothing: no limit.
std::optional<double> CgroupProcessors(const std::string& root = "");

// Bytes up to the memory limit that leaves least, file caches counted as free; nothing: no limit.
std::optional<int64_t> CgroupAvailableBytes(const std::string& root = "");

// The number behind `name` in a file of "name value" lines, as memory.stat and /proc/meminfo are.
std::optional<int64_t> NamedFigure(const std::string& path, const std::string& name);

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_CGROUP_H_
