// What experiments saw, kept durably while requests run.

#ifndef SWAA_SERVER_EXPERIMENTS_STORAGE_EXPERIMENT_STORE_H_
#define SWAA_SERVER_EXPERIMENTS_STORAGE_EXPERIMENT_STORE_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/experiments/experiment_data.h"
#include "server/experiments/storage/experiment_file.h"
#include "server/experiments/storage/file_lock.h"
#include "server/experiments/storage/outcome_writer.h"
#include "server/experiments/storage/sqlite_database.h"

namespace swaa::server {

// One SQLite file (write-ahead log, synchronous FULL), or a database in memory, and the thread that
// alone writes to it. Outcomes, stops, revisions and the least p of the sample ratio are on the
// disk when they are acknowledged: neither a kill nor a power loss takes them back. Observations
// are written within a second or so, and generation never waits for them.
//
// SQLite's locks stay shared (locking_mode NORMAL) rather than EXCLUSIVE, which would allow network
// file systems but shut out readers: reports and exports read while the writer writes. That no
// second server writes to the file is seen to by a lock on PATH.lock.
//
// Thread-safe. Its errors are SqliteDatabase's.
class ExperimentStore {
 public:
  struct Options {
    std::string path;             // empty: in memory, gone with the object
    std::string key_fingerprint;  // of the key that unit keys are made with
    // Outcomes that are committed together: as many as this, or what came within the delay.
    int max_group = 64;
    std::chrono::milliseconds group_delay{5};
    // How long observations may wait.
    std::chrono::milliseconds flush_interval{500};
    // Bounds of what waits in memory: requests with outcomes, and entries of observations (about
    // 150 bytes each).
    size_t max_waiting_outcomes = 16384;
    size_t max_waiting_entries = size_t{1} << 19;
    // SQLite's PRAGMA synchronous. Anything less than FULL lets a power loss take back what was
    // acknowledged; it is here so that a test can show that it sees this.
    std::string synchronous = "FULL";
    std::string vfs;  // SQLite's file layer; empty: the system's
    // Unix milliseconds; absent: the system's clock.
    std::function<int64_t()> now_ms;
  };

  struct Stats {
    int64_t dropped_observations = 0;  // since the file was made
    int64_t recorded_outcomes = 0;     // since the start
    int64_t waiting_outcomes = 0;
    int64_t failed_writes = 0;  // since the start
    absl::Status last_write;    // of the last time that something was written
  };

  // How many outcomes are new, once all of the request are on the disk. It holds the writer up, and
  // must not wait for it: of the calls below it may make RecordOutcomes, Add and stats. It throws
  // nothing.
  using OutcomeCallback = std::function<void(absl::StatusOr<int32_t>)>;

  // Opens the file or makes it. Besides SqliteDatabase's errors FAILED_PRECONDITION, with words,
  // for a network file system, another schema, another key, or a file that another server holds.
  static absl::StatusOr<std::unique_ptr<ExperimentStore>> Open(const Options& options);
  // Writes what waits, then joins and closes.
  ~ExperimentStore();
  ExperimentStore(const ExperimentStore&) = delete;
  ExperimentStore& operator=(const ExperimentStore&) = delete;

  const std::string& instance_id() const { return identity_.instance_id; }

  // Records all outcomes of a request, or none. `done` is called once: on the writer's thread, or
  // here with RESOURCE_EXHAUSTED where too many wait; not where this throws bad_alloc. Never
  // blocks.
  //  * one that was there already, equal, changes nothing and counts as not new;
  //  * another value for a recorded one: ALREADY_EXISTS names both;
  //  * a value that is not finite, one metric twice: INVALID_ARGUMENT.
  void RecordOutcomes(RequestOutcomes outcomes, OutcomeCallback done);

  // Takes observations over, to be written soon. They are dropped and counted where a sum is not
  // finite, or where too many wait because the disk takes none. Never blocks on the disk.
  void Add(const Observations& observations);

  // Durable when they return OK; they wait for the disk.
  // A revision that is there already stays as old as it is, has its configuration replaced and is
  // in force again.
  absl::Status RecordRevision(uint64_t revision, const RevisionRecord& record);
  // NOT_FOUND for a revision that is not recorded.
  absl::Status RecordRevisionEnd(uint64_t revision, int64_t ended_ms);
  // The first stop of an arm stays, as its report is frozen there.
  absl::Status RecordStop(const StopKey& key, const StopRecord& record);
  // Takes a revision's stops back, as an operator starts it again.
  absl::Status RemoveStops(uint64_t revision);
  // Keeps the least. NOT_FOUND for a revision that is not recorded.
  absl::Status RecordSampleRatio(uint64_t revision, double log_p);

  // All that is kept, or one revision's, as it is at one moment: what was added before the call is
  // in it, unless the disk takes none, which its warnings say. The writer goes on meanwhile (in
  // memory it waits). Takes time and memory by the number of units and outcomes.
  absl::StatusOr<ExperimentData> Snapshot(std::optional<uint64_t> revision = std::nullopt);

  // The revisions and stops alone, of all revisions.
  absl::StatusOr<ExperimentData> Heads();

  // Writes a copy to a file of its own, as ExportExperiments says, while the store goes on.
  absl::Status Export(const std::string& path);

  // Waits until what was added before is written; says how that went.
  absl::Status Flush();

  Stats stats() const;

 private:
  struct WaitingOutcomes {
    RequestOutcomes outcomes;
    OutcomeCallback done;
  };
  using Clock = std::chrono::steady_clock;

  ExperimentStore(const Options& options, FileLock lock, std::unique_ptr<SqliteDatabase> database,
                  ExperimentFileIdentity identity, int64_t dropped);

  // The writer's thread.
  void Write();
  bool HasUrgentWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // When the next work is due that is not urgent.
  Clock::time_point NextDue() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::list<WaitingOutcomes> TakeGroup() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CommitGroup(std::list<WaitingOutcomes> group);
  absl::Status WriteWaitingObservations();
  void NoteWrite(const absl::Status& status);

  // Runs it on the writer's thread, before outcomes that wait, and returns what it returns.
  absl::Status RunOnWriter(const std::function<absl::Status()>& work);
  // Runs one statement in a transaction of its own on the writer's thread. `changes`, which may be
  // null: how many rows it changed.
  template <typename... Values>
  absl::Status RunStatement(int* changes, const char* sql, const Values&... values);
  // The same for a statement whose ?1 is a revision, which must be there.
  template <typename... Values>
  absl::Status UpdateRevision(uint64_t revision, const char* sql, const Values&... values);
  // Runs it with a connection that sees one moment: another one, or in memory the writer's.
  absl::Status Read(const std::function<absl::Status(SqliteDatabase*)>& work);

  const Options options_;
  const FileLock lock_;
  const std::unique_ptr<SqliteDatabase> database_;  // the writer's
  const ExperimentFileIdentity identity_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  std::list<WaitingOutcomes> outcomes_ ABSL_GUARDED_BY(mutex_);
  Clock::time_point group_due_ ABSL_GUARDED_BY(mutex_);
  Observations observations_ ABSL_GUARDED_BY(mutex_);
  size_t num_entries_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t entries_in_write_ ABSL_GUARDED_BY(mutex_) = 0;  // they come back if they cannot be written
  Clock::time_point flush_due_ ABSL_GUARDED_BY(mutex_);
  Stats stats_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread writer_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STORAGE_EXPERIMENT_STORE_H_
