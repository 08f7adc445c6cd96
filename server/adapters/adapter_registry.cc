// The adapters that requests may name.

#include "server/adapters/adapter_registry.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"

namespace swaa::server {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxLoaded = 1024;
constexpr size_t kMaxNameBytes = 128;
constexpr size_t kMaxPathBytes = 4096;

// Metrics list names with commas between.
absl::Status CheckName(const std::string& name) {
  const bool plain = name.find_first_not_of(
                         "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                         "0123456789_.:/-") == std::string::npos;
  if (!name.empty() && name.size() <= kMaxNameBytes && plain) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_lora_name",
                   absl::StrCat("lora_name: ", Quoted(name), " is no name; take 1 to ",
                                kMaxNameBytes, " letters, digits, '_', '-', '.', ':' or '/'"));
}

absl::Status CheckPath(const std::string& path) {
  if (!path.empty() && path.size() <= kMaxPathBytes && path.find('\0') == std::string::npos) {
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_path",
                   absl::StrCat("source_path: ", Quoted(path), " names no folder; give 1 to ",
                                kMaxPathBytes, " bytes"));
}

// Links resolved as far as the path exists.
fs::path Resolved(const fs::path& path) {
  std::error_code error;
  fs::path resolved = fs::weakly_canonical(path, error);
  return error ? fs::path() : resolved;
}

bool IsBelow(const fs::path& root, const fs::path& path) {
  const auto [at_root, at_path] = std::mismatch(root.begin(), root.end(), path.begin(), path.end());
  return at_root == root.end() && at_path != path.end();
}

// The path itself, or the folder of that name below the first root that has one.
std::string Locate(const std::vector<std::string>& roots, const std::string& path) {
  if (fs::path(path).is_absolute()) return path;
  std::error_code error;
  for (const std::string& root : roots) {
    if (fs::exists(fs::path(root) / path, error)) return (fs::path(root) / path).string();
  }
  return roots.empty() ? path : (fs::path(roots.front()) / path).string();
}

}  // namespace

absl::Status CheckBelowRoots(const std::vector<std::string>& roots, const std::string& path) {
  if (roots.empty()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "no_lora_roots",
                     absl::StrCat("source_path: ", Quoted(path),
                                  " cannot be loaded: this server has no folder for adapters; name "
                                  "one in its configuration, lora.roots"));
  }
  const fs::path resolved = Resolved(path);
  for (const std::string& root : roots) {
    const fs::path folder = Resolved(root);
    if (!folder.empty() && !resolved.empty() && IsBelow(folder, resolved)) return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kPermissionDenied, "path_outside_roots",
                   absl::StrCat("source_path: ", Quoted(path),
                                " is not below a folder that this server takes adapters from "
                                "(lora.roots of its configuration); put it there"));
}

int32_t AdapterRegistry::Residents::count() const {
  std::lock_guard lock(mutex_);
  return static_cast<int32_t>(waiting_.size());
}

void AdapterRegistry::Residents::Add(uint64_t load) {
  std::lock_guard lock(mutex_);
  waiting_[load];
}

void AdapterRegistry::Residents::Await(uint64_t load, Unloaded done) {
  std::lock_guard lock(mutex_);
  waiting_.at(load).push_back(std::move(done));
}

void AdapterRegistry::Residents::Remove(uint64_t load) {
  std::vector<Unloaded> waiting;
  {
    std::lock_guard lock(mutex_);
    const auto found = waiting_.find(load);
    waiting = std::move(found->second);
    waiting_.erase(found);
  }
  for (const Unloaded& done : waiting) done();
}

AdapterRegistry::AdapterRegistry(Options options, AdapterReader read)
    : options_(std::move(options)), read_(std::move(read)) {
  // Unlike those of other servers, whose blocks a router may know by the same hashes.
  absl::BitGen generator;
  next_load_ = absl::Uniform<uint64_t>(generator) >> 1 | 1;
}

absl::StatusOr<AdapterInfo> AdapterRegistry::Load(const std::string& name,
                                                  const std::string& path) {
  SWAA_RETURN_IF_ERROR(CheckName(name));
  SWAA_RETURN_IF_ERROR(CheckPath(path));
  return LoadFrom(name, path, /*confined=*/false);
}

absl::StatusOr<AdapterInfo> AdapterRegistry::LoadBelowRoots(const std::string& name,
                                                            const std::string& path) {
  SWAA_RETURN_IF_ERROR(CheckName(name));
  SWAA_RETURN_IF_ERROR(CheckPath(path));
  const std::string located = Locate(options_.roots, path);
  SWAA_RETURN_IF_ERROR(CheckBelowRoots(options_.roots, located));
  return LoadFrom(name, located, /*confined=*/true);
}

absl::StatusOr<AdapterInfo> AdapterRegistry::LoadFrom(const std::string& name,
                                                      const std::string& path, bool confined) {
  std::lock_guard loading(loading_);
  {
    std::lock_guard lock(mutex_);
    const auto found = entries_.find(name);
    if (found != entries_.end() && found->second.info.path != path) {
      return MakeError(
          absl::StatusCode::kAlreadyExists, "lora_name_in_use",
          absl::StrCat("lora_name: ", Quoted(name), " is loaded from ",
                       Quoted(found->second.info.path), "; unload it first, or take another name"));
    }
    if (found != entries_.end() && found->second.handle != nullptr) return found->second.info;
    if (found == entries_.end() && entries_.size() >= kMaxLoaded) {
      return MakeError(absl::StatusCode::kResourceExhausted, "too_many_loras",
                       absl::StrCat("lora_name: ", kMaxLoaded, " adapters are loaded; unload one"));
    }
  }
  SWAA_ASSIGN_OR_RETURN(Entry entry, Read({.name = name, .path = path}, confined));
  std::lock_guard lock(mutex_);
  entry.last_use = ++uses_;
  return (entries_[name] = std::move(entry)).info;
}

absl::StatusOr<AdapterRegistry::Entry> AdapterRegistry::Read(AdapterInfo info, bool confined) {
  absl::StatusOr<AdapterContent> content = ReadContent(info.path, confined);
  {
    std::lock_guard lock(mutex_);
    ++(content.ok() ? counts_.loads : counts_.failed_loads);
  }
  SWAA_RETURN_IF_ERROR(content.status());
  info.rank = content->rank;
  const uint64_t load = next_load_++;
  residents_->Add(load);
  const AdapterHandle handle(
      new LoadedAdapter{.name = info.name, .load = load, .weights = std::move(content->weights)},
      [residents = residents_](const LoadedAdapter* gone) {
        const uint64_t gone_load = gone->load;
        delete gone;
        residents->Remove(gone_load);
      });
  return Entry{.info = std::move(info), .handle = handle, .confined = confined};
}

absl::StatusOr<AdapterContent> AdapterRegistry::ReadContent(const std::string& path,
                                                            bool confined) {
  SWAA_RETURN_IF_ERROR(MakeRoom());
  return read_(path, confined);
}

// A handle that only its entry has can gain no other owner but under mutex_.
absl::Status AdapterRegistry::MakeRoom() {
  while (residents_->count() >= options_.max_resident) {
    AdapterHandle evicted;
    {
      std::lock_guard lock(mutex_);
      Entry* oldest = nullptr;
      for (auto& [name, entry] : entries_) {
        if (entry.handle.use_count() != 1) continue;
        if (oldest == nullptr || entry.last_use < oldest->last_use) oldest = &entry;
      }
      if (oldest != nullptr) {
        evicted = std::move(oldest->handle);
        ++counts_.evictions;
      }
    }
    if (evicted != nullptr) continue;
    return MakeError(absl::StatusCode::kResourceExhausted, "loras_in_use",
                     absl::StrCat("lora_name: requests use all ", options_.max_resident,
                                  " adapters that may be in memory; try again later, or raise "
                                  "lora.max_resident"));
  }
  return absl::OkStatus();
}

absl::Status AdapterRegistry::Unload(const std::string& name, Unloaded done) {
  AdapterHandle handle;
  {
    std::lock_guard lock(mutex_);
    const auto found = entries_.find(name);
    if (found != entries_.end()) {
      handle = found->second.handle;
      if (handle != nullptr) residents_->Await(handle->load, std::move(done));
      entries_.erase(found);
    } else {
      std::vector<std::string> names;
      for (const auto& [loaded, entry] : entries_) names.push_back(loaded);
      return MakeError(absl::StatusCode::kNotFound, "lora_not_found",
                       absl::StrCat("lora_name: no adapter ", Quoted(name), " is loaded; loaded: ",
                                    names.empty() ? "none" : absl::StrJoin(names, ", ")));
    }
  }
  if (handle == nullptr) done();
  return absl::OkStatus();
}

std::vector<AdapterInfo> AdapterRegistry::List() const {
  std::lock_guard lock(mutex_);
  std::vector<AdapterInfo> list;
  for (const auto& [name, entry] : entries_) list.push_back(entry.info);
  return list;
}

AdapterRegistry::Counts AdapterRegistry::counts() const {
  std::lock_guard lock(mutex_);
  return counts_;
}

bool AdapterRegistry::Has(const std::string& name) const {
  std::lock_guard lock(mutex_);
  return entries_.contains(name);
}

std::string AdapterRegistry::Names() const {
  const std::vector<AdapterInfo> list = List();
  if (list.empty()) return "none";
  return absl::StrJoin(list, ", ", [](std::string* out, const AdapterInfo& info) {
    absl::StrAppend(out, info.name);
  });
}

AdapterHandle AdapterRegistry::Use(const std::string& name) {
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(name);
  if (found == entries_.end() || found->second.handle == nullptr) return nullptr;
  found->second.last_use = ++uses_;
  return found->second.handle;
}

absl::StatusOr<AdapterHandle> AdapterRegistry::Acquire(const std::string& name,
                                                       const std::string& field) {
  if (AdapterHandle handle = Use(name); handle != nullptr) return handle;
  std::lock_guard loading(loading_);
  if (AdapterHandle handle = Use(name); handle != nullptr) return handle;
  AdapterInfo info;
  bool confined = false;
  {
    std::lock_guard lock(mutex_);
    const auto found = entries_.find(name);
    if (found != entries_.end()) {
      info = found->second.info;
      confined = found->second.confined;
    }
  }
  if (info.name.empty()) {
    return MakeError(absl::StatusCode::kNotFound, "lora_not_found",
                     absl::StrCat(field, ": no adapter ", Quoted(name), " is loaded; loaded: ",
                                  Names(), "; leave it empty for the base model"));
  }
  absl::StatusOr<Entry> entry = Read(info, confined);
  if (absl::IsResourceExhausted(entry.status())) return entry.status();
  if (!entry.ok()) {
    return MakeError(absl::StatusCode::kUnavailable, "lora_not_readable",
                     absl::StrCat(field, ": adapter ", Quoted(name),
                                  " is not in memory and cannot be read again: ",
                                  std::string(entry.status().message())));
  }
  const AdapterHandle handle = entry->handle;
  std::lock_guard lock(mutex_);
  const auto found = entries_.find(name);
  // Unless it was unloaded meanwhile; this request came before that.
  if (found != entries_.end()) {
    entry->last_use = ++uses_;
    found->second = *std::move(entry);
  }
  return handle;
}

}  // namespace swaa::server
