// The thread that alone writes to a store: groups of outcomes, observations, tasks.

#include <algorithm>
#include <utility>

#include "base/status_macros.h"
#include "server/experiments/storage/accumulate.h"
#include "server/experiments/storage/experiment_store.h"
#include "server/experiments/storage/out_of_memory.h"

namespace swaa::server {
namespace {

int64_t SystemMilliseconds() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

bool ExperimentStore::HasUrgentWork() const {
  return stopping_ || !tasks_.empty() ||
         outcomes_.size() >= static_cast<size_t>(options_.max_group);
}

ExperimentStore::Clock::time_point ExperimentStore::NextDue() const {
  Clock::time_point due = Clock::time_point::max();
  if (!outcomes_.empty()) due = group_due_;
  if (!observations_.empty()) due = std::min(due, flush_due_);
  return due;
}

void ExperimentStore::Write() {
  std::unique_lock lock(mutex_);
  for (;;) {
    while (!HasUrgentWork() && Clock::now() < NextDue()) {
      const Clock::time_point due = NextDue();
      if (due == Clock::time_point::max()) {
        changed_.wait(lock);
      } else {
        changed_.wait_until(lock, due);
      }
    }
    if (!tasks_.empty()) {
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
    } else if (!observations_.empty() && Clock::now() >= flush_due_) {
      lock.unlock();
      WriteWaitingObservations().IgnoreError();  // noted; they are tried again
    } else if (!outcomes_.empty()) {
      std::list<WaitingOutcomes> group = TakeGroup();
      lock.unlock();
      CommitGroup(std::move(group));
    } else if (stopping_) {
      lock.unlock();
      WriteWaitingObservations().IgnoreError();  // noted; nobody is left to hear of it
      return;
    }
    if (!lock.owns_lock()) lock.lock();
  }
}

// Takes no memory.
std::list<ExperimentStore::WaitingOutcomes> ExperimentStore::TakeGroup() {
  std::list<WaitingOutcomes> group;
  while (!outcomes_.empty() && group.size() < static_cast<size_t>(options_.max_group)) {
    group.splice(group.end(), outcomes_, outcomes_.begin());
  }
  group_due_ = Clock::now();  // what is left has waited for this group already
  return group;
}

void ExperimentStore::CommitGroup(std::list<WaitingOutcomes> group) {
  std::vector<absl::StatusOr<int32_t>> results;
  const auto write = [&]() -> absl::Status {
    SWAA_ASSIGN_OR_RETURN(auto transaction, SqliteTransaction::Begin(
                                                database_.get(), SqliteTransaction::Kind::kWrite));
    SWAA_ASSIGN_OR_RETURN(OutcomeWriter writer, OutcomeWriter::Create(database_.get()));
    for (const WaitingOutcomes& waiting : group) {
      results.push_back(writer.Write(waiting.outcomes));
      const absl::Status& status = results.back().status();
      if (!status.ok() && !OutcomeWriter::IsRefusal(status)) return status;
    }
    return transaction->Commit();
  };
  const absl::Status status = CatchOutOfMemory(write);
  NoteWrite(status);
  auto result = results.begin();
  for (const WaitingOutcomes& waiting : group) {
    if (!status.ok()) {
      waiting.done(status);
      continue;
    }
    if (result->ok()) {
      const std::lock_guard lock(mutex_);
      stats_.recorded_outcomes += **result;
    }
    // Handed over whole: a status of which this thread kept a share would be freed by either.
    waiting.done(std::move(*result++));
  }
}

absl::Status ExperimentStore::WriteWaitingObservations() {
  Observations batch;
  {
    const std::lock_guard lock(mutex_);
    std::swap(batch, observations_);
    entries_in_write_ = NumEntries(batch);
    num_entries_ = 0;
  }
  if (batch.empty()) return absl::OkStatus();
  const auto write = [&]() -> absl::Status {
    SWAA_ASSIGN_OR_RETURN(auto transaction, SqliteTransaction::Begin(
                                                database_.get(), SqliteTransaction::Kind::kWrite));
    const int64_t now_ms = options_.now_ms ? options_.now_ms() : SystemMilliseconds();
    SWAA_RETURN_IF_ERROR(WriteObservations(batch, now_ms, database_.get()));
    return transaction->Commit();
  };
  const absl::Status status = CatchOutOfMemory(write);
  NoteWrite(status);
  const std::lock_guard lock(mutex_);
  entries_in_write_ = 0;
  if (status.ok()) return status;
  // Back to those that came meanwhile, to be tried again; Add sees to the bound.
  const int64_t count = NumObservations(batch);
  const int64_t dropped = batch.dropped;
  const auto give_back = [&] {
    Accumulate(observations_, &batch);
    return absl::OkStatus();
  };
  if (CatchOutOfMemory(give_back).ok()) {
    observations_ = std::move(batch);
  } else {
    observations_.dropped += count + dropped;
    stats_.dropped_observations += count;
  }
  num_entries_ = NumEntries(observations_);
  flush_due_ = Clock::now() + options_.flush_interval;
  return status;
}

void ExperimentStore::NoteWrite(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  stats_.last_write = status;
  if (!status.ok()) ++stats_.failed_writes;
}

}  // namespace swaa::server
