// Experiments as requests and clients meet them: arms, outcomes, stops and restarts.

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>
#include <utility>

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include "absl/strings/str_cat.h"
#include "server/experiments/experiments.h"
#include "server/experiments/metric_names.h"

namespace swaa::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kNow = 1'764'100'000'000;
constexpr int32_t kLayers = 4;

std::optional<ArmRecipe> FindRecipe(const std::string& name) {
  if (name == "full") return ArmRecipe{*ResolveRecipe({}, kLayers)};
  if (name == "window") return ArmRecipe{*ResolveRecipe({.sliding_window_tokens = 64}, kLayers)};
  return std::nullopt;
}

constexpr char kExperiment[] = R"(
    id: "chat" control_arm: "control"
    arms { name: "control" recipe_name: "full" }
    arms { name: "small" recipe_name: "window" }
    metrics { name: "thumbs_up" role: METRIC_ROLE_GUARDRAIL scale: METRIC_SCALE_RATE
              higher_is_better: true minimum_detectable_effect: 0.02 }
    metrics { name: "score" role: METRIC_ROLE_GOAL scale: METRIC_SCALE_LOG_MEAN
              higher_is_better: true minimum_detectable_effect: 0.05 })";

class ExperimentsTest : public ::testing::Test {
 protected:
  ExperimentsTest() {
    folder_ = std::filesystem::temp_directory_path() /
              absl::StrCat("swaa-experiments-", ::getpid(), "-",
                           ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ / "key") << "0123456789abcdefghijklmnopqrstuvwxyzABCDEF";
    std::filesystem::permissions(folder_ / "key", std::filesystem::perms::owner_read);
  }
  ~ExperimentsTest() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Experiments> Open(const std::string& file = "a.db") {
    auto experiments = Experiments::Create({.path = folder_ / file,
                                            .key_file = folder_ / "key",
                                            .check_interval = absl::Milliseconds(100),
                                            .now_ms = [this] {
                                              ++clock_reads_;
                                              return now_.load();
                                            }});
    EXPECT_TRUE(experiments.ok()) << experiments.status();
    return *std::move(experiments);
  }

  // Until all has been checked once more: a check asks for the time once, the store at its writes.
  void AwaitCheck() {
    const int before = clock_reads_;
    while (clock_reads_ < before + 5) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  static void Configure(Experiments* experiments, const std::vector<std::string>& texts) {
    google::protobuf::RepeatedPtrField<v1::Experiment> protos;
    for (const std::string& text : texts) {
      ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, protos.Add()));
    }
    auto set = experiments->Check(protos, {FindRecipe, "full, window"});
    ASSERT_TRUE(set.ok()) << set.status();
    ASSERT_TRUE(experiments->Adopt(*std::move(set)).ok());
  }

  // A unit whose arm it is.
  static std::string UnitOf(Experiments* experiments, const std::string& arm, int number = 0) {
    for (int i = 0; i < 1000; ++i) {
      v1::GetAssignmentRequest request;
      request.set_experiment_unit_id(absl::StrCat("user-", i));
      if (experiments->GetAssignment(request)->arm() == arm && number-- == 0) {
        return request.experiment_unit_id();
      }
    }
    ADD_FAILURE() << "no unit is in " << arm;
    return "";
  }

  static RequestRecord Finished(int32_t prompt_tokens = 10) {
    RequestRecord record;
    record.accepted = true;
    record.finish_reason = FinishReason::kStop;
    record.total = absl::Milliseconds(500);
    record.stats = {.decode_time = absl::Milliseconds(400),
                    .time_to_first_token = absl::Milliseconds(100),
                    .prompt_tokens = prompt_tokens,
                    .completion_tokens = 5};
    return record;
  }

  static absl::StatusOr<uint32_t> Record(Experiments* experiments, const std::string& id,
                                         const std::string& token, const std::string& metric,
                                         double value) {
    v1::RecordOutcomeRequest request;
    request.set_request_id(id);
    request.set_outcome_token(token);
    v1::Outcome& outcome = *request.add_outcomes();
    outcome.set_metric(metric);
    outcome.set_value(value);
    std::promise<absl::StatusOr<v1::RecordOutcomeResponse>> answered;
    experiments->RecordOutcome(request,
                               [&](auto answer) { answered.set_value(std::move(answer)); });
    const auto answer = answered.get_future().get();
    if (!answer.ok()) return answer.status();
    return answer->recorded_outcomes();
  }

  static std::string Page(const Experiments& experiments) {
    return prometheus::TextSerializer().Serialize(experiments.metrics()->Collect());
  }

  std::filesystem::path folder_;
  std::atomic<int64_t> now_{kNow};
  std::atomic<int> clock_reads_{0};
};

TEST_F(ExperimentsTest, ARequestGetsTheArmThatGetAssignmentTells) {
  const auto experiments = Open();
  EXPECT_FALSE(experiments->Choose("user-1", "r").recipe.has_value()) << "none is configured";
  Configure(experiments.get(), {kExperiment});
  for (const std::string arm : {"control", "small"}) {
    const std::string unit = UnitOf(experiments.get(), arm);
    const Experiments::Choice choice = experiments->Choose(unit, "r");
    ASSERT_TRUE(choice.tag.has_value());
    EXPECT_EQ(choice.tag->arm_name(), arm);
    EXPECT_EQ(choice.recipe->name, arm == "control" ? "full" : "window");
    EXPECT_EQ(choice.recipe->recipe, FindRecipe(choice.recipe->name)->recipe);
  }
  experiments->Choose("", "r");
  experiments->Choose(std::string(257, 'u'), "r");
  experiments->CountExplicitRecipe();
  const std::string page = Page(*experiments);
  for (const char* line :
       {"swaa_experiment_assignments_total{experiment=\"chat\",arm=\"control\"} 1",
        "swaa_experiment_assignments_total{experiment=\"chat\",arm=\"small\"} 1",
        "swaa_experiment_unassigned_total{reason=\"no_unit\"} 1",
        "swaa_experiment_unassigned_total{reason=\"invalid\"} 1",
        "swaa_experiment_unassigned_total{reason=\"explicit_recipe\"} 1"}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
  Configure(experiments.get(), {});
  EXPECT_THAT(Page(*experiments), Not(HasSubstr("chat"))) << "series of what is gone";
}

TEST_F(ExperimentsTest, AnyReplicaWithTheKeyTakesAnOutcome) {
  const auto experiments = Open();
  Configure(experiments.get(), {kExperiment});
  const auto tag = *experiments->Choose(UnitOf(experiments.get(), "small"), "r1").tag;
  const Experiments::Finish finish = experiments->FinishOf(tag, "r1", Finished().stats);
  experiments->OnRequestEnd(&tag, Finished());
  EXPECT_EQ(*Record(experiments.get(), "r1", "", "score", 2), 1u) << "its own replica knows it";
  EXPECT_EQ(*Record(experiments.get(), "r1", "", "score", 2), 0u);
  EXPECT_TRUE(absl::IsAlreadyExists(
      Record(experiments.get(), "r1", finish.outcome_token, "score", 3).status()));

  const auto other = Open("b.db");
  EXPECT_TRUE(absl::IsNotFound(Record(other.get(), "r1", "", "score", 2).status()));
  EXPECT_TRUE(
      absl::IsNotFound(Record(other.get(), "r1", finish.outcome_token, "score", 2).status()))
      << "it has no such revision yet";
  Configure(other.get(), {kExperiment});
  EXPECT_EQ(*Record(other.get(), "r1", finish.outcome_token, "score", 2), 1u);
  EXPECT_TRUE(absl::IsInvalidArgument(
      Record(other.get(), "r2", finish.outcome_token, "score", 2).status()));
  for (const auto& [metric, value] : std::initializer_list<std::pair<const char*, double>>{
           {"nosuch", 1},
           {"error_rate", 1},
           {"thumbs_up", 0.5},
           {"score", 0},
           {"score", std::numeric_limits<double>::quiet_NaN()}}) {
    const absl::Status status =
        Record(other.get(), "r1", finish.outcome_token, metric, value).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("outcomes[0]"));
  }
  now_ += 8LL * 24 * 3600 * 1000;
  EXPECT_TRUE(
      absl::IsOutOfRange(Record(other.get(), "r1", finish.outcome_token, "thumbs_up", 1).status()));
  EXPECT_TRUE(absl::IsOutOfRange(Record(experiments.get(), "r1", "", "thumbs_up", 1).status()));
}

// Outcomes of both arms' units on their first day and on the fourth, with a restart in between: the
// later ones count as such, though the server that sees them has only read of the first.
TEST_F(ExperimentsTest, KnowsAcrossRestartsHowLongAUnitHasHadItsArm) {
  const auto answer = [&](Experiments* experiments, int day) {
    for (const std::string arm : {"control", "small"}) {
      for (int unit = 0; unit < 8; ++unit) {
        const std::string id = absl::StrCat("r", day, arm, unit);
        const auto tag = *experiments->Choose(UnitOf(experiments, arm, unit), id).tag;
        const std::string token = experiments->FinishOf(tag, id, Finished().stats).outcome_token;
        experiments->OnRequestEnd(&tag, Finished());
        EXPECT_EQ(*Record(experiments, id, token, "score", arm == "small" ? 2 + unit : 1 + unit),
                  1u);
      }
    }
  };
  {
    const auto experiments = Open();
    Configure(experiments.get(), {kExperiment});
    answer(experiments.get(), 0);
  }
  now_ += 3 * kMillisecondsPerDay;
  const auto experiments = Open();
  Configure(experiments.get(), {kExperiment});
  answer(experiments.get(), 3);
  v1::GetReportRequest request;
  request.set_experiment_id("chat");
  const auto report = experiments->GetReport(request);
  ASSERT_TRUE(report.ok()) << report.status();
  std::vector<std::string> ages;
  for (const v1::Comparison& effect : report->effects_by_unit_age()) {
    if (effect.metric() == "score") ages.push_back(effect.unit_age());
  }
  EXPECT_THAT(ages, ElementsAre("first_day", "first_week"));
}

TEST_F(ExperimentsTest, AStoppedArmsUnitsGetControlAndAreRecordedNowhereAcrossRestarts) {
  std::string unit;
  {
    const auto experiments = Open();
    Configure(experiments.get(), {kExperiment});
    unit = UnitOf(experiments.get(), "small");
    EXPECT_TRUE(absl::IsNotFound(experiments->Stop("chat", "nosuch").status()));
    EXPECT_TRUE(absl::IsNotFound(experiments->Stop("nosuch", "").status()));
    const auto status = experiments->Stop("chat", "small");
    ASSERT_TRUE(status.ok()) << status.status();
    ASSERT_EQ(status->stopped_arms_size(), 1);
    EXPECT_EQ(status->stopped_arms(0).arm(), "small");
  }
  const auto experiments = Open();
  Configure(experiments.get(), {kExperiment});
  const Experiments::Choice choice = experiments->Choose(unit, "r");
  EXPECT_FALSE(choice.tag.has_value());
  EXPECT_EQ(choice.recipe->name, "full");
  EXPECT_THAT(Page(*experiments),
              HasSubstr("swaa_experiment_arm_stopped{experiment=\"chat\",arm=\"small\"} 1"));
  EXPECT_THAT(Page(*experiments),
              HasSubstr("swaa_experiment_unassigned_total{reason=\"stopped\"} 1"));
  ASSERT_TRUE(experiments->Start("chat").ok());
  EXPECT_TRUE(experiments->Choose(unit, "r").tag.has_value());
}

// Thumbs fall from 80 to 40 in a hundred in one arm: it stops by itself, and only it.
TEST_F(ExperimentsTest, AGuardrailStopsAnArmByItself) {
  const auto experiments = Open();
  Configure(experiments.get(), {kExperiment});
  const auto stopped = [&] {
    return Page(*experiments)
               .find(
                   "swaa_experiment_guardrail_stops_total{experiment=\"chat\",arm=\"small\"} 1") !=
           std::string::npos;
  };
  int requests = 0;
  std::atomic<int> answered{0};
  for (; requests < 20'000 && !stopped(); ++requests) {
    const std::string unit = absl::StrCat("unit-", requests % 2000);
    const std::string id = absl::StrCat("r", requests);
    const Experiments::Choice choice = experiments->Choose(unit, id);
    if (!choice.tag.has_value()) break;
    const auto finish = experiments->FinishOf(*choice.tag, id, Finished().stats);
    experiments->OnRequestEnd(&*choice.tag, Finished());
    const int percent = choice.tag->arm_name() == "small" ? 40 : 80;
    const bool up = static_cast<int>(AssignmentHash("thumb", id) % 100) < percent;
    v1::RecordOutcomeRequest request;
    request.set_request_id(id);
    request.set_outcome_token(finish.outcome_token);
    request.add_outcomes()->set_metric("thumbs_up");
    request.mutable_outcomes(0)->set_value(up);
    experiments->RecordOutcome(request, [&](const auto& answer) {
      EXPECT_TRUE(answer.ok()) << answer.status();
      ++answered;
    });
    while (requests % 64 == 63 && answered <= requests) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  EXPECT_GT(requests, 200) << "before there is enough to judge by";
  // It is counted a moment after it stopped.
  for (int i = 0; i < 2000 && !stopped(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ASSERT_TRUE(stopped()) << "after " << requests;
  const v1::ListExperimentsResponse listed = experiments->List();
  ASSERT_EQ(listed.experiments(0).stopped_arms_size(), 1);
  EXPECT_THAT(listed.experiments(0).stopped_arms(0).reason(), HasSubstr("thumbs_up"));
  EXPECT_EQ(listed.experiments(0).state(), v1::EXPERIMENT_STATE_STOPPED) << "no other arm is left";
  // It would only stop again.
  const absl::Status refused = experiments->Start("chat").status();
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("raise its maximum_harm"));
}

TEST_F(ExperimentsTest, ARequestIsTriggeredFromItsUnitsFirstLongOneOn) {
  const auto experiments = Open();
  Configure(experiments.get(), {kExperiment});
  const auto tag = *experiments->Choose(UnitOf(experiments.get(), "control"), "r").tag;
  const auto triggered = [&](int32_t prompt_tokens) {
    const bool is = experiments->FinishOf(tag, "r", Finished(prompt_tokens).stats).triggered;
    const RequestRecord record = Finished(prompt_tokens);
    experiments->OnRequestEnd(&tag, record);
    return is;
  };
  EXPECT_FALSE(triggered(59)) << "59 and 5 are the window's 64";
  EXPECT_TRUE(triggered(60));
  EXPECT_TRUE(triggered(10)) << "what came later may be its doing";
}

TEST_F(ExperimentsTest, CoverageZeroIsAPause) {
  const auto experiments = Open();
  Configure(experiments.get(), {absl::StrCat(kExperiment, " coverage: 0")});
  EXPECT_FALSE(experiments->Choose("user-1", "r").tag.has_value());
  AwaitCheck();
  EXPECT_EQ(experiments->List().experiments_size(), 1);
}

// After a stop the other arms alone take units: that is no mismatch.
TEST_F(ExperimentsTest, AStoppedArmIsNoSampleRatioMismatch) {
  const auto experiments = Open();
  Configure(experiments.get(), {R"(id: "three" arms { name: "a" recipe_name: "full" }
                                   arms { name: "b" recipe_name: "window" }
                                   arms { name: "c" recipe_name: "window" })"});
  const auto expose = [&](int from, int to) {
    for (int i = from; i < to; ++i) experiments->Choose(absl::StrCat("unit-", i), "r");
    AwaitCheck();
  };
  expose(0, 3000);
  now_ += 1000;
  ASSERT_TRUE(experiments->Stop("three", "c").ok());
  now_ += 1000;
  expose(3000, 9000);
  v1::GetReportRequest request;
  request.set_experiment_id("three");
  const auto report = experiments->GetReport(request);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->sample_ratio_check().mismatch());
  EXPECT_GT(report->arms(0).units(), 2500u);
}

// A revision that leaves and comes back counts nothing twice, nor what ended while it was away.
TEST_F(ExperimentsTest, ARevisionComesBackAsItWas) {
  const auto experiments = Open();
  Configure(experiments.get(), {kExperiment});
  std::vector<ExperimentTag> tags;
  for (int i = 0; i < 300; ++i) {
    tags.push_back(*experiments->Choose(absl::StrCat("unit-", i), absl::StrCat("r", i)).tag);
  }
  RequestRecord failed = Finished();
  failed.status = absl::InternalError("broke");
  for (size_t i = 0; i < tags.size(); ++i) {
    if (i == 150) Configure(experiments.get(), {});
    // All of one arm fail: a breach, if all are counted once.
    const bool fails = tags[i].arm_name() == "small" && i % 8 == 0;
    experiments->OnRequestEnd(&tags[i], fails ? failed : Finished());
  }
  Configure(experiments.get(), {kExperiment});
  v1::GetReportRequest request;
  request.set_experiment_id("chat");
  const auto report = experiments->GetReport(request);
  ASSERT_TRUE(report.ok()) << report.status();
  uint64_t units = 0;
  for (const v1::ArmReport& arm : report->arms()) units += arm.units();
  EXPECT_EQ(units, 300u);
  uint64_t ended = 0;
  for (const v1::ArmReport& arm : report->arms()) {
    for (const v1::MetricEstimate& metric : arm.metrics()) {
      if (metric.metric() == "error_rate" && !metric.triggered_only()) ended += metric.requests();
    }
  }
  EXPECT_EQ(ended, 300u);
}

TEST_F(ExperimentsTest, TheReportHasWhatWasRecorded) {
  const auto experiments = Open();
  Configure(experiments.get(), {kExperiment});
  for (int i = 0; i < 40; ++i) {
    const std::string id = absl::StrCat("r", i);
    const auto tag = *experiments->Choose(absl::StrCat("unit-", i % 20), id).tag;
    RequestRecord record = Finished();
    if (i == 3) record.status = absl::InternalError("broke");
    const auto finish = experiments->FinishOf(tag, id, record.stats);
    experiments->OnRequestEnd(&tag, record);
    ASSERT_TRUE(Record(experiments.get(), id, finish.outcome_token, "score", 2).ok());
  }
  v1::GetReportRequest request;
  request.set_experiment_id("nosuch");
  EXPECT_TRUE(absl::IsNotFound(experiments->GetReport(request).status()));
  request.set_experiment_id("chat");
  request.set_revision(7);
  EXPECT_TRUE(absl::IsNotFound(experiments->GetReport(request).status()));
  request.clear_revision();
  const auto report = experiments->GetReport(request);
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->arms_size(), 2);
  EXPECT_EQ(report->arms(0).units() + report->arms(1).units(), 20u);
  EXPECT_EQ(report->arms(0).requests() + report->arms(1).requests(), 40u);
  double errors = 0;
  for (const v1::ArmReport& arm : report->arms()) {
    for (const v1::MetricEstimate& metric : arm.metrics()) {
      if (metric.triggered_only()) continue;
      if (metric.metric() == "error_rate") errors += metric.value() * metric.requests();
      if (metric.metric() == "score") {
        EXPECT_NEAR(metric.value(), 2, 1e-9);
      }
    }
  }
  EXPECT_NEAR(errors, 1, 1e-9);
}

}  // namespace
}  // namespace swaa::server
