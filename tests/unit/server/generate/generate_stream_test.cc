// Streams over a real gRPC server and the real engine, on a device that is a hash: what a slow
// reader does to itself, and does not do to others.

#include "server/generate/generate_stream.h"

#include <latch>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include "server/generate/errors.h"
#include "tests/unit/server/generate/generate_stream_fixture.h"

namespace swaa::server {
namespace {

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
  // A buffer that never overflows: time alone ends it, which stands still until the test says so.
  const auto now = std::make_shared<std::atomic<absl::Time>>(SteadyNow());
  Start(/*stream_buffer_bytes=*/1 << 30, /*slow_reader_timeout=*/absl::Milliseconds(20),
        [now] { return now->load(); });
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
  const auto ended = [this] {
    return prometheus::TextSerializer().Serialize(metrics_->registry()->Collect());
  };
  constexpr char kCutOff[] =
      "finish_reason=\"none\",grpc_code=\"RESOURCE_EXHAUSTED\",recipe=\"custom\"} 1";
  EXPECT_THAT(ended(), ::testing::Not(::testing::HasSubstr(kCutOff)));
  *now = SteadyNow() + absl::Hours(1);
  EXPECT_TRUE(serving_.live_streams.AwaitNone(absl::Minutes(2)));
  ASSERT_TRUE(AwaitRunning(0));
  EXPECT_EQ(engine_->Load().used_pages, 0);
  tokens = 0;
  while (slow->Read(&response)) tokens += response.token_delta().tokens_size();
  EXPECT_FALSE(slow->Finish().ok());
  EXPECT_LT(tokens, kContext - 3);
  EXPECT_THAT(ended(), ::testing::HasSubstr(kCutOff));
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
  ASSERT_TRUE(AwaitWaiting(1));
  late.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
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
  EXPECT_TRUE(serving_.live_streams.AwaitNone(absl::Minutes(2)));
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
  EXPECT_TRUE(engine_->AwaitIdle(absl::Minutes(2)));
  EXPECT_TRUE(serving_.live_streams.AwaitNone(absl::Minutes(2)));
  EXPECT_EQ(engine_->Load().used_pages, 0);
}

}  // namespace
}  // namespace swaa::server
