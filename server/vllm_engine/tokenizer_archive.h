// The tokenizer's files as the gateway takes them: one zip archive.

#ifndef SWAA_SERVER_VLLM_ENGINE_TOKENIZER_ARCHIVE_H_
#define SWAA_SERVER_VLLM_ENGINE_TOKENIZER_ARCHIVE_H_

#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer_data.h"

namespace swaa::server {

// A zip archive of these files, by name and content: the same bytes for the same files, whenever it
// is made. INTERNAL with libzip's words.
absl::StatusOr<std::string> MakeZip(const std::vector<std::pair<std::string, std::string>>& files);

// Thread-safe.
class TokenizerArchive {
 public:
  // `data` outlives the archive.
  TokenizerArchive(const TokenizerData* data, int32_t max_tokens)
      : data_(data), max_tokens_(max_tokens) {}

  struct Archive {
    std::string bytes;
    std::string sha256;  // in hexadecimal
  };
  // tokenizer.json and tokenizer_config.json. Made at the first call, which takes a good part of a
  // second; the others wait for it. UNIMPLEMENTED: a tokenizer that the form cannot express.
  const absl::StatusOr<Archive>& Get();

 private:
  absl::StatusOr<Archive> Make() const;

  const TokenizerData* const data_;
  const int32_t max_tokens_;
  std::once_flag once_;
  absl::StatusOr<Archive> archive_;  // after once_
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_VLLM_ENGINE_TOKENIZER_ARCHIVE_H_
