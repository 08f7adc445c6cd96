// The engine's thread and its border: what is refused at the door, and what ends when.

#include "engine/engine.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/testing/fake_device.h"
#include "tests/unit/testing/recording_sink.h"

namespace swaa {
namespace {

using testing::FakeDevice;
using ::testing::HasSubstr;
using testing::RecordingSink;

constexpr int32_t kLayers = 2;

// By steps in flight.
class EngineTest : public ::testing::TestWithParam<int> {
 protected:
  EngineTest()
      : tokenizer_(testing::MakeByteTokenizer()),
        device_({.num_layers = kLayers,
                 .num_pages = 400,
                 .page_bytes = 1,
                 .num_slots = 8,
                 .max_pages_per_layer = 16,
                 .max_step_tokens = 128,
                 .max_steps_in_flight = GetParam()}) {}

  void Start(int32_t max_queued = 100, int32_t max_running = 8) {
    engine_ = Engine::Create(
        {.max_batch_tokens = 128,
         .max_running_requests = max_running,
         .max_queued_requests = max_queued,
         .max_context_tokens = 1024},
        &device_, tokenizer_.get(),
        {.on_step = [this](const StepRecord& record) { decode_tokens_ += record.decode_tokens; },
         .on_device_lost =
             [this](const absl::Status& status) {
               lost_ = status;
               ++losses_;
             }});
  }

  GenerationRequest Request(const std::string& id, uint32_t max_tokens, int32_t first = 7) {
    GenerationRequest request;
    request.id = id;
    request.prompt = testing::Shared({first, 8, 9});
    request.recipe.layer_full = request.recipe.decode_full = std::vector<bool>(kLayers);
    request.recipe_label = "full";
    request.stopping = {.max_tokens = max_tokens, .ignore_eos = true};
    return request;
  }

  static bool WaitFor(const std::function<bool()>& condition) {
    const absl::Time until = absl::Now() + absl::Minutes(2);
    while (!condition()) {
      if (absl::Now() > until) return false;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return true;
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  FakeDevice device_;
  std::atomic<int64_t> decode_tokens_{0};
  absl::Status lost_;  // before losses_
  std::atomic<int> losses_{0};
  std::unique_ptr<Engine> engine_;
};

INSTANTIATE_TEST_SUITE_P(Depths, EngineTest, ::testing::Values(1, 2));

TEST_P(EngineTest, AnswersManyThreadsAtOnce) {
  Start();
  std::vector<std::shared_ptr<RecordingSink>> sinks(24);
  std::vector<std::thread> clients;
  for (int i = 0; i < 24; ++i) {
    sinks[i] = std::make_shared<RecordingSink>();
    clients.emplace_back([this, i, &sinks] {
      ASSERT_TRUE(engine_->Submit(Request(std::to_string(i), 40, i), sinks[i]).ok());
    });
  }
  for (std::thread& client : clients) client.join();
  ASSERT_TRUE(engine_->AwaitIdle(absl::Seconds(30)));
  for (int i = 0; i < 24; ++i) {
    const GenerationRequest request = Request("", 40, i);
    EXPECT_EQ(sinks[i]->output,
              testing::ReferenceOutput(*request.prompt, {}, request.recipe, 40, true));
  }
  const EngineLoad load = engine_->Load();
  EXPECT_EQ(load.used_pages, 0);
  EXPECT_EQ(load.running + load.queued, 0);
  EXPECT_GE(decode_tokens_, 24 * 39);
}

// Holds the engine up at a request's end until another thread has done what it does there.
class ComesAgain final : public RecordingSink {
 public:
  explicit ComesAgain(std::function<void()> again) : again_(std::move(again)) {}
  void OnFailed(const absl::Status& status, const GenerationStats& stats) override {
    std::thread(again_).join();
    RecordingSink::OnFailed(status, stats);
  }

 private:
  const std::function<void()> again_;
};

TEST_P(EngineTest, WhoIsToldOfItsEndFindsItsIdAndItsPlaceFree) {
  Start(/*max_queued=*/1, /*max_running=*/1);
  auto running = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine_->Submit(Request("runs", 500), running).ok());
  ASSERT_TRUE(WaitFor([&] { return running->token_count > 0; }));
  auto again = std::make_shared<RecordingSink>();
  absl::Status submitted = absl::UnknownError("it was not told");
  auto waiting = std::make_shared<ComesAgain>(
      [&] { submitted = engine_->Submit(Request("waits", 1), again); });
  ASSERT_TRUE(engine_->Submit(Request("waits", 1), waiting).ok());
  EXPECT_FALSE(engine_->Submit(Request("third", 1), std::make_shared<RecordingSink>()).ok());
  EXPECT_TRUE(engine_->Abort("waits"));
  ASSERT_TRUE(WaitFor([&] { return waiting->ended.load(); }));
  EXPECT_TRUE(submitted.ok()) << submitted;
  engine_->Abort("runs");
  ASSERT_TRUE(engine_->AwaitIdle(absl::Seconds(30)));
  EXPECT_EQ(again->output.size(), 1u);
}

// What the header allows any thread, at once; above all for the thread sanitizer.
TEST_P(EngineTest, EveryCallMayComeFromAnyThread) {
  constexpr int kThreads = 4;
  constexpr int kRequests = 12;
  Start();
  std::vector<std::shared_ptr<RecordingSink>> sinks(kThreads * kRequests);
  std::vector<std::thread> clients;
  for (int thread = 0; thread < kThreads; ++thread) {
    clients.emplace_back([this, thread, &sinks] {
      for (int i = thread * kRequests; i < (thread + 1) * kRequests; ++i) {
        const std::string id = std::to_string(i);
        sinks[i] = std::make_shared<RecordingSink>();
        ASSERT_TRUE(engine_->Submit(Request(id, 40, i), sinks[i]).ok());
        EXPECT_LE(engine_->Load().queued, kThreads * kRequests);
        if (i % 3 == 1) engine_->Cancel(id, sinks[i].get());
        if (i % 3 == 2) engine_->Abort(id);
        engine_->AwaitIdle(absl::Milliseconds(1));
      }
    });
  }
  for (std::thread& client : clients) client.join();
  ASSERT_TRUE(engine_->AwaitIdle(absl::Seconds(30)));
  for (int i = 0; i < kThreads * kRequests; ++i) {
    EXPECT_TRUE(sinks[i]->ended) << i;
    if (i % 3 != 0) continue;
    const GenerationRequest request = Request("", 40, i);
    EXPECT_EQ(sinks[i]->output,
              testing::ReferenceOutput(*request.prompt, {}, request.recipe, 40, true));
  }
  EXPECT_EQ(engine_->Load().used_pages, 0);
}

TEST_P(EngineTest, RefusesAtTheDoor) {
  device_.set_step_time(absl::Milliseconds(50));
  Start(/*max_queued=*/2, /*max_running=*/1);
  auto running = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine_->Submit(Request("a", 1000), running).ok());
  ASSERT_TRUE(WaitFor([&] { return running->token_count > 0; }));
  auto refused = std::make_shared<RecordingSink>();
  EXPECT_EQ(engine_->Submit(Request("a", 1), refused).code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(engine_->Submit(Request("b", 1), std::make_shared<RecordingSink>()).ok());
  ASSERT_TRUE(engine_->Submit(Request("c", 1), std::make_shared<RecordingSink>()).ok());
  const absl::Status full = engine_->Submit(Request("d", 1), refused);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), HasSubstr("2"));
  EXPECT_FALSE(IsNeverFits(full));
  EXPECT_EQ(engine_->Load().queued, 2);
  GenerationRequest beyond = Request("e", 1);
  beyond.prompt = testing::Shared(std::vector<int32_t>(1025));
  EXPECT_EQ(engine_->Submit(beyond, refused).code(), absl::StatusCode::kOutOfRange);
  EXPECT_FALSE(refused->ended);
}

TEST_P(EngineTest, CancelAbortAndDeadlineEndWithinAStep) {
  device_.set_step_time(absl::Milliseconds(50));
  Start(10, 2);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 5; ++i) sinks.push_back(std::make_shared<RecordingSink>());
  ASSERT_TRUE(engine_->Submit(Request("cancelled", 1000), sinks[0]).ok());
  ASSERT_TRUE(engine_->Submit(Request("aborted", 1000), sinks[1]).ok());
  ASSERT_TRUE(WaitFor([&] { return sinks[1]->token_count > 1; }));
  ASSERT_TRUE(engine_->Submit(Request("queued, cancelled", 1000), sinks[2]).ok());
  ASSERT_TRUE(engine_->Submit(Request("queued, aborted", 1000), sinks[3]).ok());
  GenerationRequest late = Request("late", 1000);
  late.deadline = SteadyClock::now() + std::chrono::milliseconds(20);
  ASSERT_TRUE(engine_->Submit(late, sinks[4]).ok());
  engine_->Cancel("queued, cancelled", sinks[2].get());
  EXPECT_TRUE(engine_->Abort("queued, aborted"));
  ASSERT_TRUE(WaitFor([&] { return sinks[2]->ended && sinks[3]->ended && sinks[4]->ended; }));
  EXPECT_EQ(sinks[2]->status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(sinks[3]->status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(sinks[4]->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(sinks[4]->accepted);
  engine_->Cancel("cancelled", sinks[0].get());
  EXPECT_TRUE(engine_->Abort("aborted"));
  EXPECT_FALSE(engine_->Abort("nobody"));
  ASSERT_TRUE(engine_->AwaitIdle(absl::Minutes(2)));
  EXPECT_EQ(sinks[0]->status.code(), absl::StatusCode::kCancelled);
  ASSERT_TRUE(sinks[1]->result.has_value());
  EXPECT_EQ(sinks[1]->result->reason, FinishReason::kCancelled);
  EXPECT_GT(sinks[1]->result->stats.completion_tokens, 0);
  EXPECT_EQ(engine_->Load().used_pages, 0);
}

TEST_P(EngineTest, LateCancelSparesTheRequestThatTookTheIdOver) {
  device_.set_step_time(absl::Milliseconds(1));
  Start();
  auto first = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine_->Submit(Request("id", 2), first).ok());
  ASSERT_TRUE(engine_->AwaitIdle(absl::Minutes(2)));
  auto second = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine_->Submit(Request("id", 50), second).ok());
  ASSERT_TRUE(WaitFor([&] { return second->token_count > 0; }));
  engine_->Cancel("id", first.get());
  ASSERT_TRUE(engine_->AwaitIdle(absl::Minutes(2)));
  ASSERT_TRUE(second->result.has_value()) << second->status;
  EXPECT_EQ(second->output.size(), 50u);
}

TEST_P(EngineTest, PrefixCacheCanBeSwitchedOff) {
  for (const bool on : {true, false}) {
    engine_ =
        Engine::Create({.max_batch_tokens = 128, .max_context_tokens = 1024, .prefix_cache = on},
                       &device_, tokenizer_.get());
    for (const char* id : {"first", "second"}) {
      GenerationRequest request = Request(id, 1);
      request.prompt = testing::Shared(std::vector<int32_t>(200, 5));
      auto sink = std::make_shared<RecordingSink>();
      ASSERT_TRUE(engine_->Submit(request, sink).ok());
      ASSERT_TRUE(engine_->AwaitIdle(absl::Minutes(2)));
      const bool warm = on && std::string(id) == "second";
      EXPECT_EQ(sink->result->stats.cached_prompt_tokens, warm ? 192 : 0) << id << " " << on;
    }
    EXPECT_EQ(engine_->Load().evictable_pages > 0, on);
    engine_.reset();
  }
}

TEST_P(EngineTest, DrainFinishesTheAcceptedAndRefusesTheRest) {
  device_.set_step_time(absl::Milliseconds(200));
  Start(10, 1);
  auto accepted = std::make_shared<RecordingSink>();
  auto queued = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine_->Submit(Request("accepted", 60), accepted).ok());
  ASSERT_TRUE(WaitFor([&] { return accepted->token_count > 0; }));
  ASSERT_TRUE(engine_->Submit(Request("queued", 10), queued).ok());
  engine_->StartDrain();
  EXPECT_EQ(engine_->Submit(Request("new", 10), queued).code(), absl::StatusCode::kUnavailable);
  device_.set_step_time(absl::ZeroDuration());
  ASSERT_TRUE(engine_->AwaitIdle(absl::Minutes(2)));
  EXPECT_EQ(queued->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(accepted->output.size(), 60u);
}

TEST_P(EngineTest, ALostDeviceEndsAllAndIsReportedOnce) {
  device_.set_step_time(absl::Milliseconds(50));
  Start(10, 1);
  auto running = std::make_shared<RecordingSink>();
  auto queued = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine_->Submit(Request("running", 1000), running).ok());
  ASSERT_TRUE(engine_->Submit(Request("queued", 10), queued).ok());
  device_.LoseWith(absl::InternalError("illegal address"));
  ASSERT_TRUE(WaitFor([&] { return losses_ > 0; }));
  ASSERT_TRUE(engine_->AwaitIdle(absl::Minutes(2)));
  for (const auto& sink : {running, queued}) {
    EXPECT_EQ(sink->status.code(), absl::StatusCode::kInternal);
    EXPECT_TRUE(IsDeviceLost(sink->status));
    EXPECT_THAT(std::string(sink->status.message()), HasSubstr("illegal address"));
  }
  EXPECT_EQ(lost_.code(), absl::StatusCode::kInternal);
  const absl::Status refused = engine_->Submit(Request("new", 1), queued);
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(IsDeviceLost(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("illegal address"));
  EXPECT_EQ(engine_->Load().used_pages, 0);
  engine_.reset();
  EXPECT_EQ(losses_, 1);
}

TEST_P(EngineTest, AFailedStepEndsItsRequestsAndTheEngineGoesOn) {
  Start();
  device_.FailWith(absl::ResourceExhaustedError("no memory"));
  auto failed = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine_->Submit(Request("failed", 1000), failed).ok());
  ASSERT_TRUE(engine_->AwaitIdle(absl::Minutes(2)));
  EXPECT_EQ(failed->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(losses_, 0);
}

TEST_P(EngineTest, DestructionEndsWhatIsLeft) {
  device_.set_step_time(absl::Milliseconds(2));
  Start();
  auto sink = std::make_shared<RecordingSink>();
  ASSERT_TRUE(engine_->Submit(Request("left", 1000), sink).ok());
  engine_.reset();
  EXPECT_TRUE(sink->ended);
}

}  // namespace
}  // namespace swaa
