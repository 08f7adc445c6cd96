// Requests from Submit to their end, as all threads know them, and what those threads want of the
// engine's.

#ifndef SWAA_ENGINE_LIVE_REQUESTS_H_
#define SWAA_ENGINE_LIVE_REQUESTS_H_

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/generation.h"
#include "engine/schedule/engine_load.h"

namespace swaa {

struct LiveRequest {
  std::string id;
  std::shared_ptr<GenerationSink> sink;
  RequestClass request_class = RequestClass::kServing;
  // What it was asked for and the engine's thread has not done yet. Such requests form a list, as
  // whoever asks must not need memory. All three are LiveRequests'.
  bool cancel = false;
  bool abort = false;
  std::shared_ptr<LiveRequest> next_asked;
};

// Thread-safe. Only Enter takes memory; where that is short, it throws bad_alloc and the request
// has not entered.
class LiveRequests {
 public:
  explicit LiveRequests(int32_t max_queued) : max_queued_(max_queued) {}

  // ---- any thread; as Engine has it ----

  absl::Status Enter(GenerationRequest request, std::shared_ptr<GenerationSink> sink,
                     int32_t max_output);
  void Cancel(const std::string& id, const GenerationSink* sink);
  bool Abort(const std::string& id);
  int32_t AbortAll();
  void StartDrain();
  bool AwaitIdle(absl::Duration timeout);
  LoadSnapshot Load() const;
  // The engine's thread ends when nothing is left to be done.
  void Stop();

  // ---- the engine's thread ----

  struct Submission {
    std::shared_ptr<LiveRequest> live;
    GenerationRequest request;
    int32_t max_output = 0;
  };
  // What is wanted, in the order in which it may be done: what has come, has come before it was
  // asked for anything.
  struct Posted {
    std::vector<Submission> submissions;
    std::shared_ptr<LiveRequest> asked;  // the first of a list
    bool drain = false;
  };
  // Waits until something is posted, or `busy`. False: stop.
  bool Await(absl::FunctionRef<bool()> busy);
  Posted Take();
  // Takes back what a request was asked for; how it is to end, and the next of the list.
  struct Answer {
    bool cancel = false;  // else it is to be aborted
    std::shared_ptr<LiveRequest> next;
  };
  Answer TakeAsked(LiveRequest* live);

  // A request is about to end: its id and its place in the queue are free before its client knows.
  void Leave(const std::string& id, bool runs);
  // The load, of which as many as `ended` that have left are no part any more.
  void Publish(LoadSnapshot load, int64_t ended);

  // Refuses whoever comes from now on with `status`.
  void Refuse(const absl::Status& status);
  // Any live request leaves; null: there is none.
  std::shared_ptr<LiveRequest> LeaveAny();
  // All have left, and none will come.
  void PublishNothing();

  const absl::Status& draining() const { return draining_status_; }

 private:
  using ById = std::unordered_map<std::string, std::shared_ptr<LiveRequest>>;

  // These hold mutex_.
  bool posted() const { return !submissions_.empty() || asked_ != nullptr || drain_asked_; }
  LiveRequest* Ask(const std::shared_ptr<LiveRequest>& live);
  void Erase(ById::iterator live);

  const int32_t max_queued_;
  const absl::Status draining_status_ =
      absl::UnavailableError("the server is shutting down; send the request elsewhere");

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable ended_;
  std::vector<Submission> submissions_;
  std::shared_ptr<LiveRequest> asked_;
  bool drain_asked_ = false;
  ById live_;
  int32_t live_shadows_ = 0;
  int64_t unpublished_ = 0;  // ended and still in load_
  int32_t waiting_ = 0;      // live, serving and not running
  LoadSnapshot load_;
  absl::Status refusal_;  // of whoever comes
  bool draining_ = false;
  bool stopping_ = false;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_LIVE_REQUESTS_H_
