// Finds stop strings in the bytes of a growing output, across token borders.

#ifndef SWAA_ENGINE_SAMPLING_STOP_MATCHER_H_
#define SWAA_ENGINE_SAMPLING_STOP_MATCHER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace swaa {

// One per request that has stop strings. Not thread-safe.
class StopMatcher {
 public:
  struct Match {
    size_t string_index;  // into the stop strings
    size_t begin;         // byte offset in the whole output where the stop string begins
  };

  explicit StopMatcher(std::vector<std::string> stop_strings);

  // Appends a token's bytes; the earliest-ending stop string completed by them (then the longest).
  std::optional<Match> Append(std::string_view bytes);

  // Bytes at the end of what was appended that may yet become a stop string: no client may see them now.
  size_t held_back_bytes() const;

 private:
  std::vector<std::string> stop_strings_;
  std::string tail_;        // the last longest - 1 bytes
  size_t appended_ = 0;     // bytes so far
};

}  // namespace swaa

#endif  // SWAA_ENGINE_SAMPLING_STOP_MATCHER_H_
