// Finds stop strings in the bytes of a growing output, across token borders.

#ifndef SWAA_ENGINE_SAMPLING_STOP_MATCHER_H_
#define SWAA_ENGINE_SAMPLING_STOP_MATCHER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace swaa {

// One per request that has stop strings. Not thread-safe. Time per byte is constant (amortised) for
// each stop string: they are matched by the method of Knuth, Morris and Pratt.
class StopMatcher {
 public:
  struct Match {
    size_t string_index;  // into the stop strings
    size_t begin;         // byte offset in the whole output where the stop string begins
  };

  // None of the strings is empty.
  explicit StopMatcher(std::vector<std::string> stop_strings);

  // Appends a token's bytes; the earliest-ending stop string completed by them (then the longest).
  std::optional<Match> Append(std::string_view bytes);

  // Bytes at the end of what was appended that may yet become a stop string: no client may see them
  // now. The longest end of the output that is the beginning, but not the whole, of any stop
  // string.
  size_t held_back_bytes() const;

 private:
  struct Pattern {
    std::string text;
    std::vector<uint32_t>
        border;            // [length] -> longest proper border of text's first `length` bytes
    uint32_t matched = 0;  // bytes of text, not all, that the output ends with now

    // Takes one byte of output; whether it completes the text.
    bool Advance(char byte);
  };

  std::vector<Pattern> patterns_;
  size_t appended_ = 0;  // bytes so far
};

}  // namespace swaa

#endif  // SWAA_ENGINE_SAMPLING_STOP_MATCHER_H_
