// Many replicas' files as one: the same as if one had served all.

#include "server/experiments/storage/merge.h"

#include <algorithm>
#include <cmath>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/unit/server/experiments/storage_testing.h"

namespace swaa::server {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr uint64_t kRevision = 7;
constexpr int64_t kDay = kMillisecondsPerDay;

// Files of replicas that share a clock.
class MergeTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return folder_.File(name + ".db"); }
  std::unique_ptr<ExperimentStore> Open(const std::string& name, const std::string& key = "k1") {
    auto store = OpenStore({.path = Path(name),
                            .key_fingerprint = key,
                            .group_delay = std::chrono::milliseconds(0),
                            .synchronous = "OFF",
                            .now_ms = [this] { return now_ms_; }});
    SWAA_CHECK(store->RecordRevision(kRevision, {"exp", kConfig, 0, 0, 0}).ok());
    return store;
  }
  // A request of a unit on a replica, at the clock's time.
  void Serve(ExperimentStore* store, uint64_t unit, int32_t arm, int64_t value = 1) {
    Observations observations;
    const auto group = static_cast<int32_t>(unit % kUnitGroups);
    observations.sums[{kRevision, arm, "m", false, 0, group}] = {1, 1.0 * value};
    observations.sketches[{kRevision, arm, "m", 0, group / 4}] = {{static_cast<int32_t>(value), 1}};
    observations.pairs[{kRevision, "m", now_ms_ / kDay, arm}] = {1, 1.0 * value};
    observations.units[{kRevision, unit}] = {arm, now_ms_, 0, uint64_t{1} << arm};
    store->Add(observations);
    SWAA_CHECK(store->Flush().ok());
  }
  absl::StatusOr<int32_t> Outcome(ExperimentStore* store, const std::string& request_id,
                                  double value, int64_t end_ms) {
    return Record(store, {.request_id = request_id,
                          .scope = {.revision = kRevision, .arm = 1, .end_ms = end_ms},
                          .at_ms = now_ms_,
                          .values = {{"thumbs", value}}});
  }
  ExperimentData Merge(const std::vector<std::string>& names) {
    std::vector<std::string> paths;
    for (const std::string& name : names) paths.push_back(Path(name));
    absl::StatusOr<ExperimentData> data = MergeExperimentFiles(paths);
    SWAA_CHECK(data.ok()) << data.status().message();
    return *std::move(data);
  }

  static constexpr char kConfig[] =
      R"({"experiment": {"arms": [{"name": "full"}, {"name": "window"}]}})";
  TestFolder folder_;
  int64_t now_ms_ = 20'000 * kDay;
};

// Everything of one as text, to compare.
std::string Describe(const ExperimentData& data) {
  std::string text = absl::StrCat("dropped ", data.observations.dropped, "\n");
  for (const auto& [key, sum] : data.observations.sums) {
    absl::StrAppend(&text, "sum ", key.arm, " ", key.metric, " ", key.group, ": ", sum.count, " ",
                    sum.sum, "\n");
  }
  for (const auto& [key, bins] : data.observations.sketches) {
    for (const auto& [bin, count] : bins) {
      absl::StrAppend(&text, "bin ", key.arm, " ", key.group, " ", bin, ": ", count, "\n");
    }
  }
  for (const auto& [key, unit] : data.observations.units) {
    absl::StrAppend(&text, "unit ", key.unit_key, ": ", unit.arm, " ", unit.first_ms, " ",
                    unit.trigger_ms, " ", unit.arms_seen, "\n");
  }
  for (const auto& [key, sum] : data.observations.pairs) {
    absl::StrAppend(&text, "pair ", key.pair, " ", key.arm, ": ", sum.count, " ", sum.sum, "\n");
  }
  for (const auto& [key, record] : data.outcomes) {
    absl::StrAppend(&text, "outcome ", key.request_id, " ", key.metric, ": ", record.value, " ",
                    record.at_ms, " ", record.scope.end_ms, "\n");
  }
  for (const auto& [key, record] : data.revisions) {
    absl::StrAppend(&text, "revision ", key, ": ", record.experiment_id, " ", record.config_json,
                    " ", record.started_ms, " ", record.ended_ms, "\n");
  }
  return text;
}

TEST_F(MergeTest, FourReplicasAreOne) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937_64 random(seed);
  {
    const auto one = Open("one");
    std::vector<std::unique_ptr<ExperimentStore>> four;
    for (const char* name : {"a", "b", "c", "d"}) four.push_back(Open(name));
    for (int i = 0; i < 200; ++i) {
      now_ms_ += static_cast<int64_t>(random() % (kDay / 16));
      const uint64_t unit = random() % 40;
      const auto value = static_cast<int64_t>(random() % 100);
      const std::unique_ptr<ExperimentStore>& replica = four[random() % 4];
      Serve(one.get(), unit, static_cast<int32_t>(unit % 2), value);
      Serve(replica.get(), unit, static_cast<int32_t>(unit % 2), value);
      // The client sends it to any replica, and once more to another if it heard nothing.
      const std::string request_id = absl::StrCat("r", i);
      ASSERT_EQ(*Outcome(one.get(), request_id, 1.0 * value, now_ms_), 1);
      ASSERT_EQ(*Outcome(four[random() % 4].get(), request_id, 1.0 * value, now_ms_), 1);
      if (i % 5 == 0) {
        ASSERT_TRUE(Outcome(replica.get(), request_id, 1.0 * value, now_ms_).ok());
      }
    }
  }
  const ExperimentData merged = Merge({"a", "b", "c", "d"});
  EXPECT_EQ(Describe(merged), Describe(Merge({"one"})));
  EXPECT_GE(merged.observations.units.size(), 30u);
  EXPECT_EQ(merged.outcomes.size(), 200u);
  EXPECT_EQ(merged.instance_ids.size(), 4u);
  EXPECT_THAT(merged.warnings, IsEmpty());
}

TEST_F(MergeTest, ConflictsAreTold) {
  {
    const auto a = Open("a");
    const auto b = Open("b");
    Serve(a.get(), 5, 0);
    ASSERT_TRUE(Outcome(b.get(), "r", 4, 1).ok());
    now_ms_ += 10;
    Serve(b.get(), 5, 1);
    ASSERT_TRUE(Outcome(a.get(), "r", 3, 1).ok());
    ASSERT_TRUE(a->RecordSampleRatio(kRevision, -5).ok());
    ASSERT_TRUE(b->RecordSampleRatio(kRevision, -0.1).ok());
    ASSERT_TRUE(a->RecordRevisionEnd(kRevision, 99).ok());
  }
  for (const std::vector<std::string>& order :
       {std::vector<std::string>{"a", "b"}, std::vector<std::string>{"b", "a"}}) {
    const ExperimentData data = Merge(order);
    EXPECT_THAT(data.warnings,
                ElementsAre(AllOf(HasSubstr("1 outcomes differ"), HasSubstr("thumbs of r")),
                            HasSubstr("1 units were in different arms")));
    EXPECT_EQ(data.outcomes.at({"r", "thumbs"}).value, 4) << "the earlier one";
    EXPECT_EQ(data.observations.units.at({kRevision, 5}).arm, 0);
    EXPECT_EQ(data.observations.units.at({kRevision, 5}).arms_seen, 0b11u);
    const RevisionRecord& revision = data.revisions.at(kRevision);
    EXPECT_EQ(revision.ended_ms, 0) << "still in force on one";
    EXPECT_DOUBLE_EQ(revision.min_log_sample_ratio_p, -5 + std::log(2.0));
  }
}

TEST_F(MergeTest, AnArmEndsWithItsFirstStop) {
  {
    const auto a = Open("a");
    const auto b = Open("b");
    const auto c = Open("c");
    for (int day = 0; day < 4; ++day) {
      // Replica a stops the arm at noon of day 2, b on day 3, c never.
      if (day < 2) Serve(a.get(), 10 + day, 1);
      Serve(b.get(), 20 + day, 1);
      Serve(c.get(), 30 + day, 1);
      Serve(c.get(), 40 + day, 0);
      ASSERT_TRUE(Outcome(c.get(), absl::StrCat("c", day), 1, now_ms_).ok());
      if (day == 2) {
        now_ms_ += kDay / 2;
        Serve(a.get(), 12, 1);
        ASSERT_TRUE(a->RecordStop({kRevision, 1}, {now_ms_ + 1, "error_rate"}).ok());
        now_ms_ -= kDay / 2;
      }
      now_ms_ += kDay;
    }
    ASSERT_TRUE(b->RecordStop({kRevision, 1}, {now_ms_ - kDay / 2, "error_rate"}).ok());
  }
  const ExperimentData data = Merge({"a", "b", "c"});
  int64_t in_arm[2] = {0, 0};
  for (const auto& [key, sum] : data.observations.sums) in_arm[key.arm] += sum.count;
  EXPECT_EQ(in_arm[0], 4) << "control goes on";
  EXPECT_EQ(in_arm[1], 3 + 2 + 2) << "all of a, whole days of b and c";
  EXPECT_EQ(data.observations.pairs.at({kRevision, "m", 20'001, 1}).count, 3);
  EXPECT_FALSE(data.observations.units.contains({kRevision, 33}));
  EXPECT_TRUE(data.observations.units.contains({kRevision, 12}));
  EXPECT_TRUE(data.outcomes.contains({"c2", "thumbs"})) << "its request ended before the stop";
  EXPECT_FALSE(data.outcomes.contains({"c3", "thumbs"}));
  ASSERT_EQ(data.stops.size(), 1u);
  EXPECT_EQ(data.stops.at({kRevision, 1}).at_ms, 20'002 * kDay + kDay / 2 + 1);
  ASSERT_EQ(data.warnings.size(), 1u);
  EXPECT_THAT(data.warnings[0],
              AllOf(HasSubstr("experiment exp, arm window"), HasSubstr(data.instance_ids[0]),
                    HasSubstr(data.instance_ids[1] + " (until 2024-10-07T12:00:00Z)"),
                    HasSubstr(data.instance_ids[2] + ":"), HasSubstr("error_rate")));
  EXPECT_THAT(Merge({"c"}).warnings, IsEmpty());
  EXPECT_EQ(Merge({"c"}).observations.units.size(), 8u);
}

// An operator goes from replica to replica.
TEST_F(MergeTest, StopsOfTheSameMinutesAreOne) {
  {
    const auto a = Open("a");
    const auto b = Open("b");
    Serve(a.get(), 1, 1);
    ASSERT_TRUE(a->RecordStop({kRevision, kAllArms}, {now_ms_ + 1, "operator"}).ok());
    now_ms_ += kOneStopMilliseconds;
    Serve(b.get(), 2, 1);
    ASSERT_TRUE(b->RecordStop({kRevision, kAllArms}, {now_ms_ + 1, "operator"}).ok());
  }
  EXPECT_EQ(Merge({"a", "b"}).observations.units.size(), 2u);
  EXPECT_THAT(Merge({"a", "b"}).warnings, IsEmpty());
  {
    const auto c = Open("c");
    Serve(c.get(), 3, 0);
    Serve(c.get(), 4, 1);
  }
  const ExperimentData data = Merge({"b", "a", "c"});
  EXPECT_EQ(data.observations.units.size(), 2u) << "of all arms";
  ASSERT_EQ(data.warnings.size(), 1u);
  EXPECT_THAT(data.warnings[0],
              AllOf(HasSubstr("experiment exp was stopped"), Not(HasSubstr("arm"))));
}

TEST_F(MergeTest, Refusals) {
  Open("a");
  Open("b", "k2");
  const auto refusal = [](const std::vector<std::string>& paths) {
    return MergeExperimentFiles(paths).status();
  };
  EXPECT_EQ(refusal({}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refusal({Path("none")}).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(refusal({Path("a"), Path("b")}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refusal({Path("a"), Path("b")}).message()),
              AllOf(HasSubstr("k1"), HasSubstr("k2")));
  std::filesystem::copy(Path("a"), Path("copy"));
  EXPECT_EQ(refusal({Path("a"), Path("copy")}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refusal({Path("a"), Path("copy")}).message()), HasSubstr("twice"));
}

}  // namespace
}  // namespace swaa::server
