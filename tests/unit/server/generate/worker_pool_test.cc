// The worker pool: order, bounds, and the thread that admissions never take.

#include "server/generate/worker_pool.h"

#include <atomic>
#include <latch>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace swaa::server {
namespace {

constexpr int64_t kSmall = 100;
constexpr int64_t kLarge = WorkerPool::kLargeAdmissionBytes;

TEST(WorkerPoolTest, AdmissionsNeverTakeTheLastThread) {
  std::latch release(1);
  std::latch streamed(1);
  std::latch begun(2);
  std::atomic<int> admitted{0};
  {
    WorkerPool pool({.threads = 3, .max_queued_admissions = 10});
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(pool.PostAdmission(kSmall,
                                     [&, i] {
                                       if (i < 2) begun.count_down();
                                       release.wait();
                                       ++admitted;
                                     })
                      .ok());
    }
    begun.wait();
    EXPECT_EQ(admitted, 0);
    pool.PostStreaming([&] { streamed.count_down(); });
    streamed.wait();  // though two admissions run and three wait
    const AdmissionLoad load = pool.admission_load();
    EXPECT_EQ(load.waiting, 3);
    EXPECT_EQ(load.running, 2);
    EXPECT_EQ(load.bytes, 5 * kSmall);
    release.count_down();
  }
  EXPECT_EQ(admitted, 5) << "the destructor leaves nothing undone";
}

TEST(WorkerPoolTest, LargeAdmissionsDelayNoSmallOne) {
  std::latch release(1);
  std::latch large_runs(1);
  std::latch small_done(1);
  WorkerPool pool({.threads = 3});
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(pool.PostAdmission(kLarge,
                                   [&, i] {
                                     if (i == 0) large_runs.count_down();
                                     release.wait();
                                   })
                    .ok());
  }
  large_runs.wait();
  ASSERT_TRUE(pool.PostAdmission(kSmall, [&] { small_done.count_down(); }).ok());
  small_done.wait();  // one large runs and three wait, for longer than this one
  release.count_down();
}

TEST(WorkerPoolTest, SmallOnesOvertakeALargeOneButNotForEver) {
  std::latch release(1);
  std::latch runs(1);
  std::mutex mutex;
  std::vector<int64_t> order;
  std::chrono::steady_clock::time_point now;
  {
    WorkerPool pool({.threads = 3, .now = [&now] { return now; }});
    auto post = [&](int64_t bytes) {
      return pool.PostAdmission(bytes, [&, bytes] {
        std::lock_guard lock(mutex);
        order.push_back(bytes);
      });
    };
    // Large ones share one thread: they wait for the first.
    ASSERT_TRUE(pool.PostAdmission(kLarge,
                                   [&] {
                                     runs.count_down();
                                     release.wait();
                                   })
                    .ok());
    runs.wait();
    ASSERT_TRUE(post(16 * kLarge).ok());
    ASSERT_TRUE(post(kLarge).ok());
    now += std::chrono::milliseconds(500);
    // 16 large ones' bytes take less than this one came later.
    ASSERT_TRUE(post(2 * kLarge).ok());
    release.count_down();
  }
  EXPECT_EQ(order, (std::vector<int64_t>{kLarge, 16 * kLarge, 2 * kLarge}));
}

TEST(WorkerPoolTest, FullQueueOfAdmissionsRefuses) {
  std::latch release(1);
  std::latch running(2);
  WorkerPool pool({.threads = 3, .max_queued_admissions = 2});
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(pool.PostAdmission(kSmall,
                                   [&] {
                                     running.count_down();
                                     release.wait();
                                   })
                    .ok());
    // Or the queue of two may be full before a thread has taken one.
    while (pool.admission_load().waiting > 0) std::this_thread::yield();
  }
  running.wait();
  EXPECT_TRUE(pool.PostAdmission(kSmall, [] {}).ok());
  EXPECT_TRUE(pool.PostAdmission(kSmall, [] {}).ok());
  EXPECT_EQ(pool.PostAdmission(kSmall, [] {}).status().code(),
            absl::StatusCode::kResourceExhausted);
  release.count_down();
}

TEST(WorkerPoolTest, BytesAreBoundedAndGivenBackByTheEndAndByCancelling) {
  std::latch release(1);
  std::latch running(1);
  WorkerPool pool({.threads = 3, .max_admission_bytes = 10 * kLarge});
  // Alone it may be of any size.
  ASSERT_TRUE(pool.PostAdmission(20 * kLarge,
                                 [&] {
                                   running.count_down();
                                   release.wait();
                                 })
                  .ok());
  running.wait();
  const absl::Status refused = pool.PostAdmission(1, [] {}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(std::string(refused.message()).find("655360"), std::string::npos) << refused;
  release.count_down();
  while (pool.admission_load().bytes > 0) std::this_thread::yield();

  std::latch release_again(1);
  std::latch running_again(1);
  ASSERT_TRUE(pool.PostAdmission(kLarge,
                                 [&] {
                                   running_again.count_down();
                                   release_again.wait();
                                 })
                  .ok());
  running_again.wait();
  bool ran = false;
  auto ticket = pool.PostAdmission(9 * kLarge, [&] { ran = true; });
  ASSERT_TRUE(ticket.ok());
  EXPECT_FALSE(pool.PostAdmission(kLarge, [] {}).ok());
  EXPECT_TRUE(pool.CancelAdmission(*ticket));
  EXPECT_FALSE(pool.CancelAdmission(*ticket));
  EXPECT_TRUE(pool.PostAdmission(9 * kLarge, [] {}).ok());
  release_again.count_down();
  while (pool.admission_load().bytes > 0) std::this_thread::yield();
  EXPECT_FALSE(ran);
}

TEST(WorkerPoolTest, MemoryThatRunsOutEndsATaskAndNoThread) {
  std::latch done(2);
  WorkerPool pool({.threads = 3});
  for (int i = 0; i < 8; ++i) {
    pool.PostStreaming([] { throw std::bad_alloc(); });
    ASSERT_TRUE(pool.PostAdmission(kSmall, [] { throw std::bad_alloc(); }).ok());
  }
  pool.PostStreaming([&] { done.count_down(); });
  ASSERT_TRUE(pool.PostAdmission(kSmall, [&] { done.count_down(); }).ok());
  done.wait();
  while (pool.admission_load().bytes > 0) std::this_thread::yield();
}

}  // namespace
}  // namespace swaa::server
