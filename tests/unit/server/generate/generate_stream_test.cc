// Streams over a real gRPC server and the real engine, on a device that is a hash: what a slow
// reader does to itself, and does not do to others.

#include "server/generate/generate_stream.h"

#include <latch>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include "server/generate/errors.h"
#include "server/generate/inference_service.h"
#include "tests/unit/testing/fake_device.h"

namespace swaa::server {
namespace {

constexpr int32_t kLayers = 2;
constexpr int32_t kContext = 1 << 14;

class GenerateStreamTest : public ::testing::Test {
 protected:
  GenerateStreamTest()
      : device_({.num_layers = kLayers,
                 .num_pages = 64,
                 .page_bytes = 1,
                 .num_slots = 8,
                 .max_pages_per_layer = kContext / 64,
                 .max_step_tokens = 128}) {}

  ~GenerateStreamTest() override {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
    shadows_.reset();
    engine_.reset();
  }

  void Start(size_t stream_buffer_bytes, absl::Duration slow_reader_timeout = absl::Minutes(5)) {
    ASSERT_TRUE(ConfigureLogging(LogFormat::kText, "warning").ok());
    serving_.recipes.Set(*RecipeCatalog::Create(BuiltInRecipes(), kLayers, false, "full"));
    metrics_ = std::make_unique<Metrics>(*serving_.recipes.Get(), "0", "model", "fake");
    slow_readers_ = std::make_unique<SlowReaderWatch>(slow_reader_timeout);
    workers_ = std::make_unique<WorkerPool>(WorkerPool::Options{});
    serving_.engine_options = {
        .max_batch_tokens = 128, .max_running_requests = 8, .max_context_tokens = kContext};
    engine_ = Engine::Create(serving_.engine_options, &device_, tokenizer_.get());
    experiments_ = *Experiments::Create({});
    shadows_ = std::make_unique<Shadows>(Shadows::Options{}, engine_.get(), &serving_.recipes,
                                         nullptr, experiments_.get(), metrics_.get());
    serving_.experiments = experiments_.get();
    serving_.shadows = shadows_.get();
    serving_.model.served_name = "model";
    serving_.model.tokenizer = tokenizer_.get();
    serving_.slow_readers = slow_readers_.get();
    serving_.metrics = metrics_.get();
    serving_.workers = workers_.get();
    serving_.engine = engine_.get();
    serving_.stream_buffer_bytes = stream_buffer_bytes;
    service_ = std::make_unique<InferenceService>(&serving_);
    int port = 0;
    server_ = grpc::ServerBuilder()
                  .AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port)
                  .RegisterService(service_.get())
                  .BuildAndStart();
    ASSERT_NE(port, 0);
    grpc::ChannelArguments arguments;
    // Or gRPC widens the window that a reader leaves unread to megabytes.
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    stub_ = v1::InferenceService::NewStub(grpc::CreateCustomChannel(
        "127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials(), arguments));
  }

  static v1::GenerateRequest Request(uint32_t max_tokens) {
    v1::GenerateRequest request;
    request.set_prompt("abc");
    request.mutable_sampling_params()->set_temperature(0);
    request.mutable_stopping_options()->set_max_tokens(max_tokens);
    request.mutable_stopping_options()->set_ignore_eos(true);
    request.mutable_recipe()->set_sliding_window_tokens(8);
    return request;
  }

  bool AwaitRunning(int32_t running) {
    const absl::Time until = absl::Now() + absl::Seconds(60);
    while (engine_->Load().running != running) {
      if (absl::Now() > until) return false;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return true;
  }

  bool AwaitWaiting(int32_t waiting) {
    const absl::Time until = absl::Now() + absl::Seconds(60);
    while (workers_->admission_load().waiting != waiting) {
      if (absl::Now() > until) return false;
      absl::SleepFor(absl::Milliseconds(1));
    }
    return true;
  }

  std::unique_ptr<Tokenizer> tokenizer_ = ::swaa::testing::MakeByteTokenizer();
  ::swaa::testing::FakeDevice device_;
  ServingContext serving_;
  std::unique_ptr<SlowReaderWatch> slow_readers_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<WorkerPool> workers_;
  std::unique_ptr<Experiments> experiments_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Shadows> shadows_;
  std::unique_ptr<InferenceService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::InferenceService::Stub> stub_;
};

TEST_F(GenerateStreamTest, ReaderThatDoesNotReadIsEndedAndDelaysNobody) {
  Start(/*stream_buffer_bytes=*/256 << 10);
  device_.set_step_time(absl::Microseconds(50));
  v1::GenerateRequest heavy = Request(kContext - 3);
  heavy.mutable_response_options()->set_output_logprobs(20);
  grpc::ClientContext slow_call;
  auto slow = stub_->Generate(&slow_call, heavy);
  ASSERT_TRUE(AwaitRunning(1));

  grpc::ClientContext call;
  auto quick = stub_->Generate(&call, Request(20));
  v1::GenerateResponse response;
  int tokens = 0;
  while (quick->Read(&response)) tokens += response.token_delta().tokens_size();
  EXPECT_TRUE(quick->Finish().ok());
  EXPECT_EQ(tokens, 20);

  // Its pages are free long before it reads on.
  ASSERT_TRUE(AwaitRunning(0));
  EXPECT_EQ(engine_->Load().used_pages, 0);
  tokens = 0;
  while (slow->Read(&response)) tokens += response.token_delta().tokens_size();
  const grpc::Status status = slow->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_GT(tokens, 0);
  EXPECT_LT(tokens, kContext - 3);
  const auto& trailers = slow_call.GetServerTrailingMetadata();
  ASSERT_TRUE(trailers.contains(kErrorReasonTrailer));
  EXPECT_EQ(trailers.find(kErrorReasonTrailer)->second, "slow_reader");
  EXPECT_TRUE(trailers.contains(kRetryPushbackTrailer));
}

TEST_F(GenerateStreamTest, ReaderThatStopsIsCutOffAndDelaysNobody) {
  // A buffer that never overflows: time alone ends it.
  Start(/*stream_buffer_bytes=*/1 << 30, /*slow_reader_timeout=*/absl::Milliseconds(400));
  device_.set_step_time(absl::Microseconds(300));
  v1::GenerateRequest heavy = Request(kContext - 3);
  heavy.mutable_response_options()->set_output_logprobs(20);
  grpc::ClientContext slow_call;
  auto slow = stub_->Generate(&slow_call, heavy);
  ASSERT_TRUE(AwaitRunning(1));
  const absl::Time start = absl::Now();
  // One that reads, for longer than the other's time.
  grpc::ClientContext call;
  auto quick = stub_->Generate(&call, Request(3000));
  v1::GenerateResponse response;
  int tokens = 0;
  while (quick->Read(&response)) tokens += response.token_delta().tokens_size();
  EXPECT_TRUE(quick->Finish().ok());
  EXPECT_EQ(tokens, 3000);
  ASSERT_TRUE(AwaitRunning(0));
  EXPECT_GT(absl::Now() - start, absl::Milliseconds(400));
  EXPECT_EQ(engine_->Load().used_pages, 0);
  tokens = 0;
  while (slow->Read(&response)) tokens += response.token_delta().tokens_size();
  EXPECT_FALSE(slow->Finish().ok());
  EXPECT_LT(tokens, kContext - 3);
  EXPECT_TRUE(serving_.live_streams.AwaitNone(absl::Seconds(20)));
  const std::string page = prometheus::TextSerializer().Serialize(metrics_->registry()->Collect());
  EXPECT_THAT(page, ::testing::HasSubstr("finish_reason=\"none\",grpc_code=\"RESOURCE_EXHAUSTED\","
                                         "recipe=\"custom\"} 1"));
}

TEST_F(GenerateStreamTest, ReaderThatLagsWithinItsBufferLosesNothing) {
  Start(/*stream_buffer_bytes=*/8 << 20);
  v1::GenerateRequest request = Request(3000);
  request.mutable_response_options()->set_output_logprobs(20);
  grpc::ClientContext call;
  auto reader = stub_->Generate(&call, request);
  ASSERT_TRUE(AwaitRunning(1));
  ASSERT_TRUE(AwaitRunning(0));
  v1::GenerateResponse response;
  std::vector<int> order;
  int tokens = 0;
  while (reader->Read(&response)) {
    tokens += response.token_delta().tokens_size();
    if (order.empty() || order.back() != response.event_case()) {
      order.push_back(response.event_case());
    }
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(tokens, 3000);
  EXPECT_EQ(order,
            (std::vector<int>{v1::GenerateResponse::kAccepted, v1::GenerateResponse::kTokenDelta,
                              v1::GenerateResponse::kFinished}));
}

// Holds up every thread that admissions may take.
class BusyWorkers {
 public:
  explicit BusyWorkers(WorkerPool* workers) {
    for (int i = 0; i < kThreads; ++i) {
      EXPECT_TRUE(workers
                      ->PostAdmission(1,
                                      [latches = latches_] {
                                        latches->begun.count_down();
                                        latches->release.wait();
                                      })
                      .ok());
    }
    latches_->begun.wait();
  }
  ~BusyWorkers() { latches_->release.count_down(); }

 private:
  static constexpr int kThreads = 2;  // of the pool's three
  struct Latches {
    std::latch begun{kThreads};
    std::latch release{1};
  };
  // Shared: a thread may still be waking up when this has gone.
  std::shared_ptr<Latches> latches_ = std::make_shared<Latches>();
};

TEST_F(GenerateStreamTest, WhoWaitsToBeReadIsCountedAndAborted) {
  Start(/*stream_buffer_bytes=*/1 << 20);
  auto busy = std::make_unique<BusyWorkers>(workers_.get());
  std::vector<std::unique_ptr<grpc::ClientContext>> calls;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers;
  for (const char* id : {"one", "two", "three"}) {
    v1::GenerateRequest request = Request(5);
    request.set_request_id(id);
    calls.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub_->Generate(calls.back().get(), request));
  }
  ASSERT_TRUE(AwaitWaiting(3));
  EXPECT_GT(workers_->admission_load().bytes, 0);
  EXPECT_EQ(serving_.pending.Abort("four"), 0);
  EXPECT_EQ(serving_.pending.Abort("two"), 1);
  v1::GenerateResponse response;
  EXPECT_FALSE(readers[1]->Read(&response));
  EXPECT_EQ(readers[1]->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(calls[1]->GetServerTrailingMetadata().find(kErrorReasonTrailer)->second, "aborted");
  EXPECT_EQ(serving_.pending.Abort("two"), 0);
  ASSERT_TRUE(AwaitWaiting(2));
  EXPECT_EQ(serving_.pending.AbortAll(), 2);
  for (int i : {0, 2}) {
    EXPECT_FALSE(readers[i]->Read(&response));
    EXPECT_EQ(readers[i]->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  ASSERT_TRUE(AwaitWaiting(0));
  busy.reset();
}

TEST_F(GenerateStreamTest, WhoLeavesWhileItWaitsToBeReadGivesItsBytesBackAtOnce) {
  Start(/*stream_buffer_bytes=*/1 << 20);
  auto busy = std::make_unique<BusyWorkers>(workers_.get());
  const int64_t before = workers_->admission_load().bytes;
  v1::GenerateRequest request = Request(5);
  request.set_prompt(std::string(1 << 20, 'x'));
  grpc::ClientContext leaves, late;
  auto leaving = stub_->Generate(&leaves, request);
  late.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(400));
  auto expiring = stub_->Generate(&late, request);
  ASSERT_TRUE(AwaitWaiting(2));
  EXPECT_GT(workers_->admission_load().bytes, before + (2 << 20));
  leaves.TryCancel();
  ASSERT_TRUE(AwaitWaiting(1));
  v1::GenerateResponse response;
  EXPECT_FALSE(expiring->Read(&response));
  EXPECT_EQ(expiring->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  ASSERT_TRUE(AwaitWaiting(0));
  EXPECT_EQ(workers_->admission_load().bytes, before);
  EXPECT_FALSE(leaving->Read(&response));
  EXPECT_EQ(leaving->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(serving_.live_streams.AwaitNone(absl::Seconds(20)));
  const std::string page = prometheus::TextSerializer().Serialize(metrics_->registry()->Collect());
  EXPECT_THAT(page, ::testing::HasSubstr("grpc_code=\"DEADLINE_EXCEEDED\",recipe=\"none\"} 1"));
  EXPECT_THAT(page, ::testing::HasSubstr("grpc_code=\"CANCELLED\",recipe=\"none\"} 1"));
}

TEST_F(GenerateStreamTest, ADrainingServerRefusesWhoWaitsToBeRead) {
  Start(/*stream_buffer_bytes=*/1 << 20);
  auto busy = std::make_unique<BusyWorkers>(workers_.get());
  grpc::ClientContext call;
  auto reader = stub_->Generate(&call, Request(5));
  ASSERT_TRUE(AwaitWaiting(1));
  serving_.draining = true;
  busy.reset();
  v1::GenerateResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GenerateStreamTest, ManyStreamsEndInOrderWhateverTheirClientsDo) {
  Start(/*stream_buffer_bytes=*/1 << 20);
  std::vector<std::thread> clients;
  for (int client = 0; client < 24; ++client) {
    clients.emplace_back([&, client] {
      for (int round = 0; round < 8; ++round) {
        grpc::ClientContext call;
        auto reader = stub_->Generate(&call, Request(50));
        v1::GenerateResponse response;
        int tokens = 0;
        bool finished = false;
        while (reader->Read(&response)) {
          tokens += response.token_delta().tokens_size();
          finished = response.has_finished();
          if (client % 3 == 0 && tokens == 10) call.TryCancel();
        }
        const grpc::Status status = reader->Finish();
        if (status.ok()) {
          EXPECT_TRUE(finished);
          EXPECT_EQ(tokens, 50);
        } else {
          EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED) << status.error_message();
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(engine_->AwaitIdle(absl::Seconds(20)));
  EXPECT_TRUE(serving_.live_streams.AwaitNone(absl::Seconds(20)));
  EXPECT_EQ(engine_->Load().used_pages, 0);
}

}  // namespace
}  // namespace swaa::server
