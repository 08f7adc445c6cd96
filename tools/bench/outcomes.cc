// Bench: outcomes that are planted on the requests of an experiment.

#include "tools/bench/outcomes.h"

#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "swaa/v1/experiment_service.grpc.pb.h"
#include "tools/bench/random.h"

namespace swaa::tools::bench {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(30);

absl::Status Bad(const std::string& text, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" ", why,
                                                 "; write METRIC:ARM=CHANCE,ARM=CHANCE, such as ",
                                                 "thumbs_up:control=0.6,small=0.5"));
}

}  // namespace

absl::StatusOr<PlantedOutcome> ParsePlantedOutcome(const std::string& text) {
  PlantedOutcome planted;
  if (text.empty()) return planted;
  const size_t colon = text.find(':');
  if (colon == std::string::npos || colon == 0) return Bad(text, "names no metric");
  planted.metric = text.substr(0, colon);
  const std::vector<std::string> arms = absl::StrSplit(text.substr(colon + 1), ',');
  for (const std::string& item : arms) {
    const size_t equals = item.find('=');
    double chance = 0;
    if (equals == std::string::npos || equals == 0 ||
        !absl::SimpleAtod(item.substr(equals + 1), &chance) || !(chance >= 0 && chance <= 1)) {
      return Bad(item, "is no arm with a chance from 0 to 1");
    }
    if (!planted.chance_by_arm.emplace(item.substr(0, equals), chance).second) {
      return Bad(item, "names an arm twice");
    }
  }
  return planted;
}

absl::StatusOr<int64_t> RecordPlantedOutcomes(const PlantedOutcome& planted, uint64_t seed,
                                              const std::vector<RequestRecord>& records,
                                              const std::shared_ptr<grpc::Channel>& channel) {
  const auto stub = v1::ExperimentService::NewStub(channel);
  int64_t recorded = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    const auto arm = planted.chance_by_arm.find(records[i].experiment_arm);
    if (!records[i].completed() || arm == planted.chance_by_arm.end()) continue;
    std::mt19937_64 draw = MakeGenerator(seed, RandomStream::kOutcome, i);
    v1::RecordOutcomeRequest request;
    request.set_request_id(records[i].request_id);
    request.set_outcome_token(records[i].outcome_token);
    v1::Outcome& outcome = *request.add_outcomes();
    outcome.set_metric(planted.metric);
    outcome.set_value(std::bernoulli_distribution(arm->second)(draw) ? 1 : 0);
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
    v1::RecordOutcomeResponse response;
    const grpc::Status status = stub->RecordOutcome(&context, request, &response);
    if (!status.ok()) {
      return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                          absl::StrCat("an outcome was not recorded: ", status.error_message()));
    }
    ++recorded;
  }
  return recorded;
}

}  // namespace swaa::tools::bench
