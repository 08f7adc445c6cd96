// Who is cut off, and who is left alone.

#include "server/generate/slow_reader_watch.h"

#include <atomic>

#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "server/generate/steady_time.h"

namespace swaa::server {
namespace {

constexpr absl::Duration kTimeout = absl::Milliseconds(40);

class FakeStream : public WatchedStream {
 public:
  explicit FakeStream(absl::Time since) : since_(since) {}
  absl::Time WaitingSince() const override {
    ++looks_;
    return since_.load();
  }
  void CutOff() override {
    ++cuts_;
    since_ = absl::InfiniteFuture();
  }
  int looks() const { return looks_; }
  int cuts() const { return cuts_; }

 private:
  std::atomic<absl::Time> since_;
  mutable std::atomic<int> looks_{0};
  std::atomic<int> cuts_{0};
};

template <typename Condition>
bool Await(const Condition& condition) {
  const absl::Time until = absl::Now() + absl::Minutes(2);
  while (!condition() && absl::Now() < until) absl::SleepFor(absl::Milliseconds(2));
  return condition();
}

TEST(SlowReaderWatchTest, CutsOffWhoWaitedTooLongAndNobodyElse) {
  SlowReaderWatch watch(kTimeout);
  auto stalled = std::make_shared<FakeStream>(SteadyNow());
  auto reading = std::make_shared<FakeStream>(absl::InfiniteFuture());
  watch.Add(stalled);
  watch.Add(reading);
  ASSERT_TRUE(Await([&] { return stalled->cuts() == 1; }));
  const int looks = reading->looks();
  ASSERT_TRUE(Await([&] { return reading->looks() > looks + 2; }));
  EXPECT_EQ(reading->cuts(), 0);
  EXPECT_EQ(stalled->cuts(), 1);
  watch.Remove(stalled.get());
  watch.Remove(reading.get());
}

TEST(SlowReaderWatchTest, AStreamThatIsGoneIsNotLookedAt) {
  SlowReaderWatch watch(kTimeout);
  auto removed = std::make_shared<FakeStream>(absl::InfiniteFuture());
  watch.Add(removed);
  ASSERT_TRUE(Await([&] { return removed->looks() > 0; }));
  watch.Remove(removed.get());
  // Destroyed without a word: the watch holds no stream alive.
  auto destroyed = std::make_shared<FakeStream>(absl::InfiniteFuture());
  watch.Add(destroyed);
  const std::weak_ptr<FakeStream> weak = destroyed;
  const FakeStream* key = destroyed.get();
  destroyed.reset();
  ASSERT_TRUE(Await([&] { return weak.expired(); }));
  watch.Remove(key);
  // Asleep now; a newcomer wakes it.
  absl::SleepFor(2 * kTimeout);
  const int looks = removed->looks();
  auto late = std::make_shared<FakeStream>(SteadyNow());
  watch.Add(late);
  ASSERT_TRUE(Await([&] { return late->cuts() == 1; }));
  EXPECT_EQ(removed->looks(), looks);
  watch.Remove(late.get());
}

}  // namespace
}  // namespace swaa::server
