// Bench: many generations in flight at once, without a thread for each.

#include "tools/bench/stream_pool.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"

namespace swaa::tools::bench {
namespace {

constexpr int kRetryBufferBytes = 16 << 20;
// Beyond this the run is endless for any clock.
constexpr double kLongestSeconds = 1e8;

constexpr char kRetryConfig[] = R"({
  "methodConfig": [{
    "name": [{"service": "swaa.v1.InferenceService"}],
    "retryPolicy": {
      "maxAttempts": 5,
      "initialBackoff": "0.2s",
      "maxBackoff": "10s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
    }
  }]
})";

std::string CodeName(grpc::StatusCode code) {
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
}

void SetError(const grpc::Status& status, const grpc::ClientContext& context,
              RequestRecord* record) {
  record->error_code = CodeName(status.error_code());
  record->error_message = status.error_message();
  const auto& trailers = context.GetServerTrailingMetadata();
  if (const auto reason = trailers.find("swaa-error-reason"); reason != trailers.end()) {
    record->error_reason.assign(reason->second.data(), reason->second.size());
  }
}

}  // namespace

std::vector<std::shared_ptr<grpc::Channel>> MakeChannels(const Connection& connection, int count,
                                                         bool retry) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, retry ? 1 : 0);
  if (retry) arguments.SetServiceConfigJSON(kRetryConfig);
  arguments.SetInt(GRPC_ARG_PER_RPC_RETRY_BUFFER_SIZE, kRetryBufferBytes);
  // Otherwise channels to one address share a connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (int i = 0; i < count; ++i) {
    channels.push_back(OpenChannel(connection, arguments));
  }
  return channels;
}

// One generation; deletes itself at its end. gRPC calls it from one thread at a time.
class StreamPool::Stream : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Stream(StreamPool* pool, v1::GenerateRequest request, RequestRecord record)
      : pool_(pool), request_(std::move(request)), record_(std::move(record)) {}

  // Shared, so that a stream may be cancelled while it ends.
  const std::shared_ptr<grpc::ClientContext>& context() const { return context_; }

  void Begin(v1::InferenceService::Stub* stub) {
    record_.sent_seconds = pool_->SecondsSinceStart();
    if (record_.scheduled_seconds < 0) record_.scheduled_seconds = record_.sent_seconds;
    if (pool_->deadline_ != absl::InfiniteDuration()) {
      context_->set_deadline(absl::ToChronoTime(absl::Now() + pool_->deadline_));
    }
    stub->async()->Generate(context_.get(), &request_, this);
    StartRead(&response_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    const double now = pool_->SecondsSinceStart();
    switch (response_.event_case()) {
      case v1::GenerateResponse::kAccepted:
        record_.prompt_tokens = response_.accepted().prompt_tokens();
        record_.request_id = response_.accepted().request_id();
        record_.experiment_arm = response_.accepted().experiment_arm();
        break;
      case v1::GenerateResponse::kTokenDelta:
        if (response_.token_delta().tokens_size() > 0) TakeTokens(now);
        break;
      case v1::GenerateResponse::kFinished:
        finished_ = true;
        if (response_.finished().finish_reason() == v1::FINISH_REASON_CANCELLED) {
          record_.error_code = CodeName(grpc::StatusCode::CANCELLED);
          record_.error_message = "aborted at the server";
        }
        record_.usage = response_.finished().usage();
        record_.stats = response_.finished().stats();
        record_.outcome_token = response_.finished().outcome_token();
        break;
      case v1::GenerateResponse::kPromptLogprobs:
      case v1::GenerateResponse::EVENT_NOT_SET:
        break;
    }
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    record_.finished_seconds = pool_->SecondsSinceStart();
    if (!status.ok()) {
      SetError(status, *context_, &record_);
    } else if (!finished_) {
      record_.error_code = CodeName(grpc::StatusCode::INTERNAL);
      record_.error_message = "the stream ended well but without its last event";
    }
    StreamPool* pool = pool_;
    RequestRecord record = std::move(record_);
    pool->Remove(this);
    // Gone before the pool may be.
    delete this;
    pool->Finish(std::move(record));
  }

 private:
  void TakeTokens(double now) {
    if (record_.first_token_seconds < 0) {
      record_.first_token_seconds = now;
    } else {
      record_.token_gaps_ms.push_back(static_cast<float>((now - record_.last_token_seconds) * 1e3));
    }
    record_.last_token_seconds = now;
  }

  StreamPool* const pool_;
  const std::shared_ptr<grpc::ClientContext> context_ = std::make_shared<grpc::ClientContext>();
  const v1::GenerateRequest request_;
  v1::GenerateResponse response_;
  RequestRecord record_;
  bool finished_ = false;
};

StreamPool::StreamPool(std::vector<std::shared_ptr<grpc::Channel>> channels, int max_in_flight,
                       absl::Duration deadline)
    : max_in_flight_(max_in_flight), deadline_(deadline) {
  for (const auto& channel : channels) stubs_.push_back(v1::InferenceService::NewStub(channel));
}

StreamPool::~StreamPool() { WaitUntilIdle(); }

double StreamPool::SecondsSinceStart() const {
  return std::chrono::duration<double>(Clock::now() - start_).count();
}

Clock::time_point StreamPool::At(double seconds) const {
  const std::chrono::duration<double> since_start(std::min(seconds, kLongestSeconds));
  return start_ + std::chrono::duration_cast<Clock::duration>(since_start);
}

bool StreamPool::WaitForRoom(double seconds) {
  std::unique_lock lock(mutex_);
  const bool in_time = changed_.wait_until(
      lock, At(seconds), [this] { return cancelled_ || counts_.in_flight() < max_in_flight_; });
  return in_time && !cancelled_ && SecondsSinceStart() < seconds;
}

bool StreamPool::WaitUntil(double seconds) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_until(lock, At(seconds), [this] { return cancelled_; });
}

void StreamPool::Start(v1::GenerateRequest request, RequestRecord record) {
  auto* stream = new Stream(this, std::move(request), std::move(record));
  v1::InferenceService::Stub* stub = nullptr;
  {
    std::lock_guard lock(mutex_);
    if (cancelled_) {
      delete stream;
      return;
    }
    streams_.insert(stream);
    stub = stubs_[static_cast<size_t>(counts_.sent++) % stubs_.size()].get();
  }
  stream->Begin(stub);
}

void StreamPool::Remove(Stream* stream) {
  std::lock_guard lock(mutex_);
  streams_.erase(stream);
}

void StreamPool::Finish(RequestRecord record) {
  std::lock_guard lock(mutex_);
  if (record.completed()) {
    ++counts_.completed;
    counts_.output_tokens += record.usage.completion_tokens();
  } else {
    ++counts_.failed;
  }
  const bool ended_by_us = cancelled_ && !record.completed();
  if (!ended_by_us) records_.push_back(std::move(record));
  changed_.notify_all();
}

void StreamPool::WaitUntilIdle() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return counts_.in_flight() == 0; });
}

void StreamPool::CancelAll() {
  std::vector<std::shared_ptr<grpc::ClientContext>> contexts;
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    for (Stream* stream : streams_) contexts.push_back(stream->context());
    changed_.notify_all();
  }
  // Outside the lock: gRPC may run a stream's end within the call.
  for (const auto& context : contexts) context->TryCancel();
}

StreamPool::Counts StreamPool::counts() const {
  std::lock_guard lock(mutex_);
  return counts_;
}

std::vector<RequestRecord> StreamPool::TakeRecords() {
  std::lock_guard lock(mutex_);
  return std::move(records_);
}

}  // namespace swaa::tools::bench
