// The trace that a caller says its request is part of.

#include "server/observation/trace_context.h"

namespace swaa::server {
namespace {

// VERSION-TRACEID-PARENTID-FLAGS
constexpr size_t kTraceIdAt = 3;
constexpr size_t kTraceIdDigits = 32;
constexpr size_t kParentIdAt = 36;
constexpr size_t kParentIdDigits = 16;
constexpr size_t kFlagsAt = 53;
constexpr size_t kSize = 55;

// The standard takes small letters alone.
bool IsHex(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool IsId(std::string_view text) {
  return IsHex(text) && text.find_first_not_of('0') != std::string_view::npos;
}

}  // namespace

std::optional<TraceContext> ParseTraceparent(std::string_view header) {
  if (header.size() < kSize) return std::nullopt;
  const std::string_view version = header.substr(0, 2);
  const std::string_view trace_id = header.substr(kTraceIdAt, kTraceIdDigits);
  const std::string_view parent_id = header.substr(kParentIdAt, kParentIdDigits);
  const std::string_view flags = header.substr(kFlagsAt, 2);
  const bool dashed = header[kTraceIdAt - 1] == '-' && header[kParentIdAt - 1] == '-' &&
                      header[kFlagsAt - 1] == '-';
  if (!dashed || !IsHex(version) || version == "ff" || !IsId(trace_id) || !IsId(parent_id) ||
      !IsHex(flags)) {
    return std::nullopt;
  }
  // A later version may go on, after a dash.
  if (header.size() > kSize && (version == "00" || header[kSize] != '-')) return std::nullopt;
  const char low = flags[1];
  const int low_bits = low <= '9' ? low - '0' : low - 'a' + 10;
  return TraceContext{std::string(trace_id), std::string(parent_id), (low_bits & 1) != 0};
}

}  // namespace swaa::server
