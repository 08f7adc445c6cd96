// The first request, which the server sends to itself before it says that it is ready.

#include "server/lifecycle/warm_up.h"

#include <memory>
#include <vector>

#include "absl/synchronization/notification.h"
#include "base/status_macros.h"

namespace swaa::server {
namespace {

// Waits for the end and forgets the rest.
class EndSink : public GenerationSink {
 public:
  void OnAccepted() override {}
  void OnPromptLogprobs(int32_t, std::vector<ScoredToken>) override {}
  void OnTokens(std::vector<OutputToken>) override {}
  void OnFinished(const GenerationResult&) override { done_.Notify(); }
  void OnFailed(const absl::Status& status, const GenerationStats&) override {
    status_ = status;
    done_.Notify();
  }
  absl::Status Await() {
    done_.WaitForNotification();
    return status_;
  }

 private:
  absl::Status status_;
  absl::Notification done_;
};

}  // namespace

absl::Status WarmUp(Engine* engine, const Recipe& recipe) {
  auto sink = std::make_shared<EndSink>();
  GenerationRequest request;
  request.id = "warm-up";
  request.prompt = std::make_shared<const std::vector<int32_t>>(1, 0);
  request.recipe = recipe;
  request.recipe_label = "warm-up";
  request.sampling.temperature = 0;
  request.stopping.max_tokens = 1;
  SWAA_RETURN_IF_ERROR(engine->Submit(std::move(request), sink));
  return sink->Await();
}

}  // namespace swaa::server
