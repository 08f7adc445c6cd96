// The adapters that requests may name: which are loaded, and whose weights are in memory.

#ifndef SWAA_SERVER_ADAPTERS_ADAPTER_REGISTRY_H_
#define SWAA_SERVER_ADAPTERS_ADAPTER_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/device/adapter.h"

namespace swaa::server {

// What a folder gave.
struct AdapterContent {
  std::shared_ptr<const DeviceAdapter> weights;
  uint32_t rank = 0;
};

// Reads a folder and hands its weights to the device. Confined: no file of it may lie outside the
// registry's roots, wherever links lead.
using AdapterReader =
    std::function<absl::StatusOr<AdapterContent>(const std::string& folder, bool confined)>;

struct AdapterInfo {
  std::string name;
  std::string path;
  uint32_t rank = 0;
};

// Thread-safe. Weights of `max_resident` adapters at most are in memory, those of unloaded ones
// that requests still use included. Beyond, the least recently used of those that no request holds
// goes; it stays loaded by name, and is read again when a request names it.
class AdapterRegistry {
 public:
  struct Options {
    std::vector<std::string> roots;  // folders below which LoadBelowRoots finds adapters
    int32_t max_resident = 8;
  };
  // Called once the weights of an unloaded adapter are gone, in the thread that let them go: must
  // not block, and throws nothing.
  using Unloaded = std::function<void()>;

  AdapterRegistry(Options options, AdapterReader read);

  // For an operator's own configuration: any path. As LoadBelowRoots otherwise.
  absl::StatusOr<AdapterInfo> Load(const std::string& name, const std::string& path);
  // For clients. `path`: absolute, or below one of the roots. An adapter that is loaded under this
  // name from this path already stays as it is. INVALID_ARGUMENT: a name that is none;
  // PERMISSION_DENIED: a path outside the roots; ALREADY_EXISTS: the name is another path's;
  // RESOURCE_EXHAUSTED: all that may be resident are in use; else as the reader.
  absl::StatusOr<AdapterInfo> LoadBelowRoots(const std::string& name, const std::string& path);
  // From now on the name is unknown; `done` is called once no request has the adapter any more,
  // which may be at once. NOT_FOUND: `done` is never called; nor where this throws bad_alloc, and
  // the adapter stays.
  absl::Status Unload(const std::string& name, Unloaded done);

  std::vector<AdapterInfo> List() const;  // by name
  bool Has(const std::string& name) const;
  // "a, b", or "none", for messages.
  std::string Names() const;

  // For a request that names it, until the handle goes. May read the folder. `field` begins the
  // messages. NOT_FOUND: not loaded; RESOURCE_EXHAUSTED as Load; UNAVAILABLE: it was not resident
  // and cannot be read again.
  absl::StatusOr<AdapterHandle> Acquire(const std::string& name, const std::string& field);

  int32_t resident() const { return residents_->count(); }
  // Since the start. A load that finds no room has failed.
  struct Counts {
    int64_t loads = 0;
    int64_t failed_loads = 0;
    int64_t evictions = 0;
  };
  Counts counts() const;
  const Options& options() const { return options_; }

 private:
  struct Entry {
    AdapterInfo info;
    AdapterHandle handle;  // null: not resident
    bool confined = false;
    uint64_t last_use = 0;
  };
  // What handles outlive the registry's entries with.
  class Residents {
   public:
    int32_t count() const;
    void Add(uint64_t load);
    void Await(uint64_t load, Unloaded done);  // while somebody has its handle
    void Remove(uint64_t load);

   private:
    mutable std::mutex mutex_;
    std::map<uint64_t, std::vector<Unloaded>> waiting_ ABSL_GUARDED_BY(mutex_);  // by load
  };

  absl::StatusOr<AdapterInfo> LoadFrom(const std::string& name, const std::string& path,
                                       bool confined);
  // Null if there is no such entry, or it is not resident; else it counts as used now.
  AdapterHandle Use(const std::string& name);
  absl::Status MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loading_);
  absl::StatusOr<Entry> Read(AdapterInfo info, bool confined)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loading_);
  absl::StatusOr<AdapterContent> ReadContent(const std::string& path, bool confined)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loading_);

  const Options options_;
  const AdapterReader read_;
  const std::shared_ptr<Residents> residents_ = std::make_shared<Residents>();
  std::mutex loading_;  // one load at a time; before mutex_
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  uint64_t uses_ ABSL_GUARDED_BY(mutex_) = 0;
  Counts counts_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_load_ ABSL_GUARDED_BY(loading_);
};

// Whether `path`, its links resolved, lies below one of `roots`. PERMISSION_DENIED says that it
// does not, whether it exists or not; FAILED_PRECONDITION: there are no roots.
absl::Status CheckBelowRoots(const std::vector<std::string>& roots, const std::string& path);

}  // namespace swaa::server

#endif  // SWAA_SERVER_ADAPTERS_ADAPTER_REGISTRY_H_
