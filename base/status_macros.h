// Early return on a failed absl::Status or absl::StatusOr.

#ifndef SWAA_BASE_STATUS_MACROS_H_
#define SWAA_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define SWAA_RETURN_IF_ERROR(expression)                      \
  do {                                                        \
    if (absl::Status status_ = (expression); !status_.ok()) { \
      return status_;                                         \
    }                                                         \
  } while (false)

#define SWAA_STATUS_CONCAT_INNER_(a, b) a##b
#define SWAA_STATUS_CONCAT_(a, b) SWAA_STATUS_CONCAT_INNER_(a, b)

// SWAA_ASSIGN_OR_RETURN(auto value, MayFail());
#define SWAA_ASSIGN_OR_RETURN(declaration, expression) \
  SWAA_ASSIGN_OR_RETURN_(SWAA_STATUS_CONCAT_(status_or_, __LINE__), declaration, expression)
#define SWAA_ASSIGN_OR_RETURN_(temporary, declaration, expression) \
  auto temporary = (expression);                                   \
  if (!temporary.ok()) return temporary.status();                  \
  declaration = std::move(temporary).value()

#endif  // SWAA_BASE_STATUS_MACROS_H_
