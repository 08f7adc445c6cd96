// What they share: input as a file, a tokenizer, and the check of refusals.

#ifndef SWAA_TESTS_FUZZ_FUZZ_INPUT_H_
#define SWAA_TESTS_FUZZ_FUZZ_INPUT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "engine/tokenizer/tokenizer.h"

namespace swaa::fuzz {

// A file in memory that loaders open by its path. It goes away with the object; what has mapped it
// keeps it.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  int fd_;
  std::string path_;
};

inline std::string_view AsText(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// The input's parts between separators of one zero byte: `count` of them, the last ones empty where
// the input has fewer; the last part holds all that is left.
std::vector<std::string_view> SplitAtZeros(std::string_view input, size_t count);

// Aborts unless `status` is a refusal that a person can use: one of the codes that loaders and
// server promise, and a message of whole UTF-8 that is not empty.
void CheckRefusal(const absl::Status& status);

// All bytes as tokens, the special tokens that the known chat templates name, and this template.
std::unique_ptr<Tokenizer> MakeByteTokenizer(std::string_view chat_template);

}  // namespace swaa::fuzz

#endif  // SWAA_TESTS_FUZZ_FUZZ_INPUT_H_
