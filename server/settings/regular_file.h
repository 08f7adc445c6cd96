// Small files that somebody else writes: configuration, certificates, tokens.

#ifndef SWAA_SERVER_SETTINGS_REGULAR_FILE_H_
#define SWAA_SERVER_SETTINGS_REGULAR_FILE_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace swaa::server {

struct RegularFile {
  std::string bytes;
  bool others_may_read = false;  // users that are neither its owner nor in its group
};

// Reads a regular file whole, and waits for nobody: a pipe's open would. NOT_FOUND says why it
// cannot be read, INVALID_ARGUMENT that it is larger than `most_bytes`; neither names the file.
absl::StatusOr<RegularFile> ReadRegularFile(const std::string& path, size_t most_bytes);

}  // namespace swaa::server

#endif  // SWAA_SERVER_SETTINGS_REGULAR_FILE_H_
