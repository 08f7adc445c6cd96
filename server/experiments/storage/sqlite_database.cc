// SQLite as RAII and absl::Status.

#include "server/experiments/storage/sqlite_database.h"

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace swaa::server {
namespace {

constexpr int kBusyMilliseconds = 5000;

absl::StatusCode CodeOf(sqlite3* connection, int result) {
  const int system_error = connection == nullptr ? 0 : sqlite3_system_errno(connection);
  switch (result & 0xff) {
    case SQLITE_FULL:
    case SQLITE_NOMEM:
    case SQLITE_TOOBIG:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::StatusCode::kDataLoss;
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
      return absl::StatusCode::kPermissionDenied;
    case SQLITE_CANTOPEN:
      return system_error == EACCES || system_error == EROFS ? absl::StatusCode::kPermissionDenied
                                                             : absl::StatusCode::kNotFound;
    case SQLITE_IOERR:
      // SQLite itself knows a full disk only by ENOSPC.
      if (system_error == EDQUOT || system_error == ENOSPC) {
        return absl::StatusCode::kResourceExhausted;
      }
      return absl::StatusCode::kUnavailable;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInternal;
  }
}

std::string WayOut(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kResourceExhausted:
      return "; free space on its volume";
    case absl::StatusCode::kDataLoss:
      return "; restore it from an export, or move it away to begin a new one (`sqlite3 FILE "
             ".recover` saves what is readable)";
    case absl::StatusCode::kPermissionDenied:
      return "; let the server's user read and write it and its folder";
    default:
      return "";
  }
}

// A path may hold what means something in a URI, or begin like one.
std::string FileUri(const std::string& path) {
  const bool absolute = path[0] == '/';
  return absl::StrCat("file:", absolute ? "" : "./",
                      absl::StrReplaceAll(path, {{"%", "%25"}, {"?", "%3f"}, {"#", "%23"}}));
}

absl::Status ErrorOf(const std::string& path, sqlite3* connection, int result) {
  const absl::StatusCode code = CodeOf(connection, result);
  const char* message = connection == nullptr ? sqlite3_errstr(result) : sqlite3_errmsg(connection);
  return absl::Status(code, absl::StrCat(path.empty() ? "database in memory" : path, ": ", message,
                                         " (SQLite result ", result, ")", WayOut(code)));
}

absl::Status ErrorOf(sqlite3_stmt* statement, int result) {
  sqlite3* const connection = sqlite3_db_handle(statement);
  const char* const path = sqlite3_db_filename(connection, "main");
  return ErrorOf(path == nullptr ? "" : path, connection, result);
}

}  // namespace

void SqliteStatement::BindOne(int index, int64_t value) {
  SWAA_CHECK_EQ(sqlite3_bind_int64(statement_.get(), index, value), SQLITE_OK);
}

void SqliteStatement::BindOne(int index, double value) {
  SWAA_CHECK_EQ(sqlite3_bind_double(statement_.get(), index, value), SQLITE_OK);
}

void SqliteStatement::BindOne(int index, std::string_view value) {
  SWAA_CHECK_EQ(sqlite3_bind_text64(statement_.get(), index, value.data(), value.size(),
                                    SQLITE_TRANSIENT, SQLITE_UTF8),
                SQLITE_OK);
}

absl::StatusOr<bool> SqliteStatement::Step() {
  const int result = sqlite3_step(statement_.get());
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) {
    sqlite3_reset(statement_.get());
    return false;
  }
  const absl::Status error = ErrorOf(statement_.get(), result);
  sqlite3_reset(statement_.get());
  return error;
}

absl::Status SqliteStatement::Finish() {
  for (;;) {
    SWAA_ASSIGN_OR_RETURN(const bool row, Step());
    if (!row) return absl::OkStatus();
  }
}

bool SqliteStatement::IsNull(int column) const {
  return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL;
}

int64_t SqliteStatement::Int(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

double SqliteStatement::Real(int column) const {
  return sqlite3_column_double(statement_.get(), column);
}

std::string SqliteStatement::Text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_.get(), column));
  return text == nullptr ? "" : std::string(text, sqlite3_column_bytes(statement_.get(), column));
}

absl::StatusOr<std::unique_ptr<SqliteDatabase>> SqliteDatabase::Open(const std::string& path,
                                                                     Mode mode,
                                                                     const std::string& vfs) {
  int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE | SQLITE_OPEN_URI;
  const bool read_only = mode == Mode::kReadOnly || mode == Mode::kImmutable;
  flags |= read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
  if (mode == Mode::kCreate || path.empty()) flags |= SQLITE_OPEN_CREATE;
  const std::string uri =
      path.empty() ? ":memory:"
                   : absl::StrCat(FileUri(path), mode == Mode::kImmutable ? "?immutable=1" : "");
  sqlite3* connection = nullptr;
  const int result =
      sqlite3_open_v2(uri.c_str(), &connection, flags, vfs.empty() ? nullptr : vfs.c_str());
  // Even a failed one is a connection, with its reason.
  std::unique_ptr<SqliteDatabase> database(new SqliteDatabase(path, connection));
  if (result != SQLITE_OK) return ErrorOf(path, connection, result);
  sqlite3_busy_timeout(connection, kBusyMilliseconds);
  return database;
}

absl::Status SqliteDatabase::Execute(const std::string& sql) {
  const int result = sqlite3_exec(connection_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  return result == SQLITE_OK ? absl::OkStatus() : ErrorOf(path_, connection_.get(), result);
}

absl::StatusOr<SqliteStatement> SqliteDatabase::Prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int result = sqlite3_prepare_v2(connection_.get(), sql.data(), static_cast<int>(sql.size()),
                                        &statement, nullptr);
  if (result != SQLITE_OK) return ErrorOf(path_, connection_.get(), result);
  return SqliteStatement(statement);
}

absl::StatusOr<std::string> SqliteDatabase::Value(std::string_view sql) {
  SWAA_ASSIGN_OR_RETURN(SqliteStatement statement, Prepare(sql));
  SWAA_ASSIGN_OR_RETURN(const bool row, statement.Step());
  return row ? statement.Text(0) : "";
}

absl::Status SqliteDatabase::CopyTo(SqliteDatabase* destination) {
  sqlite3* const to = destination->connection_.get();
  sqlite3_backup* const backup = sqlite3_backup_init(to, "main", connection_.get(), "main");
  if (backup == nullptr) return ErrorOf(destination->path_, to, sqlite3_errcode(to));
  const int step = sqlite3_backup_step(backup, -1);
  const int finish = sqlite3_backup_finish(backup);
  if (step == SQLITE_DONE && finish == SQLITE_OK) return absl::OkStatus();
  return ErrorOf(destination->path_, to, finish == SQLITE_OK ? step : finish);
}

absl::StatusOr<std::unique_ptr<SqliteTransaction>> SqliteTransaction::Begin(
    SqliteDatabase* database, Kind kind) {
  // First what takes memory: without it nobody would roll back.
  std::unique_ptr<SqliteTransaction> transaction(new SqliteTransaction(database));
  SWAA_RETURN_IF_ERROR(database->Execute(kind == Kind::kWrite ? "BEGIN IMMEDIATE" : "BEGIN"));
  return transaction;
}

SqliteTransaction::~SqliteTransaction() {
  // Some errors, a full disk among them, have rolled back already.
  sqlite3* const connection = database_->connection_.get();
  if (sqlite3_get_autocommit(connection) == 0) {
    sqlite3_exec(connection, "ROLLBACK", nullptr, nullptr, nullptr);
  }
}

absl::Status SqliteTransaction::Commit() { return database_->Execute("COMMIT"); }

}  // namespace swaa::server
