// The store of experiments: what is recorded comes back, once, from a file or from memory.

#include "server/experiments/storage/experiment_store.h"

#include <array>
#include <cmath>
#include <fstream>
#include <limits>
#include <thread>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "tests/unit/server/experiments/storage_testing.h"

namespace swaa::server {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kRevision = uint64_t{0xf0} << 56 | 7;  // its first bit is set, as of half of all

Observations SomeObservations() {
  Observations some;
  some.sums[{.revision = kRevision, .arm = 1, .metric = "completion_tokens", .group = 255}] = {3,
                                                                                               1.5};
  some.sums[{.revision = kRevision, .metric = "error_rate", .triggered = true, .prompt_class = 4}] =
      {2, 0};
  some.sketches[{.revision = kRevision, .metric = "time_to_first_token_seconds", .group = 63}] = {
      {-300, 2}, {kInfiniteBin, 1}};
  some.units[{kRevision, ~uint64_t{0}}] = {.arm = 1, .first_ms = 500, .arms_seen = 0b10};
  some.units[{kRevision, 4}] = {.arm = 0, .first_ms = 600, .trigger_ms = 700, .arms_seen = 0b1};
  some.pairs[{.revision = kRevision, .metric = "request_duration_seconds", .pair = 40, .arm = 1}] =
      {5, -2.25};
  return some;
}

// From a file and from memory alike.
class ExperimentStoreTest : public ::testing::TestWithParam<bool> {
 protected:
  ExperimentStore::Options Options() const {
    return {.path = GetParam() ? folder_.File("a.db") : "", .key_fingerprint = "k1"};
  }
  TestFolder folder_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, ExperimentStoreTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "File" : "Memory"; });

TEST_P(ExperimentStoreTest, ObservationsAddUp) {
  const auto store = OpenStore(Options());
  store->Add(SomeObservations());
  ASSERT_TRUE(store->Flush().ok());
  Observations more = SomeObservations();
  more.units[{kRevision, 4}] = {.arm = 1, .first_ms = 550, .trigger_ms = 650, .arms_seen = 0b10};
  store->Add(more);
  const absl::StatusOr<ExperimentData> data = store->Snapshot(kRevision);
  ASSERT_TRUE(data.ok()) << data.status().message();

  const Observations& all = data->observations;
  ASSERT_EQ(all.sums.size(), 2u);
  EXPECT_EQ(all.sums.begin()->first, SomeObservations().sums.begin()->first);
  EXPECT_EQ(all.sums.rbegin()->first, SomeObservations().sums.rbegin()->first);
  EXPECT_EQ(all.sums.rbegin()->second.count, 6);
  EXPECT_EQ(all.sums.rbegin()->second.sum, 3.0);
  ASSERT_EQ(all.sketches.size(), 1u);
  EXPECT_EQ(all.sketches.begin()->second, (SketchBins{{-300, 4}, {kInfiniteBin, 2}}));
  ASSERT_EQ(all.units.size(), 2u);
  EXPECT_TRUE(all.units.contains({kRevision, ~uint64_t{0}}));
  const UnitRecord& united = all.units.at({kRevision, 4});
  EXPECT_EQ(united.arm, 1) << "of the earlier exposure";
  EXPECT_EQ(united.first_ms, 550);
  EXPECT_EQ(united.trigger_ms, 650);
  EXPECT_EQ(united.arms_seen, 0b11u);
  ASSERT_EQ(all.pairs.size(), 1u);
  EXPECT_EQ(all.pairs.begin()->first.pair, 40);
  EXPECT_EQ(all.pairs.begin()->second.sum, -4.5);
  EXPECT_EQ(all.dropped, 0);

  const absl::StatusOr<ExperimentData> other = store->Snapshot(kRevision + 1);
  ASSERT_TRUE(other.ok());
  EXPECT_TRUE(other->observations.empty());
}

TEST_P(ExperimentStoreTest, OutcomesAreRecordedOnce) {
  const auto store = OpenStore(Options());
  const auto first = Record(store.get(), OutcomesOf("r", {{"thumbs", 1}, {"edits", 2.5}}));
  ASSERT_TRUE(first.ok()) << first.status().message();
  EXPECT_EQ(*first, 2);
  EXPECT_EQ(*Record(store.get(), OutcomesOf("r", {{"thumbs", 1}, {"edits", 2.5}})), 0);
  EXPECT_EQ(*Record(store.get(), OutcomesOf("r", {{"edits", 2.5}, {"stars", 4}})), 1);

  const auto other = Record(store.get(), OutcomesOf("r", {{"new", 1}, {"thumbs", 0}}));
  EXPECT_EQ(other.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(other.status().message()),
              AllOf(HasSubstr("outcomes[1]"), HasSubstr("thumbs = 1"), HasSubstr("not 0")));
  ASSERT_TRUE(Record(store.get(), OutcomesOf("long", {{"seconds", 1234567.25}})).ok());
  EXPECT_THAT(
      std::string(
          Record(store.get(), OutcomesOf("long", {{"seconds", 1234567}})).status().message()),
      AllOf(HasSubstr("= 1234567.25 already"), HasSubstr("not 1234567;")));
  for (const std::vector<MetricValue>& wrong :
       {std::vector<MetricValue>{{"new", 1}, {"worse", std::nan("")}},
        std::vector<MetricValue>{{"new", std::numeric_limits<double>::infinity()}},
        std::vector<MetricValue>{{"new", 1}, {"new", 1}}}) {
    EXPECT_EQ(Record(store.get(), OutcomesOf("r", wrong)).status().code(),
              absl::StatusCode::kInvalidArgument);
  }

  const absl::StatusOr<ExperimentData> data = store->Snapshot();
  ASSERT_TRUE(data.ok());
  ASSERT_EQ(data->outcomes.size(), 4u) << "of a refused request nothing is recorded";
  const OutcomeRecord& record = data->outcomes.at({"r", "edits"});
  EXPECT_EQ(record.value, 2.5);
  EXPECT_EQ(record.at_ms, 2000);
  EXPECT_EQ(record.scope.revision, 7u);
  EXPECT_EQ(record.scope.arm, 1);
  EXPECT_EQ(record.scope.group, 3);
  EXPECT_EQ(record.scope.unit_key, 99u);
  EXPECT_EQ(record.scope.end_ms, 1000);
  EXPECT_EQ(store->stats().recorded_outcomes, 4);
}

TEST_P(ExperimentStoreTest, RevisionsAndStops) {
  const auto store = OpenStore(Options());
  ASSERT_TRUE(store->RecordRevision(kRevision, {"exp", "{1}", 100, 0, -1}).ok());
  EXPECT_EQ(store->RecordSampleRatio(kRevision + 1, -3).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store->RecordRevisionEnd(kRevision + 1, 200).code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(store->RecordSampleRatio(kRevision, -3).ok());
  ASSERT_TRUE(store->RecordSampleRatio(kRevision, -2).ok());
  ASSERT_TRUE(store->RecordRevisionEnd(kRevision, 200).ok());
  EXPECT_EQ(store->Snapshot()->revisions.at(kRevision).ended_ms, 200);
  ASSERT_TRUE(store->RecordRevision(kRevision, {"exp", "{2}", 300, 0, 0}).ok());
  const RevisionRecord revision = store->Snapshot()->revisions.at(kRevision);
  EXPECT_EQ(revision.experiment_id, "exp");
  EXPECT_EQ(revision.config_json, "{2}");
  EXPECT_EQ(revision.started_ms, 100);
  EXPECT_EQ(revision.ended_ms, 0);
  EXPECT_EQ(revision.min_log_sample_ratio_p, -3);

  ASSERT_TRUE(store->RecordStop({kRevision, 1}, {150, "error_rate"}).ok());
  ASSERT_TRUE(store->RecordStop({kRevision, 1}, {160, "again"}).ok());
  const ExperimentData data = *store->Snapshot();
  ASSERT_EQ(data.stops.size(), 1u);
  EXPECT_EQ(data.stops.at({kRevision, 1}).at_ms, 150);
  EXPECT_EQ(data.stops.at({kRevision, 1}).reason, "error_rate");
  ASSERT_TRUE(store->RemoveStops(kRevision).ok());
  EXPECT_TRUE(store->Snapshot()->stops.empty());
}

TEST_P(ExperimentStoreTest, WhatCannotBeKeptIsCounted) {
  ExperimentStore::Options options = Options();
  options.max_waiting_entries = 3;
  options.flush_interval = std::chrono::hours(1);
  const auto store = OpenStore(options);
  Observations one;
  one.sums[{.revision = 1, .metric = "a"}] = {1, 1};
  for (int i = 0; i < 10; ++i) store->Add(one);
  EXPECT_EQ(store->stats().dropped_observations, 0) << "the same entry again takes no room";
  store->Add(SomeObservations());
  EXPECT_EQ(store->stats().dropped_observations, 3 + 2 + 2 + 5);
  Observations bad = one;
  bad.sums[{.revision = 1, .metric = "b"}] = {4, std::nan("")};
  store->Add(bad);
  EXPECT_EQ(store->stats().dropped_observations, 16);
  const ExperimentData data = *store->Snapshot();
  EXPECT_EQ(data.observations.dropped, 16);
  ASSERT_EQ(data.observations.sums.size(), 1u);
  EXPECT_EQ(data.observations.sums.begin()->second.count, 11);
}

TEST(ExperimentStoreFileTest, AFileIsOpenedAgain) {
  const TestFolder folder;
  const ExperimentStore::Options options = {.path = folder.File("a?b#c%20.db"),
                                            .key_fingerprint = "k1"};
  std::string instance_id;
  {
    const auto store = OpenStore(options);
    instance_id = store->instance_id();
    store->Add(SomeObservations());
    Observations dropped;
    dropped.dropped = 9;
    store->Add(dropped);
    EXPECT_TRUE(Record(store.get(), OutcomesOf("r", {{"thumbs", 1}})).ok());
  }
  const auto store = OpenStore(options);
  EXPECT_TRUE(std::filesystem::exists(options.path));
  EXPECT_EQ(store->instance_id(), instance_id);
  const ExperimentData data = *store->Snapshot();
  EXPECT_EQ(data.instance_ids, std::vector<std::string>{instance_id});
  EXPECT_EQ(data.observations.sums.size(), 2u) << "what waited was written at the end";
  EXPECT_EQ(data.observations.dropped, 9);
  EXPECT_EQ(data.outcomes.size(), 1u);
  EXPECT_EQ(*Record(store.get(), OutcomesOf("r", {{"thumbs", 1}})), 0);
}

// What must not be opened, and what is said of it.
TEST(ExperimentStoreFileTest, Refusals) {
  const TestFolder folder;
  const std::string path = folder.File("a.db");
  const auto refusal = [&path](const std::string& fingerprint) {
    return ExperimentStore::Open({.path = path, .key_fingerprint = fingerprint}).status();
  };
  {
    const auto store = OpenStore({.path = path, .key_fingerprint = "k1"});
    EXPECT_EQ(refusal("k1").code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(refusal("k1").message()), HasSubstr("another server"));
  }
  EXPECT_EQ(refusal("k2").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refusal("k2").message()), AllOf(HasSubstr("k1"), HasSubstr("k2")));
  {
    auto database = *SqliteDatabase::Open(path, SqliteDatabase::Mode::kReadWrite);
    ASSERT_TRUE(database->Execute("UPDATE meta SET v = 99 WHERE k = 'schema'").ok());
  }
  EXPECT_EQ(refusal("k1").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refusal("k1").message()), HasSubstr("schema 99"));
  std::filesystem::remove(path);
  {
    auto database = *SqliteDatabase::Open(path, SqliteDatabase::Mode::kCreate);
    ASSERT_TRUE(database->Execute("CREATE TABLE theirs(x)").ok());
  }
  EXPECT_EQ(refusal("k1").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refusal("k1").message()), HasSubstr("none of experiments"));
  std::ofstream(path) << std::string(8192, 'x');
  EXPECT_EQ(refusal("k1").code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(refusal("k1").message()), AllOf(HasSubstr(path), HasSubstr("export")));
  EXPECT_EQ(ExperimentStore::Open({.path = folder.File("no/a.db")}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(ExperimentStoreFileTest, FileSystemsOfSeveralHostsAreRefused) {
  constexpr auto kRefused = std::to_array<uint32_t>(
      {NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, V9FS_MAGIC, CEPH_SUPER_MAGIC, FUSE_SUPER_MAGIC});
  constexpr auto kTaken = std::to_array<uint32_t>(
      {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC});
  for (const uint32_t magic : kRefused) {
    const absl::Status status = CheckFileSystemKind("/data/a.db", magic);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << magic;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("/data/a.db"), HasSubstr("block volume")));
  }
  for (const uint32_t magic : kTaken) {
    EXPECT_TRUE(CheckFileSystemKind("/data/a.db", magic).ok()) << magic;
  }
}

// While it lives no file can be made in the folder, by root neither: this thread's power to pass
// over permissions is put aside.
class NobodyWrites {
 public:
  explicit NobodyWrites(const std::string& folder) : folder_(folder) {
    SWAA_CHECK_EQ(chmod(folder_.c_str(), 0555), 0);
    SWAA_CHECK_EQ(syscall(SYS_capget, &header_, before_), 0);
    std::array<__user_cap_data_struct, 2> less = {before_[0], before_[1]};
    less[0].effective &= ~(1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH);
    SWAA_CHECK_EQ(syscall(SYS_capset, &header_, less.data()), 0);
  }
  ~NobodyWrites() {
    syscall(SYS_capset, &header_, before_);
    chmod(folder_.c_str(), 0700);
  }

 private:
  const std::string folder_;
  __user_cap_header_struct header_ = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct before_[2] = {};
};

// As of a backup: no file may be made beside it, as a reader of a write-ahead log would.
TEST(ExperimentStoreFileTest, AFolderThatNobodyWritesTo) {
  const TestFolder folder;
  const TestFolder cut_short;
  {
    const auto store = OpenStore({.path = folder.File("a.db"), .key_fingerprint = "k1"});
    ASSERT_TRUE(Record(store.get(), OutcomesOf("r", {{"thumbs", 1}})).ok());
    for (const char* name : {"a.db", "a.db-wal"}) {
      std::filesystem::copy(folder.File(name), cut_short.File(name));
    }
  }
  {
    const NobodyWrites here(cut_short.File(""));
    const absl::Status status = OpenExperimentFile(cut_short.File("a.db")).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status.message();
    EXPECT_THAT(std::string(status.message()), HasSubstr("a.db-wal"));
  }
  const NobodyWrites here(folder.File(""));
  const absl::StatusOr<OpenedExperimentFile> whole = OpenExperimentFile(folder.File("a.db"));
  ASSERT_TRUE(whole.ok()) << whole.status().message();
  EXPECT_EQ(ReadExperimentData({}, {}, whole->database.get())->outcomes.size(), 1u);
}

// Readers see whole requests while the writer writes, and the writer does not wait for them.
TEST(ExperimentStoreFileTest, ReadersBesideTheWriter) {
  const TestFolder folder;
  const auto store = OpenStore({.path = folder.File("a.db"),
                                .key_fingerprint = "k1",
                                .group_delay = std::chrono::milliseconds(1)});
  std::jthread exporter([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) EXPECT_TRUE(store->Export(folder.File("copy.db")).ok());
  });
  std::jthread reader([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const absl::StatusOr<ExperimentData> data = store->Snapshot();
      ASSERT_TRUE(data.ok()) << data.status().message();
      EXPECT_EQ(data->outcomes.size() % 2, 0u) << "half of a request";
    }
  });
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(
        Record(store.get(), OutcomesOf(std::to_string(i), {{"a", 1.0 * i}, {"b", 2}})).ok());
  }
  reader.request_stop();
  exporter.request_stop();
  exporter.join();
  ASSERT_TRUE(store->Export(folder.File("copy.db")).ok());
  const absl::StatusOr<OpenedExperimentFile> copy = OpenExperimentFile(folder.File("copy.db"));
  ASSERT_TRUE(copy.ok()) << copy.status().message();
  EXPECT_EQ(copy->identity.instance_id, store->instance_id());
  EXPECT_FALSE(std::filesystem::exists(folder.File("copy.db-wal")));
  EXPECT_EQ(ReadExperimentData({}, {}, copy->database.get())->outcomes.size(), 400u);
}

}  // namespace
}  // namespace swaa::server
