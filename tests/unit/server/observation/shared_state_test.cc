// What all threads of the server share, from many threads at once: sums come out right, and the
// thread sanitizer watches.

#include <atomic>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "server/generate/drain_rate.h"
#include "server/generate/live_count.h"
#include "server/generate/slow_reader_watch.h"
#include "server/generate/steady_time.h"
#include "server/generate/worker_pool.h"
#include "server/observation/metrics.h"
#include "server/recipes/current_recipes.h"

namespace swaa::server {
namespace {

constexpr int kThreads = 6;
constexpr int kRounds = 200;

// body(thread, round), kRounds times in each of kThreads threads.
template <typename Body>
void RunInThreads(const Body& body) {
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&body, t] {
      for (int round = 0; round < kRounds; ++round) body(t, round);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

RecipeCatalog CatalogOf(int extra) {
  std::vector<NamedRecipeSpec> specs = BuiltInRecipes();
  for (int i = 0; i < extra; ++i) specs.push_back({.name = "extra" + std::to_string(i)});
  return *RecipeCatalog::Create(specs, 4, false, "full");
}

double SumOf(const Metrics& metrics, const std::string& family) {
  double sum = 0;
  for (const prometheus::MetricFamily& found : metrics.registry()->Collect()) {
    if (found.name != family) continue;
    for (const prometheus::ClientMetric& metric : found.metric) {
      sum += metric.counter.value + static_cast<double>(metric.histogram.sample_count);
    }
  }
  return sum;
}

TEST(SharedStateTest, MetricsCountEveryEndWhileRecipesComeAndGo) {
  CurrentRecipes recipes;
  recipes.Set(CatalogOf(0));
  Metrics metrics(*recipes.Get(), "1", "model", "cpu");
  std::atomic<bool> stop{false};
  std::thread reloads([&] {
    for (int i = 0; !stop; ++i) {
      recipes.Set(CatalogOf(i % 3));
      metrics.SetRecipes(*recipes.Get());
      metrics.OnConfigReload(true);
      (void)metrics.registry()->Collect();
    }
  });
  RunInThreads([&](int thread, int round) {
    RequestRecord record;
    // "full" never goes; what is counted under a name that goes, goes with it.
    record.recipe_label = round % 2 == 0 ? "full" : kCustomRecipeLabel;
    record.accepted = true;
    record.finish_reason = FinishReason::kStop;
    record.stats.completion_tokens = 3;
    metrics.OnRequestEnd(record);
    metrics.OnInterTokenLatency("extra1", absl::Milliseconds(round));
    metrics.OnStep({.prefill_tokens = thread, .decode_tokens = 1, .device_seconds = 0.01});
    EXPECT_NE(recipes.Get()->Find("full"), nullptr);
  });
  stop = true;
  reloads.join();
  EXPECT_EQ(SumOf(metrics, "swaa_requests_total"), kThreads * kRounds);
  EXPECT_EQ(SumOf(metrics, "swaa_generation_tokens_total"), 3 * kThreads * kRounds);
  EXPECT_EQ(SumOf(metrics, "swaa_batch_tokens"), kThreads * kRounds);
}

TEST(SharedStateTest, WorkersDoEverythingOnceAndTheCountFallsToZero) {
  LiveCount live;
  DrainRate rate;
  std::atomic<int> streamed{0}, admitted{0}, refused{0};
  EXPECT_TRUE(live.AwaitNone(absl::ZeroDuration()));
  live.Add();
  EXPECT_FALSE(live.AwaitNone(absl::Milliseconds(1)));
  {
    WorkerPool pool({.threads = 3, .max_queued_admissions = 50});
    RunInThreads([&](int thread, int round) {
      live.Add();
      rate.OnRequestBegin(SteadyNow());
      pool.PostStreaming([&] {
        ++streamed;
        rate.OnRequestEnd(SteadyNow());
        live.Remove();
      });
      EXPECT_GT(rate.NextWait(SteadyNow()), absl::ZeroDuration());
      if (!pool.PostAdmission(100, [&] { ++admitted; }).ok()) ++refused;
    });
    live.Remove();
    EXPECT_TRUE(live.AwaitNone(absl::Seconds(60)));
  }
  EXPECT_EQ(streamed, kThreads * kRounds);
  EXPECT_EQ(admitted + refused, kThreads * kRounds);
}

class CountedStream : public WatchedStream {
 public:
  absl::Time WaitingSince() const override { return since_.load(); }
  void CutOff() override {
    since_ = absl::InfiniteFuture();
    ++cuts_;
  }
  int cuts() const { return cuts_; }

 private:
  std::atomic<absl::Time> since_{absl::InfinitePast()};
  std::atomic<int> cuts_{0};
};

TEST(SharedStateTest, StreamsComeAndGoUnderTheWatch) {
  SlowReaderWatch watch(absl::Milliseconds(4));
  std::atomic<int> cuts{0};
  RunInThreads([&](int thread, int round) {
    auto stream = std::make_shared<CountedStream>();
    watch.Add(stream);
    if (round % 20 == 0) {
      const absl::Time until = SteadyNow() + absl::Minutes(2);
      while (stream->cuts() == 0 && SteadyNow() < until) absl::SleepFor(absl::Milliseconds(1));
      EXPECT_EQ(stream->cuts(), 1);
    }
    watch.Remove(stream.get());
    cuts += stream->cuts();
  });
  EXPECT_GE(cuts, kThreads * kRounds / 20);
}

}  // namespace
}  // namespace swaa::server
