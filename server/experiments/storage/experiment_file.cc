// The file of a server's experiments: its schema, and who may open it.

#include "server/experiments/storage/experiment_file.h"

#include <array>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <limits.h>
#include <random>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <sys/vfs.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace swaa::server {
namespace {

// Changes with every change of the tables.
constexpr int kSchemaVersion = 2;
// What marks the file as one of ours in SQLite's header: "SWAA".
constexpr int kApplicationId = 0x53574141;

// Sums, sketches and pairs are kept by the UTC day on which they were added: of an arm that another
// replica stopped, whole days before the stop can be told from those after it.
constexpr char kSchema[] = R"sql(
CREATE TABLE meta(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE revision(revision INTEGER PRIMARY KEY, experiment TEXT NOT NULL, config TEXT NOT NULL,
  started_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL, srm_min_log_p REAL NOT NULL);
CREATE TABLE stop(revision INTEGER NOT NULL, arm INTEGER NOT NULL, at_ms INTEGER NOT NULL,
  reason TEXT NOT NULL, PRIMARY KEY(revision, arm)) WITHOUT ROWID;
CREATE TABLE unit(revision INTEGER NOT NULL, unit_key INTEGER NOT NULL, arm INTEGER NOT NULL,
  first_ms INTEGER NOT NULL, trigger_ms INTEGER NOT NULL, arms_seen INTEGER NOT NULL,
  PRIMARY KEY(revision, unit_key)) WITHOUT ROWID;
CREATE TABLE sums(revision INTEGER NOT NULL, arm INTEGER NOT NULL, metric TEXT NOT NULL,
  triggered INTEGER NOT NULL, class INTEGER NOT NULL, grp INTEGER NOT NULL, age INTEGER NOT NULL,
  day INTEGER NOT NULL, n INTEGER NOT NULL, s REAL NOT NULL,
  PRIMARY KEY(revision, arm, metric, triggered, class, grp, age, day)) WITHOUT ROWID;
CREATE TABLE sketch(revision INTEGER NOT NULL, arm INTEGER NOT NULL, metric TEXT NOT NULL,
  class INTEGER NOT NULL, grp64 INTEGER NOT NULL, bin INTEGER NOT NULL, day INTEGER NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY(revision, arm, metric, class, grp64, bin, day)) WITHOUT ROWID;
CREATE TABLE outcome(request_id TEXT NOT NULL, metric TEXT NOT NULL, value REAL NOT NULL,
  revision INTEGER NOT NULL, arm INTEGER NOT NULL, grp INTEGER NOT NULL,
  unit_key INTEGER NOT NULL, end_ms INTEGER NOT NULL, triggered INTEGER NOT NULL,
  class INTEGER NOT NULL, age INTEGER NOT NULL, at_ms INTEGER NOT NULL,
  PRIMARY KEY(request_id, metric)) WITHOUT ROWID;
CREATE INDEX outcome_revision ON outcome(revision);
CREATE TABLE pair(revision INTEGER NOT NULL, metric TEXT NOT NULL, pair INTEGER NOT NULL,
  arm INTEGER NOT NULL, day INTEGER NOT NULL, n INTEGER NOT NULL, s REAL NOT NULL,
  PRIMARY KEY(revision, metric, pair, arm, day)) WITHOUT ROWID;
)sql";

// Magic numbers of statfs, as Linux's linux/magic.h and the file systems' own sources have them.
struct RefusedFileSystem {
  uint32_t magic;
  const char* name;
};
constexpr auto kRefusedFileSystems = std::to_array<RefusedFileSystem>({
    {0x00006969, "NFS"},
    {0x0000517B, "SMB"},
    {0xFE534D42, "SMB"},
    {0xFF534D42, "CIFS"},
    {0x5346414F, "AFS"},
    {0x6B414653, "AFS"},
    {0x73757245, "Coda"},
    {0x0000564C, "NCP"},
    {0x01021997, "9P"},
    {0x00C36400, "Ceph"},
    {0x0BD00BD0, "Lustre"},
    {0x47504653, "GPFS"},
    {0x01161970, "GFS2"},
    {0x7461636F, "OCFS2"},
    {0x65735546, "FUSE, a file system in user space"},
});

// Named after the host, which a StatefulSet names after the replica; two files made on one host are
// two instances.
std::string NewInstanceId() {
  std::array<char, HOST_NAME_MAX + 1> host = {};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  std::random_device random;
  return absl::StrCat(host[0] == '\0' ? "host" : host.data(), "-",
                      absl::Hex(random(), absl::kZeroPad8));
}

absl::StatusOr<ExperimentFileIdentity> ReadIdentity(SqliteDatabase* database) {
  SWAA_ASSIGN_OR_RETURN(const std::string application, database->Value("PRAGMA application_id"));
  if (application != absl::StrCat(kApplicationId)) {
    return absl::FailedPreconditionError(
        absl::StrCat(database->path(), ": a database, but none of experiments; name another file"));
  }
  SWAA_ASSIGN_OR_RETURN(const std::string schema,
                        database->Value("SELECT v FROM meta WHERE k = 'schema'"));
  if (schema != absl::StrCat(kSchemaVersion)) {
    return absl::FailedPreconditionError(absl::StrCat(
        database->path(), ": schema ", schema, " of experiments, this program knows schema ",
        kSchemaVersion, "; use the version of swaa that wrote it, or name another file"));
  }
  ExperimentFileIdentity identity;
  SWAA_ASSIGN_OR_RETURN(identity.instance_id,
                        database->Value("SELECT v FROM meta WHERE k = 'instance_id'"));
  SWAA_ASSIGN_OR_RETURN(identity.key_fingerprint,
                        database->Value("SELECT v FROM meta WHERE k = 'key_fingerprint'"));
  return identity;
}

// Makes what was renamed in the path's folder survive a power loss.
absl::Status SyncFolder(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  const int fd = open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = fd >= 0 && fsync(fd) == 0;
  if (fd >= 0) close(fd);
  return synced ? absl::OkStatus()
                : absl::UnavailableError(absl::StrCat(path, ": its folder cannot be synced"));
}

}  // namespace

absl::Status CheckFileSystem(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  struct statfs facts;
  if (statfs(folder.empty() ? "." : folder.c_str(), &facts) != 0) {
    return absl::NotFoundError(absl::StrCat(path, ": no folder ", folder.string(), "; make it"));
  }
  return CheckFileSystemKind(path, static_cast<uint32_t>(facts.f_type));
}

absl::Status CheckFileSystemKind(const std::string& path, uint32_t magic) {
  for (const RefusedFileSystem& refused : kRefusedFileSystems) {
    if (magic != refused.magic) continue;
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": lies on ", refused.name,
                     ", and SQLite's write-ahead log needs a file system of one host alone; use a "
                     "block volume (ReadWriteOnce, as of a StatefulSet), one file a replica"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ExperimentFileIdentity> PrepareExperimentFile(const std::string& key_fingerprint,
                                                             SqliteDatabase* database) {
  SWAA_ASSIGN_OR_RETURN(const std::string tables,
                        database->Value("SELECT count(*) FROM sqlite_schema"));
  if (tables == "0") {
    SWAA_ASSIGN_OR_RETURN(auto transaction,
                          SqliteTransaction::Begin(database, SqliteTransaction::Kind::kWrite));
    SWAA_RETURN_IF_ERROR(
        database->Execute(absl::StrCat("PRAGMA application_id = ", kApplicationId)));
    SWAA_RETURN_IF_ERROR(database->Execute(kSchema));
    SWAA_ASSIGN_OR_RETURN(SqliteStatement insert,
                          database->Prepare("INSERT INTO meta VALUES(?1, ?2)"));
    SWAA_RETURN_IF_ERROR(insert.Run(std::string_view("schema"), kSchemaVersion));
    SWAA_RETURN_IF_ERROR(
        insert.Run(std::string_view("instance_id"), std::string_view(NewInstanceId())));
    SWAA_RETURN_IF_ERROR(
        insert.Run(std::string_view("key_fingerprint"), std::string_view(key_fingerprint)));
    SWAA_RETURN_IF_ERROR(insert.Run(std::string_view("dropped"), int64_t{0}));
    SWAA_RETURN_IF_ERROR(transaction->Commit());
  }
  SWAA_ASSIGN_OR_RETURN(ExperimentFileIdentity identity, ReadIdentity(database));
  if (identity.key_fingerprint != key_fingerprint) {
    return absl::FailedPreconditionError(absl::StrCat(
        database->path(), ": its units were hidden with key ", identity.key_fingerprint,
        ", not with ", key_fingerprint,
        ", so none would be known again; use the key file of before, or name another file"));
  }
  return identity;
}

absl::StatusOr<OpenedExperimentFile> OpenExperimentFile(const std::string& path,
                                                        const std::string& vfs) {
  OpenedExperimentFile file;
  SWAA_ASSIGN_OR_RETURN(file.database,
                        SqliteDatabase::Open(path, SqliteDatabase::Mode::kReadOnly, vfs));
  absl::StatusOr<ExperimentFileIdentity> identity = ReadIdentity(file.database.get());
  const bool refused =
      absl::IsNotFound(identity.status()) || absl::IsPermissionDenied(identity.status());
  if (refused) {
    // A reader of a write-ahead log writes beside it; in a folder where it may not, a file without
    // such a log can still be read, as nobody else writes there either.
    const std::string log = path + "-wal";
    std::error_code error;
    if (std::filesystem::exists(log, error) || error) {
      return absl::PermissionDeniedError(absl::StrCat(
          path, ": a part of it is in ", log,
          ", and a reader of that writes in its folder; let it, or copy both files elsewhere"));
    }
    SWAA_ASSIGN_OR_RETURN(file.database,
                          SqliteDatabase::Open(path, SqliteDatabase::Mode::kImmutable, vfs));
    identity = ReadIdentity(file.database.get());
  }
  if (!identity.ok()) return identity.status();
  file.identity = *std::move(identity);
  return file;
}

absl::Status ExportExperiments(SqliteDatabase* database, const std::string& path) {
  const std::string partial = path + ".part";
  std::remove(partial.c_str());
  {
    SWAA_ASSIGN_OR_RETURN(const auto copy,
                          SqliteDatabase::Open(partial, SqliteDatabase::Mode::kCreate));
    SWAA_RETURN_IF_ERROR(database->CopyTo(copy.get()));
    // The copy of a write-ahead log's database is one too, and would need a second file.
    SWAA_ASSIGN_OR_RETURN(const std::string mode, copy->Value("PRAGMA journal_mode = DELETE"));
    if (mode != "delete") {
      return absl::InternalError(absl::StrCat(partial, ": journal mode stays ", mode));
    }
  }
  if (std::rename(partial.c_str(), path.c_str()) != 0) {
    return absl::PermissionDeniedError(absl::StrCat(
        path, ": cannot be written: ", std::error_code(errno, std::generic_category()).message()));
  }
  return SyncFolder(path);
}

}  // namespace swaa::server
