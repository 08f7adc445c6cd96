// SQLite as RAII and absl::Status: a connection, prepared statements, transactions.

#ifndef SWAA_SERVER_EXPERIMENTS_STORAGE_SQLITE_DATABASE_H_
#define SWAA_SERVER_EXPERIMENTS_STORAGE_SQLITE_DATABASE_H_

#include <cstdint>
#include <memory>
#include <sqlite3.h>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace swaa::server {

// A prepared statement. It must not outlive its database; its thread is the database's.
class SqliteStatement {
 public:
  // Binds the values to ?1, ?2 and so on, then runs the statement to its end, whatever rows it has.
  // It may be run again.
  template <typename... Values>
  absl::Status Run(const Values&... values) {
    Bind(values...);
    return Finish();
  }

  // Binds the values and begins anew: Step has the rows.
  template <typename... Values>
  void Bind(const Values&... values) {
    sqlite3_reset(statement_.get());
    int index = 0;
    (BindOne(++index, values), ...);
  }
  // Whether there is another row.
  absl::StatusOr<bool> Step();

  // The row's columns, from 0.
  bool IsNull(int column) const;
  int64_t Int(int column) const;
  // What BindOne stored of a uint64_t.
  uint64_t Unsigned(int column) const { return static_cast<uint64_t>(Int(column)); }
  double Real(int column) const;
  std::string Text(int column) const;

 private:
  friend class SqliteDatabase;
  struct Finalizer {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  explicit SqliteStatement(sqlite3_stmt* statement) : statement_(statement) {}

  void BindOne(int index, int32_t value) { BindOne(index, int64_t{value}); }
  void BindOne(int index, bool value) { BindOne(index, int64_t{value}); }
  void BindOne(int index, uint64_t value) { BindOne(index, static_cast<int64_t>(value)); }
  void BindOne(int index, int64_t value);
  void BindOne(int index, double value);
  void BindOne(int index, std::string_view value);
  absl::Status Finish();

  std::unique_ptr<sqlite3_stmt, Finalizer> statement_;
};

// A connection to a file, or to a database in memory. Used by one thread at a time.
//
// Errors name the file and what SQLite says: RESOURCE_EXHAUSTED, the disk or quota is full;
// DATA_LOSS, the file is damaged or no database; PERMISSION_DENIED, it may not be read or written;
// NOT_FOUND, there is none; UNAVAILABLE, reading or writing failed or the file is busy; INTERNAL,
// all else.
class SqliteDatabase {
 public:
  enum class Mode {
    kReadOnly,
    kImmutable,  // and nobody writes to it, so no lock is taken and no file beside it is looked at
    kReadWrite,
    kCreate,  // unless there is one
  };

  // Opens a file; an empty path is a database in memory that nobody else sees. `vfs` names one of
  // SQLite's file layers; empty: the system's. Others' locks are waited for, 5 seconds at most.
  static absl::StatusOr<std::unique_ptr<SqliteDatabase>> Open(const std::string& path, Mode mode,
                                                              const std::string& vfs = "");
  // Rolls back what is not committed.
  ~SqliteDatabase() = default;
  SqliteDatabase(const SqliteDatabase&) = delete;
  SqliteDatabase& operator=(const SqliteDatabase&) = delete;

  const std::string& path() const { return path_; }

  // Runs one or more statements without values.
  absl::Status Execute(const std::string& sql);
  absl::StatusOr<SqliteStatement> Prepare(std::string_view sql);
  // The first column of a statement's only row, as text.
  absl::StatusOr<std::string> Value(std::string_view sql);

  // Rows of `sql`'s tables that the last statement changed.
  int changes() const { return sqlite3_changes(connection_.get()); }

  // Copies all of it, as it is at one moment, over `destination`.
  absl::Status CopyTo(SqliteDatabase* destination);

 private:
  friend class SqliteTransaction;
  struct Closer {
    void operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }
  };
  SqliteDatabase(std::string path, sqlite3* connection)
      : path_(std::move(path)), connection_(connection) {}

  const std::string path_;
  const std::unique_ptr<sqlite3, Closer> connection_;
};

// Begins at once, and rolls back unless committed.
class SqliteTransaction {
 public:
  enum class Kind { kRead, kWrite };

  static absl::StatusOr<std::unique_ptr<SqliteTransaction>> Begin(SqliteDatabase* database,
                                                                  Kind kind);
  ~SqliteTransaction();
  SqliteTransaction(const SqliteTransaction&) = delete;
  SqliteTransaction& operator=(const SqliteTransaction&) = delete;

  absl::Status Commit();

 private:
  explicit SqliteTransaction(SqliteDatabase* database) : database_(database) {}

  SqliteDatabase* const database_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STORAGE_SQLITE_DATABASE_H_
