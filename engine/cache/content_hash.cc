// Tokens and bytes as words, whatever the machine's byte order.

#include "engine/cache/content_hash.h"

namespace swaa {

void ContentHasher::AddTokens(std::span<const int32_t> tokens) {
  size_t i = 0;
  for (; i + 2 <= tokens.size(); i += 2) {
    Add(uint64_t{static_cast<uint32_t>(tokens[i])} << 32 | static_cast<uint32_t>(tokens[i + 1]));
  }
  if (i < tokens.size()) Add(static_cast<uint32_t>(tokens[i]));
}

void ContentHasher::AddBytes(std::string_view bytes) {
  Add(bytes.size());
  uint64_t word = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    word |= uint64_t{static_cast<unsigned char>(bytes[i])} << (i % 8 * 8);
    if (i % 8 == 7 || i + 1 == bytes.size()) {
      Add(word);
      word = 0;
    }
  }
}

}  // namespace swaa
