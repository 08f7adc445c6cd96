// Sizes and durations as people write them, and the nearest word to a misspelt one.

#ifndef SWAA_SERVER_SETTINGS_VALUES_H_
#define SWAA_SERVER_SETTINGS_VALUES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace swaa::server {

// "2GiB", "512MiB", "64KiB", "1TiB", "100B" or "100": bytes. Absent for anything else.
std::optional<int64_t> ParseByteSize(const std::string& text);

// The shortest of the above that is exact.
std::string FormatByteSize(int64_t bytes);

// The candidate with the fewest edits (insert, delete, replace, swap neighbours) from `word`; empty
// if even that one is no likely misspelling.
std::string NearestWord(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace swaa::server

#endif  // SWAA_SERVER_SETTINGS_VALUES_H_
