// The worker pool: order, bounds, and the thread that admissions never take.

#include "server/generate/worker_pool.h"

#include <atomic>
#include <latch>

#include <gtest/gtest.h>

namespace swaa::server {
namespace {

TEST(WorkerPoolTest, AdmissionsNeverTakeTheLastThread) {
  std::latch release(1);
  std::latch streamed(1);
  std::latch begun(2);
  std::atomic<int> admitted{0};
  {
    WorkerPool pool({.threads = 3, .max_queued_admissions = 10});
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(pool.TryPostAdmission([&, i] {
        if (i < 2) begun.count_down();
        release.wait();
        ++admitted;
      }));
    }
    begun.wait();
    EXPECT_EQ(admitted, 0);
    pool.PostStreaming([&] { streamed.count_down(); });
    streamed.wait();  // though two admissions run and three wait
    release.count_down();
  }
  EXPECT_EQ(admitted, 5) << "the destructor leaves nothing undone";
}

TEST(WorkerPoolTest, FullQueueOfAdmissionsRefuses) {
  std::latch release(1);
  std::latch running(1);
  WorkerPool pool({.threads = 2, .max_queued_admissions = 2});
  ASSERT_TRUE(pool.TryPostAdmission([&] {
    running.count_down();
    release.wait();
  }));
  running.wait();
  EXPECT_TRUE(pool.TryPostAdmission([] {}));
  EXPECT_TRUE(pool.TryPostAdmission([] {}));
  EXPECT_FALSE(pool.TryPostAdmission([] {}));
  release.count_down();
}

}  // namespace
}  // namespace swaa::server
