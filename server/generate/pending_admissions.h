// Requests that the engine does not know yet.

#ifndef SWAA_SERVER_GENERATE_PENDING_ADMISSIONS_H_
#define SWAA_SERVER_GENERATE_PENDING_ADMISSIONS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"

namespace swaa::server {

// A request that waits to be read, or is being read.
class PendingAdmission {
 public:
  virtual ~PendingAdmission() = default;
  // Ends it as an operator's abort. False: the engine has it, or it has ended.
  virtual bool AbortAdmission() = 0;
};

// By id, so that an operator can abort them. Two may wait under one id: the engine refuses the
// second when it comes to it. Thread-safe.
class PendingAdmissions {
 public:
  void Add(const std::string& id, const std::shared_ptr<PendingAdmission>& admission,
           const std::string& caller = {}) {
    std::lock_guard lock(mutex_);
    admissions_[admission.get()] = {id, caller, admission};
  }
  void Remove(const PendingAdmission* admission) {
    std::lock_guard lock(mutex_);
    admissions_.erase(admission);
  }
  // How many were aborted. `caller` null: whoever's they are.
  int32_t Abort(const std::string& id, const std::string* caller = nullptr) {
    return AbortThose(&id, caller);
  }
  int32_t AbortAll() { return AbortThose(nullptr, nullptr); }

 private:
  struct Entry {
    std::string id;
    std::string caller;
    std::weak_ptr<PendingAdmission> admission;
  };

  // Null: all of them.
  int32_t AbortThose(const std::string* id, const std::string* caller) {
    std::vector<std::shared_ptr<PendingAdmission>> found;
    {
      std::lock_guard lock(mutex_);
      for (const auto& [key, entry] : admissions_) {
        if (id != nullptr && entry.id != *id) continue;
        if (caller != nullptr && entry.caller != *caller) continue;
        if (auto admission = entry.admission.lock()) found.push_back(std::move(admission));
      }
    }
    int32_t aborted = 0;
    for (const auto& admission : found) aborted += admission->AbortAdmission() ? 1 : 0;
    return aborted;
  }

  std::mutex mutex_;
  std::map<const PendingAdmission*, Entry> admissions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_GENERATE_PENDING_ADMISSIONS_H_
