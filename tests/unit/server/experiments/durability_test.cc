// What a store has acknowledged is there after a kill and after a power loss; a full disk is said.

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/experiments/storage/experiment_store.h"
#include "tests/unit/server/experiments/power_loss_vfs.h"
#include "tests/unit/server/experiments/storage_testing.h"

namespace swaa::server {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

Observations OneValue() {
  Observations one;
  one.sums[{.revision = 1, .metric = "m"}] = {1, 1};
  return one;
}

// What clients were told is recorded.
class Acknowledged {
 public:
  void Add(const std::string& what) {
    const std::lock_guard lock(mutex_);
    all_.insert(what);
  }
  std::set<std::string> all() const {
    const std::lock_guard lock(mutex_);
    return all_;
  }

 private:
  mutable std::mutex mutex_;
  std::set<std::string> all_;
};

// Records number `i` of each kind and tells of each once it is acknowledged.
template <typename Tell>
void RecordAll(ExperimentStore* store, int i, const Tell& tell) {
  const std::string request_id = absl::StrCat("request-", i);
  if (Record(store, OutcomesOf(request_id, {{"a", 1.0 * i}, {"b", 1}})).ok()) {
    tell(absl::StrCat("outcome ", request_id));
  }
  const auto revision = static_cast<uint64_t>(i / 8);
  if (i % 8 == 0 && store->RecordRevision(revision, {"exp", "{}", 1, 0, 0}).ok()) {
    tell(absl::StrCat("revision ", revision));
  }
  if (i % 8 == 1 && store->RecordStop({revision, i}, {i, "harm"}).ok()) {
    tell(absl::StrCat("stop ", i));
  }
  if (i % 8 == 2 && store->RecordSampleRatio(revision, -i).ok()) {
    tell(absl::StrCat("ratio ", revision, " ", -i));
  }
  store->Add(OneValue());
}

// All that RecordAll may have told of.
std::set<std::string> Kept(const ExperimentData& data) {
  std::set<std::string> kept;
  for (const auto& [key, record] : data.outcomes) {
    EXPECT_TRUE(data.outcomes.contains({key.request_id, key.metric == "a" ? "b" : "a"}))
        << "half of a request";
    kept.insert(absl::StrCat("outcome ", key.request_id));
  }
  for (const auto& [revision, record] : data.revisions) {
    kept.insert(absl::StrCat("revision ", revision));
    kept.insert(
        absl::StrCat("ratio ", revision, " ", static_cast<int>(record.min_log_sample_ratio_p)));
  }
  for (const auto& [key, record] : data.stops) kept.insert(absl::StrCat("stop ", record.at_ms));
  return kept;
}

// What of it a store that is opened there does not have.
std::set<std::string> Lost(const std::set<std::string>& acknowledged, const std::string& path) {
  const auto store = ExperimentStore::Open({.path = path, .synchronous = "OFF"});  // only read
  const absl::StatusOr<ExperimentData> data =
      store.ok() ? (*store)->Snapshot() : absl::StatusOr<ExperimentData>(store.status());
  std::set<std::string> lost;
  if (!data.ok()) {
    lost = acknowledged;
    lost.insert("all: " + std::string(data.status().message()));
    return lost;
  }
  const std::set<std::string> kept = Kept(*data);
  std::set_difference(acknowledged.begin(), acknowledged.end(), kept.begin(), kept.end(),
                      std::inserter(lost, lost.end()));
  return lost;
}

// Records in a process that ends by a kill; tells through `pipe`, one line each.
[[noreturn]] void RecordUntilKilled(const std::string& path, int first, int pipe) {
  const auto store = OpenStore({.path = path, .group_delay = std::chrono::milliseconds(1)});
  std::atomic<int> next = first;
  std::vector<std::thread> clients;
  for (int client = 0; client < 4; ++client) {
    clients.emplace_back([&] {
      for (;;) {
        RecordAll(store.get(), next++, [pipe](const std::string& what) {
          const std::string line = what + "\n";
          if (write(pipe, line.data(), line.size()) < 0) _exit(1);
        });
      }
    });
  }
  for (std::thread& client : clients) client.join();
  _exit(0);
}

TEST(DurabilityTest, AKillLosesNothing) {
  const TestFolder folder;
  const std::string path = folder.File("a.db");
  std::set<std::string> acknowledged;
  for (int round = 0; round < 4; ++round) {
    int pipes[2];
    ASSERT_EQ(pipe(pipes), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) RecordUntilKilled(path, 1'000'000 * (round + 1), pipes[1]);
    close(pipes[1]);
    FILE* const told = fdopen(pipes[0], "r");
    char line[256];
    for (int lines = 0; fgets(line, sizeof(line), told) != nullptr; ++lines) {
      std::string what = line;
      what.pop_back();
      acknowledged.insert(what);
      if (lines == 40 * (round + 1)) kill(child, SIGKILL);
    }
    fclose(told);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "exit code " << WEXITSTATUS(status);
    EXPECT_THAT(Lost(acknowledged, path), IsEmpty()) << "round " << round;
  }
  EXPECT_GT(acknowledged.size(), 160u);
}

// What of all that was acknowledged is missing after power losses at moments of all kinds, creation
// and checkpoints of the log among them.
std::set<std::string> LostByPower(const std::string& synchronous, uint64_t seed) {
  const TestFolder folder;
  PowerLossVfs vfs("power-loss");
  std::mt19937_64 random(seed);
  Acknowledged acknowledged;
  std::set<std::string> lost;
  std::atomic<bool> done = false;
  std::atomic<int> moments = 0;
  const std::string path = folder.File("a.db");
  std::thread clients([&] {
    const auto store = OpenStore({.path = path,
                                  .max_group = 4,
                                  .group_delay = std::chrono::milliseconds(0),
                                  .synchronous = synchronous,
                                  .vfs = vfs.name()});
    // A log is checkpointed after a thousand pages.
    for (int i = 0; i < 1200 || moments < 12; ++i) {
      RecordAll(store.get(), i, [&](const std::string& what) { acknowledged.Add(what); });
    }
    done = true;
  });
  while (!done) {
    const TestFolder remains;
    const std::set<std::string> told = acknowledged.all();
    vfs.WriteRemains(remains.File(""), 0.5 * (moments++ % 3), &random);
    lost.merge(Lost(told, remains.File("a.db")));
  }
  clients.join();
  EXPECT_GE(acknowledged.all().size(), 1200u + 3 * 150) << "all are acknowledged";
  return lost;
}

TEST(DurabilityTest, APowerLossLosesNothing) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  EXPECT_THAT(LostByPower("FULL", seed), IsEmpty());
}

// Settings that are often recommended beside a write-ahead log are seen to lose.
TEST(DurabilityTest, LessThanFullLoses) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  EXPECT_THAT(LostByPower("NORMAL", seed), Not(IsEmpty()));
  EXPECT_THAT(LostByPower("OFF", seed), Not(IsEmpty()));
}

TEST(DurabilityTest, AFullDisk) {
  const TestFolder folder;
  PowerLossVfs vfs("full-disk");
  const ExperimentStore::Options options = {
      .path = folder.File("a.db"), .max_waiting_entries = 1, .vfs = vfs.name()};
  {
    const auto store = OpenStore(options);
    ASSERT_TRUE(Record(store.get(), OutcomesOf("before", {{"a", 1}})).ok());
    vfs.FailWrites(SQLITE_FULL);
    const absl::Status full = Record(store.get(), OutcomesOf("full", {{"a", 1}})).status();
    EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(full.message()),
                AllOf(HasSubstr(options.path), HasSubstr("free space")));
    EXPECT_EQ(store->RecordStop({1, 1}, {1, "harm"}).code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(store->RecordRevision(1, {}).code(), absl::StatusCode::kResourceExhausted);
    store->Add(OneValue());
    EXPECT_EQ(store->Flush().code(), absl::StatusCode::kResourceExhausted);
    Observations other;
    other.sums[{.revision = 1, .metric = "other"}] = {5, 1};
    store->Add(other);  // one entry waits already
    EXPECT_EQ(store->stats().dropped_observations, 5);
    EXPECT_GE(store->stats().failed_writes, 4);
    const absl::StatusOr<ExperimentData> data = store->Snapshot();
    ASSERT_TRUE(data.ok()) << data.status().message();
    EXPECT_THAT(data->warnings, Contains(HasSubstr("cannot be written")));
    EXPECT_EQ(data->observations.dropped, 5);
    EXPECT_EQ(data->outcomes.size(), 1u);

    vfs.FailWrites(SQLITE_OK);
    vfs.FailSyncs(SQLITE_IOERR_FSYNC);
    EXPECT_EQ(Record(store.get(), OutcomesOf("unsynced", {{"a", 1}})).status().code(),
              absl::StatusCode::kUnavailable);
    vfs.FailSyncs(SQLITE_OK);
    EXPECT_EQ(*Record(store.get(), OutcomesOf("full", {{"a", 1}})), 1);
    EXPECT_EQ(*Record(store.get(), OutcomesOf("unsynced", {{"a", 1}})), 1);
  }
  const auto store = OpenStore(options);
  const ExperimentData data = *store->Snapshot();
  EXPECT_EQ(data.outcomes.size(), 3u);
  EXPECT_TRUE(data.stops.empty());
  EXPECT_EQ(data.observations.sums.size(), 1u) << "what waited was written when it could be";
  EXPECT_EQ(data.observations.dropped, 5);
}

TEST(DurabilityTest, ADamagedFile) {
  const TestFolder folder;
  const std::string path = folder.File("a.db");
  {
    const auto store = OpenStore({.path = path});
    for (int i = 0; i < 64; ++i) {
      store->RecordOutcomes(OutcomesOf(std::string(200, 'r') + std::to_string(i), {{"a", 1}}),
                            [](const absl::StatusOr<int32_t>&) {});
    }
  }
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path));
  constexpr int64_t kPage = 4096;
  ASSERT_GT(size, 10 * kPage);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  for (int64_t at = 8 * kPage; at < size; ++at) file.seekp(at).put('\xee');
  file.close();
  const auto store = OpenStore({.path = path});
  const absl::Status read = store->Snapshot().status();
  EXPECT_EQ(read.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(read.message()), AllOf(HasSubstr(path), HasSubstr("export")));
  EXPECT_EQ(Record(store.get(), OutcomesOf("r", {{"a", 1}})).status().code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace swaa::server
