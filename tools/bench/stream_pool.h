// Bench: many generations in flight at once, without a thread for each.

#ifndef SWAA_TOOLS_BENCH_STREAM_POOL_H_
#define SWAA_TOOLS_BENCH_STREAM_POOL_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "absl/time/time.h"
#include "swaa/v1/inference_service.grpc.pb.h"
#include "tools/bench/record.h"
#include "tools/connection.h"

namespace swaa::tools::bench {

using Clock = std::chrono::steady_clock;

// Connections of their own to one server. With `retry`, gRPC retries what the server refused before
// any message, and keeps requests of up to 16 MiB for it; without, not even transparently.
std::vector<std::shared_ptr<grpc::Channel>> MakeChannels(const Connection& connection, int count,
                                                         bool retry);

// Sends requests as callback streams, which gRPC's own few threads serve, and keeps a record of
// each. Its clock starts when it is made. Thread-safe, but for being destroyed.
class StreamPool {
 public:
  struct Counts {
    int64_t sent = 0;
    int64_t completed = 0;
    int64_t failed = 0;
    int64_t output_tokens = 0;  // of the completed
    int64_t in_flight() const { return sent - completed - failed; }
  };

  // `deadline` is each request's.
  StreamPool(std::vector<std::shared_ptr<grpc::Channel>> channels, int max_in_flight,
             absl::Duration deadline);
  // Waits for every stream.
  ~StreamPool();

  double SecondsSinceStart() const;

  // Waits until fewer than max_in_flight streams live, or until `seconds` since the start; whether
  // one more may be sent.
  bool WaitForRoom(double seconds);

  // Waits until `seconds` since the start; false when CancelAll() came before.
  bool WaitUntil(double seconds);

  // Sends a request; `record` says its arm and, in an open loop, when it was due (else < 0).
  // Nothing is sent after CancelAll().
  void Start(v1::GenerateRequest request, RequestRecord record);

  // Waits until no stream lives.
  void WaitUntilIdle();

  // Cancels the streams that live, whose records are dropped, and lets no other start.
  void CancelAll();

  Counts counts() const;

  // The records of the streams that ended, in the order of their ends. Call when idle.
  std::vector<RequestRecord> TakeRecords();

 private:
  class Stream;

  Clock::time_point At(double seconds) const;
  void Remove(Stream* stream);
  void Finish(RequestRecord record);

  const Clock::time_point start_ = Clock::now();
  const int max_in_flight_;
  const absl::Duration deadline_;
  std::vector<std::unique_ptr<v1::InferenceService::Stub>> stubs_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool cancelled_ = false;
  Counts counts_;
  std::set<Stream*> streams_;
  std::vector<RequestRecord> records_;
};

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_STREAM_POOL_H_
