// A sink that keeps what it was told, and CHECKs that it was told in order.

#ifndef SWAA_TESTS_UNIT_TESTING_RECORDING_SINK_H_
#define SWAA_TESTS_UNIT_TESTING_RECORDING_SINK_H_

#include <atomic>
#include <optional>
#include <vector>

#include "base/check.h"
#include "engine/generation.h"

namespace swaa::testing {

// Written by the engine thread; read by the test once `ended` is true.
class RecordingSink : public GenerationSink {
 public:
  void OnAccepted() override {
    SWAA_CHECK(!accepted && !ended);
    accepted = true;
  }
  void OnPromptLogprobs(int32_t first_position, std::vector<ScoredToken> tokens) override {
    SWAA_CHECK(accepted && !ended && output.empty());
    SWAA_CHECK_EQ(first_position, static_cast<int32_t>(prompt_logprobs.size()));
    for (ScoredToken& token : tokens) prompt_logprobs.push_back(std::move(token));
  }
  void OnTokens(std::vector<OutputToken> tokens) override {
    SWAA_CHECK(accepted && !ended);
    for (OutputToken& token : tokens) {
      if (!events.empty()) SWAA_CHECK_GE(token.visible_bytes, events.back().visible_bytes);
      output.push_back(token.scored.token);
      events.push_back(std::move(token));
    }
    token_count = static_cast<int>(output.size());
  }
  void OnFinished(const GenerationResult& finished) override {
    SWAA_CHECK(accepted && !ended);
    result = finished;
    ended = true;
  }
  void OnFailed(const absl::Status& failed, const GenerationStats& stats) override {
    SWAA_CHECK(!ended);
    SWAA_CHECK(!failed.ok());
    status = failed;
    ended = true;
  }

  bool accepted = false;
  std::vector<ScoredToken> prompt_logprobs;
  std::vector<int32_t> output;
  std::vector<OutputToken> events;
  std::optional<GenerationResult> result;
  absl::Status status;
  std::atomic<int> token_count{0};
  std::atomic<bool> ended{false};
};

}  // namespace swaa::testing

#endif  // SWAA_TESTS_UNIT_TESTING_RECORDING_SINK_H_
