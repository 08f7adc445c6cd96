// OpenMP's threads: the environment that main sets before they exist, their number, flushed
// denormals.

#include "kernels/cpu/threads.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <omp.h>
#include <sched.h>
#include <set>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/parallel_ranges.h"

namespace swaa::kernels::cpu {
namespace {

std::vector<std::string> g_arguments;

int AffinityCount() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof(set), &set);
  return CPU_COUNT(&set);
}

// What main below did before it came here.
TEST(ConfigureOpenMpTest, ExecutesAgainWithAShortSpinAndTheSameArguments) {
  EXPECT_STREQ(std::getenv("GOMP_SPINCOUNT"), "3000");
  EXPECT_STREQ(std::getenv("OMP_NUM_THREADS"), "3");
  EXPECT_EQ(std::getenv("SWAA_OPENMP_CONFIGURED"), nullptr);
  EXPECT_EQ(omp_get_max_threads(), 3);  // libgomp read it before main
  EXPECT_EQ(g_arguments.back(), "--an argument with spaces");
}

TEST(PrepareOpenMpThreadsTest, GivesExactlySoManyThreadsWithDenormalsFlushed) {
  for (int threads : {1, 2, 5}) {
    // A thread of its own, as the device has: its masters' settings are its own.
    std::thread([threads] {
      PrepareOpenMpThreads(threads);
      std::atomic<int> count = 0, flushed = 0;
#pragma omp parallel
      {
        ++count;
        volatile float small = 1e-38f;
        small = small * 0.1f;
        if (small == 0.0f) ++flushed;
      }
      EXPECT_EQ(count, threads);
      EXPECT_EQ(flushed, threads);
    }).join();
  }
}

TEST(PrepareOpenMpThreadsTest, BindsEachThreadWhereItTakesAllProcessorsButNeverTheMainThread) {
  const int processors = AffinityCount();
  std::thread([processors] {
    PrepareOpenMpThreads(processors);
    std::set<int> bound;
#pragma omp parallel
    {
      const int width = AffinityCount();
      const int cpu = sched_getcpu();
#pragma omp critical
      {
        EXPECT_EQ(width, 1);
        bound.insert(cpu);
      }
    }
    EXPECT_EQ(static_cast<int>(bound.size()), processors);
  }).join();
  PrepareOpenMpThreads(processors);
  EXPECT_EQ(AffinityCount(), processors);
}

TEST(ForChunksTest, EveryItemOnceInWholeChunks) {
  std::thread([] {
    for (int threads : {1, 2, 3, kMaxThreadShares + 3}) {
      for (int64_t count : {0, 1, 3, 4, 5, 63, 64, 1000}) {
        for (int64_t multiple : {1, 4, 7}) {
          std::vector<std::atomic<int>> seen(count);
          ForChunks(threads, count, multiple, /*elements_per_item=*/100000,
                    [&](int64_t first, int64_t last) {
                      EXPECT_EQ(first % multiple, 0);
                      for (int64_t i = first; i < last; ++i) ++seen[i];
                    });
          for (const std::atomic<int>& times : seen) EXPECT_EQ(times, 1);
        }
      }
    }
  }).join();
}

// Whoever has the first chunk is held up until all others are done: by threads that are free.
TEST(ForChunksTest, AThreadThatIsHeldUpHoldsNobodyUp) {
  std::thread([] {
    constexpr int64_t kItems = 1000;
    std::atomic<int64_t> done = 0;
    std::atomic<bool> waited_in_vain = false;
    ForChunks(2, kItems, 1, /*elements_per_item=*/100000, [&](int64_t first, int64_t last) {
      done += last - first;
      if (first != 0) return;
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
      while (done < kItems && !waited_in_vain) {
        if (std::chrono::steady_clock::now() > end) waited_in_vain = true;
        std::this_thread::yield();
      }
    });
    EXPECT_FALSE(waited_in_vain);
    EXPECT_EQ(done, kItems);
  }).join();
}

TEST(AvailableProcessorsTest, IsBoundByTheAffinityMask) {
  EXPECT_LE(AvailableProcessors(), AffinityCount());
  std::thread([] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_EQ(AvailableProcessors(), 1);
  }).join();
}

}  // namespace
}  // namespace swaa::kernels::cpu

int main(int argc, char** argv) {
  if (std::getenv("SWAA_THREADS_TEST_STARTED") == nullptr) {
    // As a user starts it: nothing of OpenMP in the environment, one argument more.
    setenv("SWAA_THREADS_TEST_STARTED", "1", 1);
    for (const char* name : {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"}) {
      unsetenv(name);
    }
    std::vector<char*> arguments(argv, argv + argc);
    std::string more = "--an argument with spaces";
    arguments.push_back(more.data());
    arguments.push_back(nullptr);
    execv("/proc/self/exe", arguments.data());
    return 1;
  }
  swaa::kernels::cpu::ConfigureOpenMp(3);
  testing::InitGoogleTest(&argc, argv);
  swaa::kernels::cpu::g_arguments.assign(argv, argv + argc);
  return RUN_ALL_TESTS();
}
