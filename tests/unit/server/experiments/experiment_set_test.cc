// What an experiment may be, what starts a new revision, and who gets which arm.

#include "server/experiments/experiment_set.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace swaa::server {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kNow = 1'764'100'000'000;
constexpr int32_t kLayers = 4;

ArmRecipe Resolved(const RecipeSpec& spec) {
  return {*ResolveRecipe(spec, kLayers), spec.thinking_mode, spec.lora_name};
}

// The catalogue of a model of four layers.
RecipeView Recipes() {
  static const auto* const kRecipes = new std::map<std::string, ArmRecipe>{
      {"full", Resolved({})},
      {"window", Resolved({.sliding_window_tokens = 2048})},
      {"sinks", Resolved({.sliding_window_tokens = 1024, .sink_tokens = 64})},
      {"all_full",
       Resolved({.sliding_window_tokens = 512, .full_attention_layers = LayerSelection::All()})},
      {"thinking", Resolved({.thinking_mode = ThinkingMode::kEnabled})},
  };
  return {[](const std::string& name) -> std::optional<ArmRecipe> {
            const auto found = kRecipes->find(name);
            if (found == kRecipes->end()) return std::nullopt;
            return found->second;
          },
          "all_full, full, sinks, thinking, window"};
}

google::protobuf::RepeatedPtrField<v1::Experiment> Parse(const std::vector<std::string>& texts) {
  google::protobuf::RepeatedPtrField<v1::Experiment> experiments;
  for (const std::string& text : texts) {
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, experiments.Add())) << text;
  }
  return experiments;
}

absl::StatusOr<ExperimentSet> Create(const std::vector<std::string>& texts,
                                     const KnownRevisions& known = {}) {
  return ExperimentSet::Create(Parse(texts), Recipes(), kNow, known);
}

constexpr char kArms[] =
    "arms { name: 'a' recipe_name: 'full' } arms { name: 'b' recipe_name: 'window' } ";

std::string Experiment(const std::string& rest = "", const std::string& id = "e") {
  return absl::StrCat("id: '", id, "' ", kArms, rest);
}

std::string Switchback(const std::string& rest) {
  return Experiment("design: EXPERIMENT_DESIGN_SWITCHBACK " + rest);
}

std::string Metric(const std::string& rest) { return Experiment("metrics { " + rest + " }"); }

TEST(ExperimentSetTest, RefusesWithKeyAndWayOut) {
  const std::string long_name(64, 'x');
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"id: 'A'"}, "experiments[0].id: \"A\" is not of the form"},
      {{absl::StrCat("id: '", long_name, "'")}, "experiments[0].id: \"xxx"},
      {{"id: 'a:b'"}, "experiments[0].id: \"a:b\" is not"},
      {{"id: 'e'"}, "experiments[0].arms: 0 arms; an experiment has 2 to 64"},
      {{Experiment("arms { name: 'a' recipe_name: 'full' }")},
       "experiments[0].arms[2].name: a is another arm's name too"},
      {{Experiment("arms { name: 'c' recipe_name: 'full' weight: 0 }")},
       "experiments[0].arms[2].weight: 0 gives the arm no units"},
      {{Experiment("arms { name: 'c' recipe_name: 'nope' }")},
       "experiments[0].arms[2].recipe_name: there is no recipe \"nope\"; there are all_full, "},
      {{Experiment("control_arm: 'z'")}, "experiments[0].control_arm: there is no arm \"z\""},
      {{Experiment("salt: 'recipes'")}, "experiments[0].salt: recipes is what the layer"},
      {{Experiment("salt: 'x y'")}, "experiments[0].salt: \"x y\" is not of the form"},
      {{Experiment("layer_begin: 5 layer_end: 5")}, "experiments[0].layer_begin: [5, 5) is no"},
      {{Experiment("layer_end: 10001")}, "experiments[0].layer_begin: [0, 10001) is no"},
      {{Experiment("coverage: 10001")}, "experiments[0].coverage: 10001 of 10000"},
      {{Experiment("coverage: 1")}, "experiments[0].arms[0].weight: 1 gives the arm none of"},
      {{Experiment("arms { name: 'c' recipe_name: 'full' weight: 30000 }")},
       "experiments[0].arms[0].weight: 1 gives the arm none of 10000 buckets at coverage 10000"},
      {{Experiment("alpha: 0")}, "experiments[0].alpha: 0 is outside (0, 0.5]"},
      {{Experiment("alpha: nan")}, "experiments[0].alpha: nan is outside"},
      {{Experiment("window_seconds: 600")}, "experiments[0].window_seconds: windows are a"},
      {{Switchback("")}, "experiments[0].window_seconds: absent with"},
      {{Switchback("window_seconds: 600 washout_seconds: 121")},
       "experiments[0].washout_seconds: 121 of windows of 600; take at most a fifth"},
      {{Switchback("window_seconds: 600 arms { name: 'c' recipe_name: 'full' }")},
       "experiments[0].arms: 3 arms with EXPERIMENT_DESIGN_SWITCHBACK"},
      {{"id: 'e' design: EXPERIMENT_DESIGN_SWITCHBACK window_seconds: 60 "
        "arms { name: 'a' recipe_name: 'full' weight: 2 } "
        "arms { name: 'b' recipe_name: 'full' }"},
       "experiments[0].arms[1].weight: 1 differs"},
      {{Experiment("start_time { seconds: 9 } end_time { seconds: 9 }")},
       "experiments[0].end_time: not after start_time"},
      {{Experiment("start_time { seconds: -1 }")}, "experiments[0].start_time: -1 seconds is no"},
      {{Metric("name: 'Thumbs'")}, "experiments[0].metrics[0].name: \"Thumbs\" is not"},
      {{Metric("name: 'shadow_x'")}, "experiments[0].metrics[0].name: shadow_x is what the"},
      {{Metric("name: 'thumbs'")}, "experiments[0].metrics[0].minimum_detectable_effect: 0 for"},
      {{Metric("name: 'thumbs' minimum_detectable_effect: inf")},
       "experiments[0].metrics[0].minimum_detectable_effect: inf"},
      {{Metric("name: 'error_rate' maximum_harm: 1")},
       "experiments[0].metrics[0].maximum_harm: 1 without a guardrail"},
      {{Metric("name: 'error_rate' role: METRIC_ROLE_GUARDRAIL maximum_harm: -1")},
       "experiments[0].metrics[0].maximum_harm: -1 is no harm"},
      {{Metric("name: 'device_seconds' scale: METRIC_SCALE_MEAN")},
       "experiments[0].metrics[0].scale: METRIC_SCALE_MEAN, but device_seconds is summed as "
       "METRIC_SCALE_LOG_MEAN"},
      {{Experiment("metrics { name: 'error_rate' } metrics { name: 'error_rate' }")},
       "experiments[0].metrics[1].name: error_rate is declared twice"},
      {{Experiment("layer_end: 5000"), Experiment("layer_begin: 5000")},
       "experiments[1].id: e is another experiment's id too"},
      {{Experiment("", "one"), Experiment("layer_begin: 5000", "two")},
       "experiments[1].layer_begin: [5000, 10000) of two overlaps [0, 10000) of one"},
  };
  for (const auto& [texts, message] : cases) {
    const absl::Status status = Create(texts).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << message << " vs " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_THAT(std::string(status.message()), HasSubstr(";")) << "no way out";
  }
}

TEST(ExperimentSetTest, EndedExperimentsMayOverlap) {
  const std::string ended = Experiment("end_time { seconds: 1764000000 }", "ended");
  const absl::StatusOr<ExperimentSet> set = Create({ended, Experiment()});
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(StateOf(set->experiments()[0], kNow, {}), v1::EXPERIMENT_STATE_ENDED);
  EXPECT_EQ(set->Assign("user-1", kNow, {}).experiment, &set->experiments()[1]);
}

TEST(ExperimentSetTest, DefaultsAreFilledIn) {
  const ExperimentSet set = *Create({Experiment()});
  const v1::Experiment& proto = set.experiments()[0].proto();
  EXPECT_EQ(proto.salt(), "e");
  EXPECT_EQ(proto.control_arm(), "a");
  EXPECT_EQ(proto.coverage(), kBuckets);
  EXPECT_EQ(proto.alpha(), 0.05);
  EXPECT_EQ(proto.design(), v1::EXPERIMENT_DESIGN_UNIT);
  ASSERT_EQ(proto.metrics_size(), 6);
  EXPECT_EQ(proto.metrics(0).scale(), v1::METRIC_SCALE_LOG_MEAN);
  EXPECT_GT(proto.metrics(0).minimum_detectable_effect(), 0);
  EXPECT_EQ(proto.metrics(5).role(), v1::METRIC_ROLE_GUARDRAIL);
}

uint64_t RevisionOf(const std::string& text, const KnownRevisions& known = {}) {
  const absl::StatusOr<ExperimentSet> set = Create({text}, known);
  EXPECT_TRUE(set.ok()) << set.status();
  return set.ok() ? set->experiments()[0].revision : 0;
}

TEST(ExperimentSetTest, WhatIsMeasuredMakesTheRevision) {
  const uint64_t revision = RevisionOf(Experiment());
  const auto with_arms = [](const std::string& first, const std::string& second) {
    return absl::StrCat("id: 'e' arms { ", first, " } arms { ", second, " }");
  };
  for (const std::string& changed :
       {Experiment("", "f"), Experiment("salt: 's'"), Experiment("layer_end: 9999"),
        Experiment("control_arm: 'b'"), Experiment("alpha: 0.01"),
        Switchback("window_seconds: 600"), Metric("name: 'error_rate'"),
        with_arms("name: 'a' recipe_name: 'full'", "name: 'c' recipe_name: 'window'"),
        with_arms("name: 'a' recipe_name: 'full'", "name: 'b' recipe_name: 'sinks'"),
        with_arms("name: 'a' recipe_name: 'full' weight: 2", "name: 'b' recipe_name: 'window'")}) {
    EXPECT_NE(RevisionOf(changed), revision) << changed;
  }
  // What is told in other words, and what only says when or how many.
  for (const std::string& same :
       {Experiment("salt: 'e'"), Experiment("control_arm: 'a' alpha: 0.05"),
        Experiment("coverage: 500"), Experiment("end_time { seconds: 2000000000 }"),
        with_arms("name: 'a' recipe_name: 'full' weight: 1", "name: 'b' recipe_name: 'window'")}) {
    EXPECT_EQ(RevisionOf(same), revision) << same;
  }
}

TEST(ExperimentSetTest, CoverageRisesWithinARevision) {
  const ExperimentSet half = *Create({Experiment("coverage: 5000")});
  const ExperimentSet more = *Create({Experiment("coverage: 8000")}, half.Known());
  EXPECT_EQ(more.experiments()[0].revision, half.experiments()[0].revision);
  EXPECT_TRUE(more.warnings().empty());
  const ExperimentSet less = *Create({Experiment("coverage: 6000")}, more.Known());
  EXPECT_NE(less.experiments()[0].revision, more.experiments()[0].revision);
  ASSERT_EQ(less.warnings().size(), 1u);
  EXPECT_THAT(less.warnings()[0], HasSubstr("experiments[0]: e starts a new revision"));
  // The lowered revision goes on as coverage rises again, and is the same on every replica.
  EXPECT_EQ(RevisionOf(Experiment("coverage: 9000"), less.Known()), less.experiments()[0].revision);
  EXPECT_EQ(RevisionOf(Experiment("coverage: 6000"), more.Known()), less.experiments()[0].revision);
  // Lowered once more to where it was, it is a third one: who left in between is not pooled.
  const ExperimentSet risen = *Create({Experiment("coverage: 9000")}, less.Known());
  const uint64_t again = RevisionOf(Experiment("coverage: 6000"), risen.Known());
  EXPECT_NE(again, less.experiments()[0].revision);
  EXPECT_NE(again, half.experiments()[0].revision);
}

TEST(ExperimentSetTest, TriggersWhereRecipesPart) {
  const auto triggers = [](const std::string& first, const std::string& second) {
    return Create({absl::StrCat("id: 'e' arms { name: 'a' recipe_name: '", first,
                                "' } arms { name: 'b' recipe_name: '", second, "' }")})
        ->experiments()[0]
        .definition;
  };
  EXPECT_EQ(triggers("full", "window").trigger_positions, 2048);
  EXPECT_EQ(triggers("window", "sinks").trigger_positions, 1024 + 64);
  EXPECT_EQ(triggers("full", "thinking").trigger_positions, 0);
  // A window that no layer has is full attention.
  EXPECT_EQ(triggers("full", "all_full").trigger_positions, std::nullopt);
  EXPECT_EQ(triggers("window", "window").trigger_positions, std::nullopt);
  EXPECT_FALSE(triggers("full", "window").Triggers(2048));
  EXPECT_TRUE(triggers("full", "window").Triggers(2049));
  EXPECT_TRUE(triggers("full", "thinking").Triggers(1));
  EXPECT_FALSE(triggers("window", "window").Triggers(1 << 20));
}

TEST(ExperimentSetTest, AssignsByLayerAndArm) {
  const ExperimentSet set =
      *Create({Experiment("salt: 'exp-2' layer_end: 6000", "left"),
               Experiment("salt: 'exp-1' layer_begin: 6000 coverage: 8000", "right")});
  // Layer buckets 6090 and 1649; exp-1/user-1 has arm bucket 5704 and group 239.
  const Assignment one = set.Assign("user-1", kNow, {});
  EXPECT_EQ(one.enrolment, Enrolment::kAssigned);
  EXPECT_EQ(one.experiment->proto().id(), "right");
  EXPECT_EQ(one.layer_bucket, 6090u);
  EXPECT_EQ(one.arm_bucket, 5704u);
  EXPECT_EQ(one.group, 239);
  EXPECT_EQ(one.arm, 1);
  EXPECT_EQ(*one.recipe_name(), "window");
  EXPECT_EQ(set.Assign("user-2", kNow, {}).experiment->proto().id(), "left");
  EXPECT_EQ(set.Assign("", kNow, {}).enrolment, Enrolment::kNoUnit);
  EXPECT_EQ(set.Assign(std::string(257, 'u'), kNow, {}).enrolment, Enrolment::kInvalid);
  EXPECT_EQ(set.Assign(std::string(256, 'u'), kNow, {}).layer_bucket < kBuckets, true);
  const ExperimentSet narrow = *Create({Experiment("layer_end: 6000", "left")});
  EXPECT_EQ(narrow.Assign("user-1", kNow, {}).enrolment, Enrolment::kOutside);
  const ExperimentSet sparse = *Create({Experiment("salt: 'exp-1' coverage: 1000")});
  EXPECT_EQ(sparse.Assign("user-1", kNow, {}).enrolment, Enrolment::kOutside);
  EXPECT_EQ(sparse.Assign("user-1", kNow, {}).recipe_name(), nullptr);
}

TEST(ExperimentSetTest, RunsFromStartToEnd) {
  const ExperimentSet set =
      *Create({Experiment("start_time { seconds: 2000000000 } end_time { seconds: 2000000009 }")});
  const ActiveExperiment& experiment = set.experiments()[0];
  const auto at = [&](int64_t ms) {
    return std::pair(StateOf(experiment, ms, {}), set.Assign("user-1", ms, {}).enrolment);
  };
  EXPECT_EQ(at(1999999999999), std::pair(v1::EXPERIMENT_STATE_SCHEDULED, Enrolment::kOutside));
  EXPECT_EQ(at(2000000000000), std::pair(v1::EXPERIMENT_STATE_RUNNING, Enrolment::kAssigned));
  EXPECT_EQ(at(2000000008999), std::pair(v1::EXPERIMENT_STATE_RUNNING, Enrolment::kAssigned));
  EXPECT_EQ(at(2000000009000), std::pair(v1::EXPERIMENT_STATE_ENDED, Enrolment::kOutside));
}

TEST(ExperimentSetTest, UnitsOfAStoppedArmGetControlAndCountNowhere) {
  const ExperimentSet set = *Create({absl::StrCat(
      "id: 'exp-1' arms { name: 'a' recipe_name: 'full' } arms { name: 'b' recipe_name: 'window' }",
      "arms { name: 'c' recipe_name: 'sinks' }")});
  const ActiveExperiment& experiment = set.experiments()[0];
  const int32_t arm = set.Assign("user-1", kNow, {}).arm;
  ASSERT_EQ(arm, 1);
  Stops stops = {{{experiment.revision, arm}, {kNow - 5, "guardrail"}},
                 {{experiment.revision + 1, 2}, {kNow, "another revision's"}}};
  const Assignment stopped = set.Assign("user-1", kNow, stops);
  EXPECT_EQ(stopped.enrolment, Enrolment::kStopped);
  EXPECT_EQ(*stopped.recipe_name(), "full");
  EXPECT_EQ(StateOf(experiment, kNow, stops), v1::EXPERIMENT_STATE_RUNNING);
  const v1::ExperimentStatus status = StatusOf(experiment, kNow, stops);
  ASSERT_EQ(status.stopped_arms_size(), 1);
  EXPECT_EQ(status.stopped_arms(0).arm(), "b");
  EXPECT_EQ(status.stopped_arms(0).stop_time().nanos(), 995'000'000);
  // Nothing is left to compare with control, whose recipe all units get then.
  stops[{experiment.revision, 2}] = {kNow, "operator"};
  EXPECT_EQ(StateOf(experiment, kNow, stops), v1::EXPERIMENT_STATE_STOPPED);
  EXPECT_EQ(set.Assign("user-1", kNow, stops).enrolment, Enrolment::kStopped);
  EXPECT_EQ(*set.Assign("user-1", kNow, stops).recipe_name(), "full");
  for (const int32_t whole : {kAllArms, experiment.definition.control}) {
    EXPECT_EQ(StateOf(experiment, kNow, {{{experiment.revision, whole}, {}}}),
              v1::EXPERIMENT_STATE_STOPPED);
    EXPECT_EQ(set.Assign("user-1", kNow, {{{experiment.revision, whole}, {}}}).recipe_name(),
              nullptr);
  }
}

TEST(ExperimentSetTest, ASwitchbackTurnsForAllUnitsAtOnce) {
  const ExperimentSet set = *Create(
      {Switchback("salt: 'exp-1' window_seconds: 600 washout_seconds: 120 coverage: 6000")});
  int enrolled = 0;
  for (int unit = 0; unit < 200; ++unit) {
    const std::string name = absl::StrCat("user-", unit);
    const Assignment first = set.Assign(name, 700'000, {});
    const Assignment second = set.Assign(name, 100'000, {});
    ASSERT_EQ(first.enrolment, second.enrolment);
    if (first.enrolment != Enrolment::kAssigned) continue;
    ++enrolled;
    // Pair 0 has bucket 3167, below 5000: its first window is arm 1's.
    EXPECT_EQ(std::pair(second.arm, second.washout), std::pair(1, true));
    EXPECT_EQ(std::pair(first.arm, first.washout), std::pair(0, true));
    EXPECT_FALSE(set.Assign(name, 1'100'000, {}).washout);
    EXPECT_EQ(set.Assign(name, 1'200'000, {}).pair, 1);
  }
  EXPECT_GT(enrolled, 80);
  EXPECT_LT(enrolled, 160);
}

TEST(ExperimentSetTest, StoredRevisionsComeBack) {
  const ExperimentSet set = *Create({Experiment("coverage: 700")});
  const ExperimentDefinition& definition = set.experiments()[0].definition;
  const absl::StatusOr<StoredRevision> stored = ParseRevisionJson(RevisionJson(definition));
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ(stored->experiment.SerializeAsString(), definition.experiment.SerializeAsString());
  EXPECT_EQ(stored->content_hash, definition.content_hash);
  EXPECT_EQ(stored->trigger_positions, 2048);
  for (const char* broken : {"", "[]", "{}", "{\"experiment\":{},\"content_hash\":\"1\"}",
                             "{\"experiment\":{\"arms\":7},\"content_hash\":\"1\"}"}) {
    EXPECT_TRUE(absl::IsDataLoss(ParseRevisionJson(broken).status())) << broken;
  }
}

}  // namespace
}  // namespace swaa::server
