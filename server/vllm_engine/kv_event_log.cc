// What the prefix cache has, as numbered batches of events.

#include "server/vllm_engine/kv_event_log.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "server/observation/memory_guard.h"

namespace swaa::server {
namespace {

int64_t NameOf(const ContentHash& hash) { return static_cast<int64_t>(hash.low); }

double Now() { return absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()); }

}  // namespace

KvEventLog::KvEventLog(size_t kept_events, size_t batch_events)
    : kept_events_(kept_events),
      batch_events_(batch_events),
      sequence_(static_cast<uint64_t>(absl::ToUnixMicros(absl::Now()))) {}

void KvEventLog::OnBlock(const BlockChange& change) {
  GuardMemory("telling of a cached block", [&] { Note(change); });
}

void KvEventLog::Note(const BlockChange& change) {
  static const PrefixScope kUnsalted = MakePrefixScope("", 0);
  if (!(change.scope == kUnsalted)) return;
  const int64_t name = NameOf(change.hash);
  std::lock_guard lock(mutex_);
  const auto known = stored_by_name_.find(name);
  const bool is_added = change.kind == BlockChange::Kind::kAdded;
  // Two blocks may have one name, once in an age: the first speaks for both.
  if (is_added == (known != stored_by_name_.end())) return;
  Event event;
  event.set_event_id(next_event_++);
  if (is_added) {
    auto* stored = event.mutable_stored();
    if (change.parent != nullptr) stored->set_parent_block_hash(NameOf(*change.parent));
    auto* block = stored->add_blocks();
    block->set_block_hash(name);
    block->mutable_token_ids()->Add(change.tokens.begin(), change.tokens.end());
    block->set_block_size(static_cast<int32_t>(change.tokens.size()));
    stored_by_name_.emplace(name, event.event_id());
    stored_.emplace(event.event_id(), event);
  } else {
    event.mutable_removed()->add_block_hashes(name);
    stored_.erase(known->second);
    stored_by_name_.erase(known);
  }
  *pending_.add_events() = std::move(event);
  if (static_cast<size_t>(pending_.events_size()) >= batch_events_) Seal();
  for (const auto& [subscriber, wake] : subscribers_) wake();
}

void KvEventLog::Seal() {
  if (pending_.events().empty()) return;
  const auto events = static_cast<size_t>(pending_.events_size());
  pending_.set_sequence_number(sequence_ + 1);
  pending_.set_timestamp(Now());
  history_.push_back(std::move(pending_));
  pending_.Clear();
  ++sequence_;
  history_events_ += events;
  while (history_events_ > kept_events_ + batch_events_) {
    history_events_ -= static_cast<size_t>(history_.front().events_size());
    history_.pop_front();
  }
}

KvEventLog::Cursor KvEventLog::Snapshot() {
  Seal();
  Cursor cursor{.next = sequence_ + 1};
  const uint64_t count =
      std::max<uint64_t>(1, (stored_.size() + batch_events_ - 1) / batch_events_);
  auto event = stored_.begin();
  for (uint64_t index = 0; index < count; ++index) {
    Batch& batch = cursor.snapshot.emplace_back();
    batch.set_sequence_number(sequence_ - count + 1 + index);
    batch.set_timestamp(Now());
    batch.mutable_snapshot()->set_index(static_cast<uint32_t>(index));
    batch.mutable_snapshot()->set_count(static_cast<uint32_t>(count));
    batch.mutable_snapshot()->set_blocks(stored_.size());
    if (index == 0) batch.add_events()->mutable_cleared();
    for (size_t i = 0; i < batch_events_ && event != stored_.end(); ++i, ++event) {
      *batch.add_events() = event->second;
    }
  }
  return cursor;
}

KvEventLog::Cursor KvEventLog::Begin(uint64_t start) {
  std::lock_guard lock(mutex_);
  Seal();
  const uint64_t oldest = sequence_ + 1 - history_.size();
  if (start < oldest || start > sequence_ + 1) return Snapshot();
  return Cursor{.next = start};
}

std::optional<KvEventLog::Batch> KvEventLog::Next(Cursor* cursor) {
  std::lock_guard lock(mutex_);
  if (cursor->snapshot.empty()) {
    Seal();
    if (cursor->next > sequence_) return std::nullopt;
    const uint64_t oldest = sequence_ + 1 - history_.size();
    if (cursor->next >= oldest) {
      Batch batch = history_[cursor->next - oldest];
      ++cursor->next;
      return batch;
    }
    *cursor = Snapshot();
  }
  Batch batch = std::move(cursor->snapshot.front());
  cursor->snapshot.pop_front();
  return batch;
}

void KvEventLog::Add(const void* subscriber, std::function<void()> wake) {
  std::lock_guard lock(mutex_);
  subscribers_[subscriber] = std::move(wake);
}

void KvEventLog::Remove(const void* subscriber) {
  std::lock_guard lock(mutex_);
  subscribers_.erase(subscriber);
}

}  // namespace swaa::server
