// What control groups grant, read from folders that look like Linux's.

#include "kernels/cpu/cgroup.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <unistd.h>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/threads.h"

namespace swaa::kernels::cpu {
namespace {

// Files by their paths below the root, and their texts.
using Files = std::map<std::string, std::string>;

class CgroupTest : public ::testing::Test {
 protected:
  CgroupTest() : root_(::testing::TempDir() + "swaa-cgroup-" + std::to_string(getpid())) {}
  ~CgroupTest() override { std::filesystem::remove_all(root_); }

  const std::string& Root(const Files& files) {
    std::filesystem::remove_all(root_);
    for (const auto& [name, text] : files) {
      const std::filesystem::path path = root_ + "/" + name;
      std::filesystem::create_directories(path.parent_path());
      std::ofstream(path) << text;
    }
    return root_;
  }

  std::string root_;
};

TEST_F(CgroupTest, ProcessorsAreTheLeastQuotaOfTheGroupAndThoseAroundIt) {
  struct Case {
    const char* what;
    Files files;
    std::optional<double> processors;
  };
  const std::vector<Case> cases = {
      {"no groups", {}, std::nullopt},
      {"a container's own group",
       {{"proc/self/cgroup", "0::/\n"}, {"sys/fs/cgroup/cpu.max", "150000 100000\n"}},
       1.5},
      {"no limit",
       {{"proc/self/cgroup", "0::/\n"}, {"sys/fs/cgroup/cpu.max", "max 100000\n"}},
       std::nullopt},
      {"a service of the system, whose root has no such file",
       {{"proc/self/cgroup", "0::/system.slice/swaa.service\n"},
        {"sys/fs/cgroup/system.slice/cpu.max", "max 100000\n"},
        {"sys/fs/cgroup/system.slice/swaa.service/cpu.max", "200000 50000\n"}},
       4.0},
      {"a group around it has less",
       {{"proc/self/cgroup", "0::/pods/pod1/main\n"},
        {"sys/fs/cgroup/pods/cpu.max", "800000 100000\n"},
        {"sys/fs/cgroup/pods/pod1/cpu.max", "250000 100000\n"},
        {"sys/fs/cgroup/pods/pod1/main/cpu.max", "400000 100000\n"}},
       2.5},
      {"somebody else's group",
       {{"proc/self/cgroup", "0::/mine\n"}, {"sys/fs/cgroup/other/cpu.max", "100000 100000\n"}},
       std::nullopt},
      {"a group outside of what is seen",
       {{"proc/self/cgroup", "0::/../../other\n"}, {"sys/fs/cgroup/cpu.max", "300000 100000\n"}},
       3.0},
      {"version 1, mounted from the group itself on",
       {{"proc/self/cgroup", "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n"},
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us", "75000\n"},
        {"sys/fs/cgroup/cpu/cpu.cfs_period_us", "50000\n"}},
       1.5},
      {"version 1 without a limit, in a group that has one",
       {{"proc/self/cgroup", "3:cpu,cpuacct:/batch/job\n0::/\n"},
        {"sys/fs/cgroup/cpu/batch/job/cpu.cfs_quota_us", "-1\n"},
        {"sys/fs/cgroup/cpu/batch/job/cpu.cfs_period_us", "100000\n"},
        {"sys/fs/cgroup/cpu/batch/cpu.cfs_quota_us", "600000\n"},
        {"sys/fs/cgroup/cpu/batch/cpu.cfs_period_us", "100000\n"}},
       6.0},
      {"nonsense",
       {{"proc/self/cgroup", "0\n:::\n"}, {"sys/fs/cgroup/cpu.max", "100000\n"}},
       std::nullopt},
  };
  for (const Case& test : cases) {
    EXPECT_EQ(CgroupProcessors(Root(test.files)), test.processors) << test.what;
  }
}

TEST_F(CgroupTest, ThreadsFollowTheQuotaRoundedUpWithinTheAffinityMask) {
  const int allowed = AvailableProcessors(Root({}));
  const auto with_quota = [&](const std::string& quota) {
    return AvailableProcessors(
        Root({{"proc/self/cgroup", "0::/a\n"}, {"sys/fs/cgroup/a/cpu.max", quota + " 100000\n"}}));
  };
  EXPECT_EQ(with_quota("1000"), 1);
  EXPECT_EQ(with_quota("100000"), 1);
  EXPECT_EQ(with_quota("100001"), std::min(2, allowed));
  EXPECT_EQ(with_quota("99999900000"), allowed);
  EXPECT_EQ(with_quota("max"), allowed);
}

TEST_F(CgroupTest, MemoryIsWhatTheNearestLimitLeaves) {
  const Files service = {
      {"proc/self/cgroup", "0::/system.slice/swaa.service\n"},
      {"sys/fs/cgroup/system.slice/memory.max", "900\n"},
      {"sys/fs/cgroup/system.slice/memory.current", "850\n"},
      {"sys/fs/cgroup/system.slice/memory.stat", "anon 700\ninactive_file 100\n"},
      {"sys/fs/cgroup/system.slice/swaa.service/memory.max", "1000\n"},
      {"sys/fs/cgroup/system.slice/swaa.service/memory.current", "400\n"},
  };
  EXPECT_EQ(CgroupAvailableBytes(Root(service)), 150);
  Files unlimited = service;
  unlimited["sys/fs/cgroup/system.slice/memory.max"] = "max\n";
  EXPECT_EQ(CgroupAvailableBytes(Root(unlimited)), 600);
  EXPECT_EQ(CgroupAvailableBytes(Root({})), std::nullopt);
  const Files version_1 = {
      {"proc/self/cgroup", "9:memory:/docker/1\n"},
      {"sys/fs/cgroup/memory/memory.limit_in_bytes", "500\n"},
      {"sys/fs/cgroup/memory/memory.usage_in_bytes", "600\n"},
      {"sys/fs/cgroup/memory/memory.stat", "inactive_file 7\ntotal_inactive_file 30\n"},
  };
  EXPECT_EQ(CgroupAvailableBytes(Root(version_1)), 0);
}

}  // namespace
}  // namespace swaa::kernels::cpu
