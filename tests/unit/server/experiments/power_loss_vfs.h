// A file layer of SQLite that knows what a power loss would leave, and whose disk can fill up.

#ifndef SWAA_TESTS_UNIT_SERVER_EXPERIMENTS_POWER_LOSS_VFS_H_
#define SWAA_TESTS_UNIT_SERVER_EXPERIMENTS_POWER_LOSS_VFS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <sqlite3.h>
#include <string>
#include <vector>

namespace swaa::server {

// Passes everything on to the system's file layer, except that syncing a file only notes that what
// was written to it so far is safe, and that of its folder what SQLite's own layer for Unix would
// sync with it: names made and removed in it are safe with the first sync of a journal. Registered
// under its name while it lives; thread-safe. One folder's files alone go through it.
class PowerLossVfs {
 public:
  explicit PowerLossVfs(const std::string& name);
  ~PowerLossVfs();
  PowerLossVfs(const PowerLossVfs&) = delete;
  PowerLossVfs& operator=(const PowerLossVfs&) = delete;

  const std::string& name() const { return name_; }

  // Writes into `folder` what there would be after a power loss now: what is safe, and of the
  // writes and names since then each one with the probability `kept`; below 1 some writes end at a
  // sector.
  void WriteRemains(const std::string& folder, double kept, std::mt19937_64* random);

  // From now on writes (syncs) return this result; SQLITE_OK: they work again.
  void FailWrites(int result);
  void FailSyncs(int result);

 private:
  friend struct PowerLossFile;
  struct Write {
    int64_t offset = 0;
    std::string bytes;
    bool truncates = false;  // to `offset`
  };
  // A file's safe bytes, and what was written since.
  struct FileState {
    std::string safe;
    std::vector<Write> unsafe;
    bool name_is_safe = false;
  };
  using States = std::map<std::string, std::shared_ptr<FileState>>;

  static PowerLossVfs& Of(sqlite3_vfs* vfs) { return *static_cast<PowerLossVfs*>(vfs->pAppData); }
  static void Apply(const Write& write, std::string* bytes);
  static int Open(sqlite3_vfs* vfs, sqlite3_filename path, sqlite3_file* file, int flags,
                  int* out_flags);
  static int Delete(sqlite3_vfs* vfs, const char* path, int sync_folder);
  void SyncFolder();

  const std::string name_;
  sqlite3_vfs* const system_;
  sqlite3_vfs vfs_;
  std::mutex mutex_;
  States states_;                                                            // by path
  std::vector<std::pair<std::string, std::shared_ptr<FileState>>> removed_;  // not yet safely
  int write_result_ = SQLITE_OK;
  int sync_result_ = SQLITE_OK;
};

}  // namespace swaa::server

#endif  // SWAA_TESTS_UNIT_SERVER_EXPERIMENTS_POWER_LOSS_VFS_H_
