// The pool of streams against a gRPC server whose answers are scripted by the request.

#include "tools/bench/stream_pool.h"

#include <atomic>
#include <limits>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace swaa::tools::bench {
namespace {

// Answers as the prompt says.
class ScriptedService : public v1::InferenceService::Service {
 public:
  grpc::Status Generate(grpc::ServerContext* call, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    ++attempts;
    const int64_t running = ++running_;
    int64_t most = most_running.load();
    while (running > most && !most_running.compare_exchange_weak(most, running)) {
    }
    const grpc::Status status = Answer(call, *request, writer);
    --running_;
    return status;
  }

  std::atomic<int64_t> attempts{0};
  std::atomic<int64_t> most_running{0};

 private:
  grpc::Status Answer(grpc::ServerContext* call, const v1::GenerateRequest& request,
                      grpc::ServerWriter<v1::GenerateResponse>* writer) {
    const std::string& script = request.prompt();
    if (script == "refuse" || (script == "refuse once" && attempts == 1)) {
      call->AddTrailingMetadata("swaa-error-reason", "queue_full");
      return {grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full"};
    }
    if (script == "hang") {
      while (!call->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      return grpc::Status::CANCELLED;
    }
    v1::GenerateResponse accepted;
    accepted.mutable_accepted()->set_prompt_tokens(7);
    writer->Write(accepted);
    for (int i = 0; i < 3; ++i) {
      v1::GenerateResponse delta;
      delta.mutable_token_delta()->add_tokens()->set_token_id(5);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      writer->Write(delta);
    }
    if (script == "break off") return grpc::Status::OK;
    v1::GenerateResponse finished;
    finished.mutable_finished()->set_finish_reason(script == "abort" ? v1::FINISH_REASON_CANCELLED
                                                                     : v1::FINISH_REASON_LENGTH);
    finished.mutable_finished()->mutable_usage()->set_completion_tokens(3);
    writer->Write(finished);
    return grpc::Status::OK;
  }

  std::atomic<int64_t> running_{0};
};

class StreamPoolTest : public testing::Test {
 protected:
  StreamPoolTest() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
  }
  ~StreamPoolTest() override { server_->Shutdown(); }

  std::vector<std::shared_ptr<grpc::Channel>> Channels(bool retry) {
    return MakeChannels({.address = "127.0.0.1:" + std::to_string(port_)}, 2, retry);
  }

  static void Start(StreamPool* pool, const std::string& script, double scheduled = -1) {
    v1::GenerateRequest request;
    request.set_prompt(script);
    RequestRecord record;
    record.scheduled_seconds = scheduled;
    pool->Start(std::move(request), std::move(record));
  }

  RequestRecord RunOne(const std::string& script, bool retry = false,
                       absl::Duration deadline = absl::InfiniteDuration()) {
    StreamPool pool(Channels(retry), 1, deadline);
    Start(&pool, script);
    pool.WaitUntilIdle();
    std::vector<RequestRecord> records = pool.TakeRecords();
    EXPECT_EQ(records.size(), 1u);
    return records.at(0);
  }

  ScriptedService service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

constexpr double kForever = std::numeric_limits<double>::infinity();

TEST_F(StreamPoolTest, RecordsTimesAndCounts) {
  const RequestRecord record = RunOne("answer");
  EXPECT_TRUE(record.completed()) << record.error_message;
  EXPECT_EQ(record.prompt_tokens, 7u);
  EXPECT_EQ(record.usage.completion_tokens(), 3u);
  EXPECT_EQ(record.token_gaps_ms.size(), 2u);
  EXPECT_EQ(record.scheduled_seconds, record.sent_seconds);
  EXPECT_GE(record.ttft_ms(), 10);
  // The server waits ten milliseconds before each of three tokens.
  EXPECT_GE(record.e2el_ms(), 30);
  EXPECT_GT(record.e2el_ms(), record.ttft_ms());
}

TEST_F(StreamPoolTest, SaysWhyARequestFailed) {
  const RequestRecord refused = RunOne("refuse");
  EXPECT_EQ(refused.error_code, "RESOURCE_EXHAUSTED");
  EXPECT_EQ(refused.error_reason, "queue_full");
  EXPECT_EQ(refused.error_message, "the queue is full");
  EXPECT_EQ(service_.attempts, 1);
  EXPECT_EQ(RunOne("break off").error_code, "INTERNAL");
  EXPECT_EQ(RunOne("abort").error_code, "CANCELLED");
  EXPECT_EQ(RunOne("hang", false, absl::Milliseconds(100)).error_code, "DEADLINE_EXCEEDED");
}

TEST_F(StreamPoolTest, RetriesWhatWasRefusedWhenAsked) {
  EXPECT_TRUE(RunOne("refuse once", /*retry=*/true).completed());
  EXPECT_EQ(service_.attempts, 2);
}

TEST_F(StreamPoolTest, NeverHasMoreInFlightThanItMay) {
  StreamPool pool(Channels(false), 4, absl::InfiniteDuration());
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(pool.WaitForRoom(kForever));
    Start(&pool, "answer");
  }
  pool.WaitUntilIdle();
  EXPECT_EQ(pool.counts().completed, 40);
  EXPECT_EQ(pool.counts().output_tokens, 120);
  EXPECT_GE(service_.most_running, 2);
  EXPECT_LE(service_.most_running, 4);
  EXPECT_EQ(pool.TakeRecords().size(), 40u);
}

TEST_F(StreamPoolTest, WaitsNoLongerThanTold) {
  StreamPool pool(Channels(false), 1, absl::InfiniteDuration());
  Start(&pool, "hang");
  EXPECT_FALSE(pool.WaitForRoom(pool.SecondsSinceStart() + 0.05));
  EXPECT_TRUE(pool.WaitUntil(pool.SecondsSinceStart() + 0.05));
  pool.CancelAll();
}

TEST_F(StreamPoolTest, CancelEndsEveryStreamAndWaiterAndLetsNoneStart) {
  StreamPool pool(Channels(false), 8, absl::InfiniteDuration());
  for (int i = 0; i < 8; ++i) Start(&pool, "hang");
  std::thread waiter([&] { EXPECT_FALSE(pool.WaitForRoom(kForever)); });
  pool.CancelAll();
  waiter.join();
  EXPECT_FALSE(pool.WaitUntil(kForever));
  Start(&pool, "hang");
  pool.WaitUntilIdle();
  EXPECT_EQ(pool.counts().sent, 8);
  EXPECT_TRUE(pool.TakeRecords().empty()) << "what was cut off says nothing about the server";
}

}  // namespace
}  // namespace swaa::tools::bench
