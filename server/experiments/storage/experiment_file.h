// The file that a server's experiments are kept in: its schema, who may open it, and its rows.

#ifndef SWAA_SERVER_EXPERIMENTS_STORAGE_EXPERIMENT_FILE_H_
#define SWAA_SERVER_EXPERIMENTS_STORAGE_EXPERIMENT_FILE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/experiments/experiment_data.h"
#include "server/experiments/storage/sqlite_database.h"

namespace swaa::server {

// Whose file it is.
struct ExperimentFileIdentity {
  std::string instance_id;      // of the replica that made it
  std::string key_fingerprint;  // of the key that its unit keys were made with
};

// FAILED_PRECONDITION unless the path's folder lies on a file system of this host alone: SQLite's
// write-ahead log needs all who use it on one host, and network file systems lose locks and
// synchronisation. File systems in user space are refused too: what they keep nobody can tell.
absl::Status CheckFileSystem(const std::string& path);
// The same for a file system of this magic number, as statfs tells it.
absl::Status CheckFileSystemKind(const std::string& path, uint32_t magic);

// Makes the tables where there are none yet; the file belongs to a new instance then.
// FAILED_PRECONDITION, with a way out, for a database that is not of experiments, that is of
// another schema, or whose unit keys were made with another key.
absl::StatusOr<ExperimentFileIdentity> PrepareExperimentFile(const std::string& key_fingerprint,
                                                             SqliteDatabase* database);

// Opens a file that a server made, in use or not, to read it. FAILED_PRECONDITION as above.
struct OpenedExperimentFile {
  std::unique_ptr<SqliteDatabase> database;
  ExperimentFileIdentity identity;
};
absl::StatusOr<OpenedExperimentFile> OpenExperimentFile(const std::string& path,
                                                        const std::string& vfs = "");

// Writes a copy of the database to `path`: one whole file that needs no other beside it. Another
// file there is replaced, once the copy is on the disk.
absl::Status ExportExperiments(SqliteDatabase* database, const std::string& path);

// Adds observations to the tables, sums under the UTC day of `now_ms`. Within a transaction.
absl::Status WriteObservations(const Observations& observations, int64_t now_ms,
                               SqliteDatabase* database);

// Up to which moment an arm's data count, or with kAllArms a revision's; what is not there counts
// to its end.
using ArmCuts = std::map<StopKey, int64_t>;  // Unix milliseconds

// Reads all, or one revision's; of arms that are cut, the days that ended before the cut and the
// units and outcomes before it. instance_ids and warnings stay empty. Within a transaction.
absl::StatusOr<ExperimentData> ReadExperimentData(std::optional<uint64_t> revision,
                                                  const ArmCuts& cuts, SqliteDatabase* database);

// Reads revisions and stops alone.
absl::Status ReadRevisionsAndStops(std::optional<uint64_t> revision, SqliteDatabase* database,
                                   ExperimentData* data);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STORAGE_EXPERIMENT_FILE_H_
