// What the prefix cache has, as numbered batches of events for gateways.

#ifndef SWAA_SERVER_VLLM_ENGINE_KV_EVENT_LOG_H_
#define SWAA_SERVER_VLLM_ENGINE_KV_EVENT_LOG_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "engine/cache/block_change.h"
#include "smg/grpc/common/common.pb.h"

namespace swaa::server {

// Keeps the blocks that are there and the last batches. A block is named by the low half of its
// content hash. Blocks of requests with a cache salt are left out: a gateway sends none, so they
// are nobody's business. Numbers begin with the time of the start, so that those of a server that
// began anew are all larger. Thread-safe.
class KvEventLog {
 public:
  using Batch = ::smg::grpc::common::KvEventBatch;

  // `kept_events`: how many a subscriber may be behind, at least; `batch_events`: the most of a
  // batch, and blocks of a snapshot's part.
  explicit KvEventLog(size_t kept_events = 1 << 15, size_t batch_events = 256);

  // On the engine thread. Where memory is short, nobody is told of the block.
  void OnBlock(const BlockChange& change);

  // Where a subscriber has got to.
  struct Cursor {
    std::deque<Batch> snapshot;  // what is sent first
    uint64_t next = 0;           // the batch after it
  };
  // `start` as SubscribeKvEventsRequest has it.
  Cursor Begin(uint64_t start);
  // The next batch; none: there is none yet. A cursor that was left behind begins anew.
  std::optional<Batch> Next(Cursor* cursor);
  // Calls `wake` after changes, on the engine thread, under a lock: it must neither block nor call
  // the log. `subscriber` is a name for
  // Remove, after whose return no call comes.
  void Add(const void* subscriber, std::function<void()> wake);
  void Remove(const void* subscriber);

 private:
  using Event = ::smg::grpc::common::KvCacheEvent;

  void Note(const BlockChange& change);
  Cursor Snapshot() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Makes a batch of what is pending.
  void Seal() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t kept_events_;
  const size_t batch_events_;
  mutable std::mutex mutex_;
  // The events by which the blocks that are there came, by their numbers, so that a block stands
  // behind its parent; and the numbers by the blocks' names.
  std::map<uint64_t, Event> stored_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<int64_t, uint64_t> stored_by_name_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_event_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t sequence_ ABSL_GUARDED_BY(mutex_);  // of the last batch of history_
  std::deque<Batch> history_ ABSL_GUARDED_BY(mutex_);
  size_t history_events_ ABSL_GUARDED_BY(mutex_) = 0;
  Batch pending_ ABSL_GUARDED_BY(mutex_);  // the batch that is being made
  std::map<const void*, std::function<void()>> subscribers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_VLLM_ENGINE_KV_EVENT_LOG_H_
