// The trace that a caller says its request is part of.

#ifndef SWAA_SERVER_OBSERVATION_TRACE_CONTEXT_H_
#define SWAA_SERVER_OBSERVATION_TRACE_CONTEXT_H_

#include <optional>
#include <string>
#include <string_view>

namespace swaa::server {

// As the header `traceparent` names it: W3C Trace Context, section 3.2.
struct TraceContext {
  std::string trace_id;   // 32 hexadecimal digits, not all zero
  std::string parent_id;  // of the caller's span: 16 of them, not all zero
  bool sampled = false;   // the caller may have recorded its span
};

// Absent for what is no traceparent, which the standard wants ignored. Of a version that is not
// known yet, what version 00 has of it.
std::optional<TraceContext> ParseTraceparent(std::string_view header);

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_TRACE_CONTEXT_H_
