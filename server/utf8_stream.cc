// Server room: a stream of bytes as a stream of whole UTF-8.

#include "server/utf8_stream.h"

#include <cstdint>

namespace swaa::server {
namespace {

constexpr char kReplacement[] = "\xef\xbf\xbd";

// Bytes that a character beginning with `lead` has; 0: no character begins so.
size_t SequenceLength(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  if (lead >= 0xf0 && lead <= 0xf4) return 4;
  return 0;
}

// Whether `byte` may be the second of a character that begins with `lead`: overlong forms, surrogates and
// what lies beyond U+10FFFF are shut out here (Unicode, table 3-7).
bool MaySecond(uint8_t lead, uint8_t byte) {
  const uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  return byte >= low && byte <= high;
}

bool MayContinue(const std::string& begun, uint8_t byte) {
  if (begun.size() == 1) return MaySecond(static_cast<uint8_t>(begun[0]), byte);
  return (byte & 0xc0) == 0x80;
}

}  // namespace

std::string Utf8Stream::Append(std::string_view bytes) {
  std::string text;
  for (char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    if (!pending_.empty()) {
      if (MayContinue(pending_, byte)) {
        pending_.push_back(c);
        if (pending_.size() == SequenceLength(static_cast<uint8_t>(pending_[0]))) {
          text += pending_;
          pending_.clear();
        }
        continue;
      }
      text += kReplacement;
      pending_.clear();
    }
    const size_t length = SequenceLength(byte);
    if (length == 0) {
      text += kReplacement;
    } else if (length == 1) {
      text.push_back(c);
    } else {
      pending_.push_back(c);
    }
  }
  return text;
}

std::string Utf8Stream::Flush() {
  if (pending_.empty()) return "";
  pending_.clear();
  return kReplacement;
}

}  // namespace swaa::server
