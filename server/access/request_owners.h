// Whose the requests are that the engine has.

#ifndef SWAA_SERVER_ACCESS_REQUEST_OWNERS_H_
#define SWAA_SERVER_ACCESS_REQUEST_OWNERS_H_

#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"

namespace swaa::server {

// A request's id is its caller's from the moment that the engine has taken it until its client is
// told of its end. Before, two streams may bring one id, of which the engine takes one: neither may
// be aborted in the other's name. Thread-safe.
class RequestOwners {
 public:
  // The stream exists. It ends with Leave.
  void Enter(const void* stream, const std::string& caller) {
    std::lock_guard lock(mutex_);
    streams_[stream] = {caller, ""};
  }
  // The engine has taken its request. Nothing if the stream has ended since.
  void Take(const void* stream, const std::string& id) {
    std::lock_guard lock(mutex_);
    const auto found = streams_.find(stream);
    if (found == streams_.end()) return;
    found->second.id = id;
    streams_by_id_[id] = stream;
  }
  void Leave(const void* stream) {
    std::lock_guard lock(mutex_);
    const auto found = streams_.find(stream);
    if (found == streams_.end()) return;
    // The id may be another's by now.
    const auto by_id = streams_by_id_.find(found->second.id);
    if (by_id != streams_by_id_.end() && by_id->second == stream) streams_by_id_.erase(by_id);
    streams_.erase(found);
  }
  // Whether the engine's request of this id is this caller's.
  bool Owns(const std::string& caller, const std::string& id) const {
    std::lock_guard lock(mutex_);
    const auto found = streams_by_id_.find(id);
    return found != streams_by_id_.end() && streams_.at(found->second).caller == caller;
  }

 private:
  struct Owned {
    std::string caller;
    std::string id;  // empty: the engine has not taken it
  };

  mutable std::mutex mutex_;
  std::map<const void*, Owned> streams_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, const void*> streams_by_id_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_ACCESS_REQUEST_OWNERS_H_
