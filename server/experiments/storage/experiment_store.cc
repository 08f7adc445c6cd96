// What experiments saw, kept durably while requests run.

#include "server/experiments/storage/experiment_store.h"

#include <algorithm>
#include <cmath>
#include <latch>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/experiments/storage/accumulate.h"
#include "server/experiments/storage/out_of_memory.h"

namespace swaa::server {
namespace {

absl::Status SetPragma(SqliteDatabase* database, const std::string& pragma,
                       const std::string& value, const std::string& expected) {
  SWAA_ASSIGN_OR_RETURN(const std::string set,
                        database->Value(absl::StrCat("PRAGMA ", pragma, " = ", value)));
  if (set == expected) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(database->path(), ": SQLite sets ", pragma,
                                                    " to '", set, "', not to ", expected,
                                                    "; use a file system of this host alone"));
}

// Takes sums that are not finite out and counts them as dropped.
Observations WithoutNonFinite(const Observations& observations) {
  Observations finite = observations;
  const auto drop = [&finite](const auto& entry) {
    if (std::isfinite(entry.second.sum)) return false;
    finite.dropped += entry.second.count;
    return true;
  };
  std::erase_if(finite.sums, drop);
  std::erase_if(finite.pairs, drop);
  return finite;
}

bool AllFinite(const Observations& observations) {
  const auto finite = [](const auto& entry) { return std::isfinite(entry.second.sum); };
  return std::all_of(observations.sums.begin(), observations.sums.end(), finite) &&
         std::all_of(observations.pairs.begin(), observations.pairs.end(), finite);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExperimentStore>> ExperimentStore::Open(const Options& options) {
  FileLock lock;
  if (!options.path.empty()) {
    SWAA_RETURN_IF_ERROR(CheckFileSystem(options.path));
    SWAA_ASSIGN_OR_RETURN(lock, FileLock::Take(options.path));
  }
  SWAA_ASSIGN_OR_RETURN(
      auto database,
      SqliteDatabase::Open(options.path, SqliteDatabase::Mode::kCreate, options.vfs));
  SWAA_RETURN_IF_ERROR(
      database->Execute(absl::StrCat("PRAGMA synchronous = ", options.synchronous)));
  SWAA_ASSIGN_OR_RETURN(const ExperimentFileIdentity identity,
                        PrepareExperimentFile(options.key_fingerprint, database.get()));
  SWAA_RETURN_IF_ERROR(
      SetPragma(database.get(), "journal_mode", "WAL", options.path.empty() ? "memory" : "wal"));
  SWAA_ASSIGN_OR_RETURN(const std::string dropped,
                        database->Value("SELECT v FROM meta WHERE k = 'dropped'"));
  int64_t dropped_observations = 0;
  if (!absl::SimpleAtoi(dropped, &dropped_observations)) {
    return absl::DataLossError(absl::StrCat(
        options.path, ": the file is damaged: it does not know ",
        "how many observations it lost; restore it from a copy, ", "or begin with a new one"));
  }
  return std::unique_ptr<ExperimentStore>(new ExperimentStore(
      options, std::move(lock), std::move(database), identity, dropped_observations));
}

ExperimentStore::ExperimentStore(const Options& options, FileLock lock,
                                 std::unique_ptr<SqliteDatabase> database,
                                 ExperimentFileIdentity identity, int64_t dropped)
    : options_(options),
      lock_(std::move(lock)),
      database_(std::move(database)),
      identity_(std::move(identity)) {
  stats_.dropped_observations = dropped;
  writer_ = std::thread([this] { Write(); });
}

ExperimentStore::~ExperimentStore() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  writer_.join();
}

void ExperimentStore::RecordOutcomes(RequestOutcomes outcomes, OutcomeCallback done) {
  {
    const std::lock_guard lock(mutex_);
    if (outcomes_.size() < options_.max_waiting_outcomes) {
      if (outcomes_.empty()) group_due_ = Clock::now() + options_.group_delay;
      outcomes_.push_back({std::move(outcomes), std::move(done)});
      // The writer sleeps until the group is due once it knows of one.
      if (outcomes_.size() == 1 || outcomes_.size() >= static_cast<size_t>(options_.max_group)) {
        changed_.notify_all();
      }
      return;
    }
  }
  done(absl::ResourceExhaustedError(
      absl::StrCat("outcomes of ", options_.max_waiting_outcomes,
                   " requests wait to be written, the most that may; try again later")));
}

void ExperimentStore::Add(const Observations& observations) {
  if (observations.empty()) return;
  if (!AllFinite(observations)) return Add(WithoutNonFinite(observations));
  const std::lock_guard lock(mutex_);
  const bool was_empty = observations_.empty();
  const size_t entries = NumEntries(observations);
  // An upper bound so far: entries that were there already count again.
  if (num_entries_ + entries + entries_in_write_ > options_.max_waiting_entries) {
    num_entries_ = NumEntries(observations_);
  }
  if (num_entries_ + entries + entries_in_write_ > options_.max_waiting_entries) {
    const int64_t dropped = NumObservations(observations) + observations.dropped;
    observations_.dropped += dropped;
    stats_.dropped_observations += dropped;
  } else {
    Accumulate(observations, &observations_);
    num_entries_ += entries;
    stats_.dropped_observations += observations.dropped;
  }
  if (was_empty) {
    flush_due_ = Clock::now() + options_.flush_interval;
    changed_.notify_all();
  }
}

absl::Status ExperimentStore::RunOnWriter(const std::function<absl::Status()>& work) {
  SWAA_CHECK(std::this_thread::get_id() != writer_.get_id()) << "the writer would wait for itself";
  absl::Status result;
  std::latch done(1);
  {
    const std::lock_guard lock(mutex_);
    SWAA_CHECK(!stopping_) << "a store is used while it goes away";
    tasks_.push_back([&] {
      result = CatchOutOfMemory(work);
      done.count_down();
    });
  }
  changed_.notify_all();
  done.wait();
  return result;
}

template <typename... Values>
absl::Status ExperimentStore::RunStatement(int* changes, const char* sql, const Values&... values) {
  return RunOnWriter([&]() -> absl::Status {
    const auto write = [&]() -> absl::Status {
      SWAA_ASSIGN_OR_RETURN(SqliteStatement statement, database_->Prepare(sql));
      SWAA_RETURN_IF_ERROR(statement.Run(values...));
      if (changes != nullptr) *changes = database_->changes();
      return absl::OkStatus();
    };
    const absl::Status status = write();
    NoteWrite(status);
    return status;
  });
}

template <typename... Values>
absl::Status ExperimentStore::UpdateRevision(uint64_t revision, const char* sql,
                                             const Values&... values) {
  int changes = 0;
  SWAA_RETURN_IF_ERROR(RunStatement(&changes, sql, revision, values...));
  if (changes > 0) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("revision ", absl::Hex(revision, absl::kZeroPad16),
                                          " is not recorded; record it first"));
}

absl::Status ExperimentStore::RecordRevision(uint64_t revision, const RevisionRecord& record) {
  return RunStatement(
      nullptr,
      "INSERT INTO revision VALUES(?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET "
      "config = excluded.config, started_ms = min(started_ms, excluded.started_ms), "
      "ended_ms = excluded.ended_ms, "
      "srm_min_log_p = min(srm_min_log_p, excluded.srm_min_log_p)",
      revision, std::string_view(record.experiment_id), std::string_view(record.config_json),
      record.started_ms, record.ended_ms, record.min_log_sample_ratio_p);
}

absl::Status ExperimentStore::RecordRevisionEnd(uint64_t revision, int64_t ended_ms) {
  return UpdateRevision(revision, "UPDATE revision SET ended_ms = ?2 WHERE revision = ?1",
                        ended_ms);
}

absl::Status ExperimentStore::RecordStop(const StopKey& key, const StopRecord& record) {
  return RunStatement(nullptr, "INSERT INTO stop VALUES(?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                      key.revision, key.arm, record.at_ms, std::string_view(record.reason));
}

absl::Status ExperimentStore::RemoveStops(uint64_t revision) {
  return RunStatement(nullptr, "DELETE FROM stop WHERE revision = ?1", revision);
}

absl::Status ExperimentStore::RecordSampleRatio(uint64_t revision, double log_p) {
  return UpdateRevision(
      revision, "UPDATE revision SET srm_min_log_p = min(srm_min_log_p, ?2) WHERE revision = ?1",
      log_p);
}

absl::Status ExperimentStore::Read(const std::function<absl::Status(SqliteDatabase*)>& work) {
  const auto read = [&work](SqliteDatabase* database) -> absl::Status {
    SWAA_ASSIGN_OR_RETURN(const auto transaction,
                          SqliteTransaction::Begin(database, SqliteTransaction::Kind::kRead));
    return work(database);
  };
  if (options_.path.empty()) return RunOnWriter([&] { return read(database_.get()); });
  SWAA_ASSIGN_OR_RETURN(
      const auto database,
      SqliteDatabase::Open(options_.path, SqliteDatabase::Mode::kReadOnly, options_.vfs));
  return CatchOutOfMemory([&] { return read(database.get()); });
}

absl::StatusOr<ExperimentData> ExperimentStore::Snapshot(std::optional<uint64_t> revision) {
  const absl::Status flushed = Flush();
  ExperimentData data;
  SWAA_RETURN_IF_ERROR(Read([&](SqliteDatabase* database) -> absl::Status {
    SWAA_ASSIGN_OR_RETURN(data, ReadExperimentData(revision, {}, database));
    return absl::OkStatus();
  }));
  data.instance_ids = {identity_.instance_id};
  if (!flushed.ok()) {
    data.warnings.push_back(absl::StrCat(
        "the newest observations are missing, as they cannot be written: ", flushed.message()));
  }
  const std::lock_guard lock(mutex_);
  data.observations.dropped = stats_.dropped_observations;
  return data;
}

absl::StatusOr<ExperimentData> ExperimentStore::Heads() {
  ExperimentData data;
  SWAA_RETURN_IF_ERROR(Read([&](SqliteDatabase* database) {
    return ReadRevisionsAndStops(std::nullopt, database, &data);
  }));
  return data;
}

absl::Status ExperimentStore::Export(const std::string& path) {
  if (const absl::Status flushed = Flush(); !flushed.ok()) return flushed;
  return Read([&](SqliteDatabase* database) { return ExportExperiments(database, path); });
}

absl::Status ExperimentStore::Flush() {
  return RunOnWriter([this] { return WriteWaitingObservations(); });
}

ExperimentStore::Stats ExperimentStore::stats() const {
  const std::lock_guard lock(mutex_);
  Stats stats = stats_;
  stats.waiting_outcomes = static_cast<int64_t>(outcomes_.size());
  return stats;
}

}  // namespace swaa::server
