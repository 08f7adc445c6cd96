// A file layer of SQLite that knows what a power loss would leave.

#include "tests/unit/server/experiments/power_loss_vfs.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <new>
#include <utility>

#include "base/check.h"

namespace swaa::server {

// SQLite's view of an open file; the system's own follows it in memory.
struct PowerLossFile {
  struct sqlite3_file base;
  PowerLossVfs* vfs;
  std::shared_ptr<PowerLossVfs::FileState> state;
  bool syncs_folder;

  sqlite3_file* system() { return reinterpret_cast<sqlite3_file*>(this + 1); }
  static PowerLossFile* Of(sqlite3_file* file) { return reinterpret_cast<PowerLossFile*>(file); }
  static const sqlite3_io_methods* System(sqlite3_file* file) {
    return Of(file)->system()->pMethods;
  }

  static int Close(sqlite3_file* file) {
    const int result = System(file)->xClose(Of(file)->system());
    Of(file)->state.~shared_ptr();
    return result;
  }
  static int Read(sqlite3_file* file, void* bytes, int size, sqlite3_int64 offset) {
    return System(file)->xRead(Of(file)->system(), bytes, size, offset);
  }
  static int Write(sqlite3_file* file, const void* bytes, int size, sqlite3_int64 offset) {
    PowerLossFile& self = *Of(file);
    const std::lock_guard lock(self.vfs->mutex_);
    if (self.vfs->write_result_ != SQLITE_OK) return self.vfs->write_result_;
    self.state->unsafe.push_back(
        {offset, std::string(static_cast<const char*>(bytes), static_cast<size_t>(size))});
    return System(file)->xWrite(self.system(), bytes, size, offset);
  }
  static int Truncate(sqlite3_file* file, sqlite3_int64 size) {
    PowerLossFile& self = *Of(file);
    const std::lock_guard lock(self.vfs->mutex_);
    self.state->unsafe.push_back({size, "", /*truncates=*/true});
    return System(file)->xTruncate(self.system(), size);
  }
  static int Sync(sqlite3_file* file, int) {
    PowerLossFile& self = *Of(file);
    const std::lock_guard lock(self.vfs->mutex_);
    if (self.vfs->sync_result_ != SQLITE_OK) return self.vfs->sync_result_;
    for (const PowerLossVfs::Write& write : self.state->unsafe) {
      PowerLossVfs::Apply(write, &self.state->safe);
    }
    self.state->unsafe.clear();
    if (std::exchange(self.syncs_folder, false)) self.vfs->SyncFolder();
    return SQLITE_OK;
  }
  static int FileSize(sqlite3_file* file, sqlite3_int64* size) {
    return System(file)->xFileSize(Of(file)->system(), size);
  }
  static int Lock(sqlite3_file* file, int level) {
    return System(file)->xLock(Of(file)->system(), level);
  }
  static int Unlock(sqlite3_file* file, int level) {
    return System(file)->xUnlock(Of(file)->system(), level);
  }
  static int CheckReservedLock(sqlite3_file* file, int* result) {
    return System(file)->xCheckReservedLock(Of(file)->system(), result);
  }
  static int FileControl(sqlite3_file* file, int what, void* argument) {
    return System(file)->xFileControl(Of(file)->system(), what, argument);
  }
  static int SectorSize(sqlite3_file* file) {
    return System(file)->xSectorSize(Of(file)->system());
  }
  static int DeviceCharacteristics(sqlite3_file* file) {
    return System(file)->xDeviceCharacteristics(Of(file)->system());
  }
  static int ShmMap(sqlite3_file* file, int page, int size, int extend, void volatile** memory) {
    return System(file)->xShmMap(Of(file)->system(), page, size, extend, memory);
  }
  static int ShmLock(sqlite3_file* file, int offset, int count, int flags) {
    return System(file)->xShmLock(Of(file)->system(), offset, count, flags);
  }
  static void ShmBarrier(sqlite3_file* file) { System(file)->xShmBarrier(Of(file)->system()); }
  static int ShmUnmap(sqlite3_file* file, int remove) {
    return System(file)->xShmUnmap(Of(file)->system(), remove);
  }
};

namespace {

constexpr size_t kSectorBytes = 512;
constexpr size_t kMaxSectors = 16;  // of a write, 4 KiB and more

// Version 2: no memory mapping, whose writes nobody would see.
constexpr sqlite3_io_methods kMethods = {
    .iVersion = 2,
    .xClose = PowerLossFile::Close,
    .xRead = PowerLossFile::Read,
    .xWrite = PowerLossFile::Write,
    .xTruncate = PowerLossFile::Truncate,
    .xSync = PowerLossFile::Sync,
    .xFileSize = PowerLossFile::FileSize,
    .xLock = PowerLossFile::Lock,
    .xUnlock = PowerLossFile::Unlock,
    .xCheckReservedLock = PowerLossFile::CheckReservedLock,
    .xFileControl = PowerLossFile::FileControl,
    .xSectorSize = PowerLossFile::SectorSize,
    .xDeviceCharacteristics = PowerLossFile::DeviceCharacteristics,
    .xShmMap = PowerLossFile::ShmMap,
    .xShmLock = PowerLossFile::ShmLock,
    .xShmBarrier = PowerLossFile::ShmBarrier,
    .xShmUnmap = PowerLossFile::ShmUnmap,
};

}  // namespace

PowerLossVfs::PowerLossVfs(const std::string& name)
    : name_(name), system_(sqlite3_vfs_find(nullptr)), vfs_(*system_) {
  vfs_.zName = name_.c_str();
  vfs_.pNext = nullptr;
  vfs_.szOsFile = static_cast<int>(sizeof(PowerLossFile)) + system_->szOsFile;
  vfs_.pAppData = this;
  vfs_.xOpen = &PowerLossVfs::Open;
  vfs_.xDelete = &PowerLossVfs::Delete;
  // The rest asks the system's layer with its own data, of which it makes no use there.
  SWAA_CHECK_EQ(sqlite3_vfs_register(&vfs_, /*makeDflt=*/0), SQLITE_OK);
}

PowerLossVfs::~PowerLossVfs() { sqlite3_vfs_unregister(&vfs_); }

void PowerLossVfs::Apply(const Write& write, std::string* bytes) {
  const auto offset = static_cast<size_t>(write.offset);
  if (write.truncates) {
    bytes->resize(offset);
    return;
  }
  if (bytes->size() < offset + write.bytes.size()) bytes->resize(offset + write.bytes.size());
  bytes->replace(offset, write.bytes.size(), write.bytes);
}

int PowerLossVfs::Open(sqlite3_vfs* vfs, sqlite3_filename path, sqlite3_file* file, int flags,
                       int* out_flags) {
  PowerLossVfs& self = Of(vfs);
  auto* opened = PowerLossFile::Of(file);
  opened->base.pMethods = nullptr;
  const int result = self.system_->xOpen(self.system_, path, opened->system(), flags, out_flags);
  if (result != SQLITE_OK) return result;
  const std::lock_guard lock(self.mutex_);
  std::shared_ptr<FileState>& state = self.states_[path == nullptr ? "" : path];
  if (state == nullptr) state = std::make_shared<FileState>();
  opened->vfs = &self;
  new (&opened->state) std::shared_ptr<FileState>(state);
  constexpr int kJournals = SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_WAL;
  opened->syncs_folder = (flags & SQLITE_OPEN_CREATE) != 0 && (flags & kJournals) != 0;
  opened->base.pMethods = &kMethods;
  return SQLITE_OK;
}

int PowerLossVfs::Delete(sqlite3_vfs* vfs, const char* path, int sync_folder) {
  PowerLossVfs& self = Of(vfs);
  const std::lock_guard lock(self.mutex_);
  const auto state = self.states_.find(path);
  if (state != self.states_.end()) {
    if (state->second->name_is_safe) self.removed_.emplace_back(path, state->second);
    self.states_.erase(state);
  }
  if (sync_folder != 0) self.SyncFolder();
  return self.system_->xDelete(self.system_, path, 0);
}

void PowerLossVfs::SyncFolder() {
  for (auto& [path, state] : states_) state->name_is_safe = true;
  removed_.clear();
}

void PowerLossVfs::WriteRemains(const std::string& folder, double kept, std::mt19937_64* random) {
  std::bernoulli_distribution keep(kept);
  const std::lock_guard lock(mutex_);
  const auto write = [&](const std::string& path, const FileState& state) {
    std::string bytes = state.safe;
    for (Write one : state.unsafe) {
      if (!keep(*random)) continue;
      // Sectors are written whole, what has several of them not.
      if (kept < 1 && !one.truncates && keep(*random)) {
        one.bytes.resize(std::min(one.bytes.size(), kSectorBytes * ((*random)() % kMaxSectors)));
      }
      Apply(one, &bytes);
    }
    const std::string name = std::filesystem::path(path).filename();
    std::ofstream(folder + "/" + name, std::ios::binary) << bytes;
  };
  for (const auto& [path, state] : removed_) {
    if (!keep(*random)) write(path, *state);
  }
  for (const auto& [path, state] : states_) {
    if (state->name_is_safe || keep(*random)) write(path, *state);
  }
}

void PowerLossVfs::FailWrites(int result) {
  const std::lock_guard lock(mutex_);
  write_result_ = result;
}

void PowerLossVfs::FailSyncs(int result) {
  const std::lock_guard lock(mutex_);
  sync_result_ = result;
}

}  // namespace swaa::server
