// Files for fuzz targets that read paths.

#include "tests/fuzz/fuzz_input.h"

#include <unistd.h>
#include <utility>

#include <sys/mman.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/utf8.h"

namespace swaa::fuzz {

MemoryFile::MemoryFile(std::string_view content)
    : fd_(memfd_create("fuzz", MFD_CLOEXEC)), path_(absl::StrCat("/proc/self/fd/", fd_)) {
  SWAA_CHECK_GE(fd_, 0);
  while (!content.empty()) {
    const ssize_t written = write(fd_, content.data(), content.size());
    SWAA_CHECK_GT(written, 0);
    content.remove_prefix(static_cast<size_t>(written));
  }
}

MemoryFile::~MemoryFile() { close(fd_); }

std::vector<std::string_view> SplitAtZeros(std::string_view input, size_t count) {
  std::vector<std::string_view> parts;
  while (parts.size() + 1 < count) {
    const size_t zero = input.find('\0');
    parts.push_back(input.substr(0, zero));
    input = zero == std::string_view::npos ? std::string_view() : input.substr(zero + 1);
  }
  parts.push_back(input);
  return parts;
}

void CheckRefusal(const absl::Status& status) {
  const bool promised = absl::IsInvalidArgument(status) || absl::IsUnimplemented(status) ||
                        absl::IsNotFound(status) || absl::IsFailedPrecondition(status);
  SWAA_CHECK(promised) << status.ToString();
  const std::string_view message(status.message().data(), status.message().size());
  SWAA_CHECK(!message.empty());
  SWAA_CHECK_EQ(ValidUtf8Prefix(message), message.size()) << message;
}

std::unique_ptr<Tokenizer> MakeByteTokenizer(std::string_view chat_template) {
  TokenizerData data;
  for (int byte = 0; byte < 256; ++byte) {
    data.tokens.emplace_back(ByteToAlphabet(static_cast<uint8_t>(byte)));
  }
  data.kinds.assign(data.tokens.size(), TokenKind::kNormal);
  for (const char* special :
       {"<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>",
        "<|end_header_id|>", "<|eot_id|>", "<think>", "</think>"}) {
    data.tokens.emplace_back(special);
    data.kinds.push_back(TokenKind::kSpecial);
  }
  data.eos_ids = {257};
  data.chat_template = std::string(chat_template);
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(std::move(data));
  SWAA_CHECK(tokenizer.ok()) << tokenizer.status().ToString();
  return *std::move(tokenizer);
}

}  // namespace swaa::fuzz
