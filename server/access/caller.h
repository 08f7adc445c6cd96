// Who calls, and what they may do.

#ifndef SWAA_SERVER_ACCESS_CALLER_H_
#define SWAA_SERVER_ACCESS_CALLER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"

namespace swaa::server {

// A set of roles, as bits.
enum Roles : uint8_t {
  kNoRole = 0,
  kGenerate = 1,
  kObserve = 2,
  kAdminister = 4,
  kAnyRole = 7,
};
constexpr Roles operator|(Roles a, Roles b) {
  return static_cast<Roles>(static_cast<uint8_t>(a) | static_cast<uint8_t>(b));
}

// Immutable; any thread. A request keeps the one that it came with across reloads.
struct Caller {
  std::string name;  // empty: nobody is asked who they are
  Roles roles = kAnyRole;
  uint32_t max_running_requests = 0;  // 0: no limit, here and below
  uint32_t max_queued_requests = 0;
  uint32_t max_tokens_per_minute = 0;
  // Keeps its prefixes apart from others'; made of the token, so that who knows names alone cannot
  // make it. Empty: they are shared.
  std::string cache_scope;

  bool HasAny(Roles any) const { return (roles & any) != 0; }

  // The salt of a request that brings this one.
  std::string CacheSalt(const std::string& salt) const {
    return cache_scope.empty() ? salt : absl::StrCat(cache_scope, "/", salt);
  }
};

// Everybody, where no tokens are asked for: every role, no limit.
inline std::shared_ptr<const Caller> Everybody() {
  static const auto* const kEverybody =
      new std::shared_ptr<const Caller>(std::make_shared<const Caller>());
  return *kEverybody;
}

}  // namespace swaa::server

#endif  // SWAA_SERVER_ACCESS_CALLER_H_
