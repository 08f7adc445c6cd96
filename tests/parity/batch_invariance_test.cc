// The real model, and a small mixture of experts, under the real scheduler: a request's greedy
// tokens are the same alone, in a mixed batch of 16 recipes, in chunks of any size, with part of
// its output forced, short of pages, and from a warm prefix cache. Exactly in f32; in bf16 up to
// the first position whose two best log-probabilities, in the run alone, lie within 0.35, and
// nothing after it is compared.

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "engine/checkpoint/checkpoint.h"
#include "engine/model/model_device.h"
#include "engine/schedule/scheduler.h"
#include "tests/parity/devices_under_test.h"
#include "tests/parity/test_model.h"
#include "tests/unit/testing/random_recipe.h"
#include "tests/unit/testing/recording_sink.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

using testing::RecordingSink;

constexpr int32_t kRequests = 16;
constexpr float kNearTie = 0.35f;

struct Case {
  GenerationRequest request;
  std::vector<int32_t> expected;  // alone
  size_t compared = 0;            // of them, those that another run must give
};

class BatchInvariance : public ::testing::TestWithParam<DeviceUnderTest> {
 protected:
  void Open(const std::string& path) {
    absl::StatusOr<Checkpoint> checkpoint = LoadCheckpoint(path, LoadFormat::kAuto);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(checkpoint->tokenizer);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    ModelDeviceOptions options;
    options.operators = GetParam().operators;
    options.kv_cache_bytes = int64_t{1} << 30;
    options.max_step_tokens = 512;
    options.num_slots = kRequests;
    absl::StatusOr<std::unique_ptr<Device>> device = CreateModelDevice(*checkpoint, options);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
    context_ = checkpoint->config.max_context_tokens;
    layers_ = checkpoint->config.num_layers;
    vocab_ = checkpoint->config.vocab_size;
  }

  // All requests at once; `pages` limits the pool that the scheduler knows of.
  std::vector<std::shared_ptr<RecordingSink>> Run(const std::vector<GenerationRequest>& requests,
                                                  int32_t budget, bool cache,
                                                  int32_t pages = 1 << 30) {
    DeviceInfo info = device_->info();
    info.num_pages = std::min(info.num_pages, pages);
    const SchedulerOptions options{.max_batch_tokens = budget,
                                   .max_running_requests = kRequests,
                                   .max_context_tokens = context_,
                                   .prefix_cache = cache};
    Scheduler scheduler(options, info, tokenizer_.get());
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (const GenerationRequest& request : requests) {
      sinks.push_back(std::make_shared<RecordingSink>());
      const absl::StatusOr<int32_t> most = MaxOutputTokens(request, options, info);
      EXPECT_TRUE(most.ok()) << most.status();
      scheduler.Add(request, sinks.back(), *most, SteadyClock::now());
    }
    while (!scheduler.idle() || scheduler.steps_in_flight() > 0) {
      while (scheduler.steps_in_flight() < info.max_steps_in_flight) {
        std::optional<Step> step = scheduler.NextStep(SteadyClock::now());
        if (!step.has_value()) break;
        device_->Submit(*std::move(step));
      }
      scheduler.Commit(device_->Collect(), SteadyClock::now());
    }
    EXPECT_EQ(scheduler.Load().used_pages, 0);
    preemptions_ = scheduler.Load().preemptions;
    return sinks;
  }

  // Prompts are the document's first tokens, 10 to 189 of them.
  std::vector<Case> MakeCases(const std::vector<int32_t>& document) {
    std::vector<Case> cases;
    for (int32_t i = 0; i < kRequests; ++i) {
      Case c;
      c.request.id = std::to_string(i);
      c.request.prompt = std::make_shared<const std::vector<int32_t>>(
          document.begin(), document.begin() + 10 + random_() % 180);
      c.request.recipe = testing::RandomRecipe(&random_, layers_);
      c.request.recipe_label = "custom";
      c.request.sampling.temperature = 0;
      c.request.stopping = {.max_tokens = 8, .ignore_eos = true};
      c.request.output_logprobs = 2;
      const auto alone = Run({c.request}, 512, /*cache=*/false)[0];
      c.expected = alone->output;
      for (const OutputToken& token : alone->events) {
        ++c.compared;
        const auto& top = token.scored.top;
        if (!GetParam().f32 && top[0].second - top[1].second < kNearTie) {
          --c.compared;  // this one may differ already
          break;
        }
      }
      cases.push_back(std::move(c));
    }
    return cases;
  }

  static std::vector<GenerationRequest> Requests(const std::vector<Case>& cases) {
    std::vector<GenerationRequest> requests;
    for (const Case& c : cases) requests.push_back(c.request);
    return requests;
  }

  static void Expect(const std::vector<Case>& cases,
                     const std::vector<std::shared_ptr<RecordingSink>>& sinks,
                     const std::string& how) {
    size_t compared = 0;
    for (size_t i = 0; i < cases.size(); ++i) {
      const Case& c = cases[i];
      ASSERT_TRUE(sinks[i]->result.has_value()) << how << " " << sinks[i]->status;
      ASSERT_EQ(sinks[i]->output.size(), c.expected.size());
      const auto end = c.expected.begin() + static_cast<int64_t>(c.compared);
      EXPECT_TRUE(std::equal(c.expected.begin(), end, sinks[i]->output.begin()))
          << how << ", request " << i << ", the first " << c.compared << " tokens";
      compared += c.compared;
    }
    EXPECT_GT(compared, cases.size()) << "too few tokens were compared to say anything";
  }

  void CheckAll(const std::vector<int32_t>& document);

  std::mt19937 random_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Device> device_;
  int32_t context_ = 0;
  int32_t layers_ = 0;
  int32_t vocab_ = 0;
  int64_t preemptions_ = 0;
};

void BatchInvariance::CheckAll(const std::vector<int32_t>& document) {
  const std::vector<Case> cases = MakeCases(document);
  ASSERT_FALSE(HasFatalFailure());
  Expect(cases, Run(Requests(cases), 512, false), "mixed");
  for (const int32_t budget : {23, 100}) {
    Expect(cases, Run(Requests(cases), budget, false), "in steps of " + std::to_string(budget));
  }
  std::vector<GenerationRequest> forced = Requests(cases);
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::vector<int32_t>& all = cases[i].expected;
    forced[i].forced_output.assign(all.begin(), all.begin() + random_() % all.size());
  }
  Expect(cases, Run(forced, 128, false), "partly forced");
  // Each is computed over the blocks that the others have left.
  Expect(cases, Run(Requests(cases), 64, true), "from the prefix cache");
  // A pool of four blocks a layer: the longest request just fits.
  Expect(cases, Run(Requests(cases), 128, false, 1 + 4 * layers_), "short of pages");
}

TEST_P(BatchInvariance, GreedyTokensDoNotDependOnCompany) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  random_.seed(seed);
  ASSERT_NO_FATAL_FAILURE(Open(TestModelPath()));
  // Counting is what a small model is sure of, so that few tokens are near ties.
  std::string text = "Count:";
  for (int number = 1; number < 80; ++number) text += " " + std::to_string(number) + ",";
  CheckAll(tokenizer_->Encode(text, Tokenizer::SpecialTokens::kAsText));
}

TEST_P(BatchInvariance, NorDoThoseOfAMixtureOfExperts) {
  if (!GetParam().f32) GTEST_SKIP() << "rounding to bf16 may choose other experts";
  // Always the same prompts: of many random ones, one would have a near tie for f32, too.
  random_.seed(1);
  ASSERT_NO_FATAL_FAILURE(Open("tests/data/tiny-qwen3moe"));
  std::vector<int32_t> document(200);
  for (int32_t& token : document) token = static_cast<int32_t>(3 + random_() % (vocab_ - 3));
  CheckAll(document);
}

INSTANTIATE_TEST_SUITE_P(Devices, BatchInvariance, ::testing::ValuesIn(DevicesUnderTest()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace swaa
