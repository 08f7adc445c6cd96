// The worker pool: order, bounds, and the thread that admissions never take.

#include "server/worker_pool.h"

#include <atomic>

#include <gtest/gtest.h>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"

namespace swaa::server {
namespace {

TEST(WorkerPoolTest, AdmissionsNeverTakeTheLastThread) {
  absl::Notification release;
  absl::Notification streamed;
  absl::BlockingCounter begun(2);
  std::atomic<int> admitted{0};
  {
    WorkerPool pool({.threads = 3, .max_queued_admissions = 10});
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(pool.TryPostAdmission([&, i] {
        if (i < 2) begun.DecrementCount();
        release.WaitForNotification();
        ++admitted;
      }));
    }
    begun.Wait();
    EXPECT_EQ(admitted, 0);
    pool.PostStreaming([&] { streamed.Notify(); });
    streamed.WaitForNotification();  // though two admissions run and three wait
    release.Notify();
  }
  EXPECT_EQ(admitted, 5) << "the destructor leaves nothing undone";
}

TEST(WorkerPoolTest, FullQueueOfAdmissionsRefuses) {
  absl::Notification release;
  absl::Notification running;
  WorkerPool pool({.threads = 2, .max_queued_admissions = 2});
  ASSERT_TRUE(pool.TryPostAdmission([&] {
    running.Notify();
    release.WaitForNotification();
  }));
  running.WaitForNotification();
  EXPECT_TRUE(pool.TryPostAdmission([] {}));
  EXPECT_TRUE(pool.TryPostAdmission([] {}));
  EXPECT_FALSE(pool.TryPostAdmission([] {}));
  release.Notify();
}

}  // namespace
}  // namespace swaa::server
