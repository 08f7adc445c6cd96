// How many requests' outcomes a second the store of experiments acknowledges, and how long one
// waits: one at a time, in groups of each size, and beside observations.
//
//   build/bin/experiment_store_bench [FOLDER]      the folder's disk is what is measured

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include "base/check.h"
#include "server/experiments/storage/experiment_store.h"

namespace swaa::server {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kDuration(3);

double Milliseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

// `clients` requests are under way at any time: each is sent when one before it is acknowledged.
class Clients {
 public:
  explicit Clients(ExperimentStore* store) : store_(store) {}

  void Run(int clients) {
    start_ = Clock::now();
    for (int i = 0; i < clients; ++i) Send();
    while (under_way_ > 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    elapsed_ = Clock::now() - start_;
  }
  void Print(const char* what, int clients) {
    std::sort(latencies_.begin(), latencies_.end());
    const auto at = [this](double share) {
      return latencies_[static_cast<size_t>(share * static_cast<double>(latencies_.size() - 1))];
    };
    std::printf("%-28s %4d clients  %8.0f outcomes/s   p50 %6.2f ms   p99 %6.2f ms\n", what,
                clients, static_cast<double>(latencies_.size()) / Milliseconds(elapsed_) * 1e3,
                at(0.5), at(0.99));
  }

 private:
  void Send() {
    ++under_way_;
    const Clock::time_point sent = Clock::now();
    const int64_t number = next_++;
    RequestOutcomes outcomes = {.request_id = "request-" + std::to_string(number),
                                .scope = {.revision = 1, .unit_key = 1},
                                .values = {{"thumbs", 1}}};
    store_->RecordOutcomes(std::move(outcomes), [this, sent](absl::StatusOr<int32_t> recorded) {
      SWAA_CHECK(recorded.ok() && *recorded == 1) << recorded.status().message();
      const Clock::time_point now = Clock::now();
      latencies_.push_back(Milliseconds(now - sent));  // the writer's thread alone gets here
      if (now - start_ < kDuration) Send();
      --under_way_;
    });
  }

  ExperimentStore* const store_;
  Clock::time_point start_;
  Clock::duration elapsed_{};
  std::atomic<int64_t> next_ = 0;
  std::atomic<int> under_way_ = 0;
  std::vector<double> latencies_;
};

void Measure(const char* what, const std::string& folder, ExperimentStore::Options options,
             int clients) {
  options.path = folder + "/experiment_store_bench.db";
  for (const char* suffix : {"", "-wal", "-shm", ".lock"}) {
    std::filesystem::remove(options.path + suffix);
  }
  absl::StatusOr<std::unique_ptr<ExperimentStore>> store = ExperimentStore::Open(options);
  SWAA_CHECK(store.ok()) << store.status().message();
  Clients running(store->get());
  running.Run(clients);
  running.Print(what, clients);
  store->reset();
  for (const char* suffix : {"", ".lock"}) std::filesystem::remove(options.path + suffix);
}

void Run(const std::string& folder) {
  const ExperimentStore::Options grouped;
  ExperimentStore::Options single;
  single.max_group = 1;
  single.group_delay = std::chrono::milliseconds(0);
  Measure("one a commit", folder, single, 1);
  Measure("one a commit", folder, single, 256);
  for (const int clients : {1, 16, 256, 1024})
    Measure("groups (default)", folder, grouped, clients);
  ExperimentStore::Options unsafe = grouped;
  unsafe.synchronous = "NORMAL";
  Measure("groups, not durable (NORMAL)", folder, unsafe, 256);
}

}  // namespace
}  // namespace swaa::server

int main(int argc, char** argv) {
  swaa::server::Run(argc > 1 ? argv[1] : ".");
  return 0;
}
