// The gateway's calls that run, by their ids.

#ifndef SWAA_SERVER_VLLM_ENGINE_GATEWAY_CALLS_H_
#define SWAA_SERVER_VLLM_ENGINE_GATEWAY_CALLS_H_

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"

namespace swaa::server {

// A gateway aborts by its own id, under which a call may have several requests here. Thread-safe.
class GatewayCalls {
 public:
  // `call` is a name for Remove; `request_ids` are those of its samples.
  void Add(const void* call, const std::string& id, std::vector<std::string> request_ids) {
    std::lock_guard lock(mutex_);
    calls_[call] = {id, std::move(request_ids)};
  }
  void Remove(const void* call) {
    std::lock_guard lock(mutex_);
    calls_.erase(call);
  }
  // Of every call with this id.
  std::vector<std::string> RequestIds(const std::string& id) const {
    std::vector<std::string> found;
    std::lock_guard lock(mutex_);
    for (const auto& [call, entry] : calls_) {
      if (entry.first == id) found.insert(found.end(), entry.second.begin(), entry.second.end());
    }
    return found;
  }
  int64_t size() const {
    std::lock_guard lock(mutex_);
    return static_cast<int64_t>(calls_.size());
  }

 private:
  mutable std::mutex mutex_;
  std::map<const void*, std::pair<std::string, std::vector<std::string>>> calls_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_VLLM_ENGINE_GATEWAY_CALLS_H_
