// Outcomes into their table.

#include "server/experiments/storage/outcome_writer.h"

#include <charconv>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace swaa::server {
namespace {

// As many digits as tell it from every other number.
std::string Digits(double value) {
  char text[32];
  return std::string(text, std::to_chars(text, text + sizeof(text), value).ptr);
}

absl::Status CheckValues(const RequestOutcomes& outcomes) {
  std::set<std::string> metrics;
  for (size_t i = 0; i < outcomes.values.size(); ++i) {
    const MetricValue& value = outcomes.values[i];
    if (!std::isfinite(value.value)) {
      return absl::InvalidArgumentError(
          absl::StrCat("outcomes[", i, "].value: ", value.value, " is not finite; send a number"));
    }
    if (!metrics.insert(value.metric).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("outcomes[", i, "].metric: ", absl::CHexEscape(value.metric),
                       " stands twice in this request; send each metric once"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OutcomeWriter> OutcomeWriter::Create(SqliteDatabase* database) {
  SWAA_ASSIGN_OR_RETURN(
      SqliteStatement find,
      database->Prepare("SELECT value FROM outcome WHERE request_id = ?1 AND metric = ?2"));
  SWAA_ASSIGN_OR_RETURN(SqliteStatement insert,
                        database->Prepare("INSERT INTO outcome VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, "
                                          "?8, ?9, ?10, ?11, ?12)"));
  return OutcomeWriter(std::move(find), std::move(insert));
}

absl::StatusOr<int32_t> OutcomeWriter::Write(const RequestOutcomes& outcomes) {
  SWAA_RETURN_IF_ERROR(CheckValues(outcomes));
  std::vector<const MetricValue*> missing;
  for (size_t i = 0; i < outcomes.values.size(); ++i) {
    const MetricValue& value = outcomes.values[i];
    find_.Bind(std::string_view(outcomes.request_id), std::string_view(value.metric));
    SWAA_ASSIGN_OR_RETURN(const bool found, find_.Step());
    if (!found) {
      missing.push_back(&value);
    } else if (find_.Real(0) != value.value) {
      return absl::AlreadyExistsError(absl::StrCat(
          "outcomes[", i, "].value: request ", absl::CHexEscape(outcomes.request_id), " has ",
          absl::CHexEscape(value.metric), " = ", Digits(find_.Real(0)), " already, not ",
          Digits(value.value), "; an outcome that is recorded stays"));
    }
  }
  const OutcomeScope& scope = outcomes.scope;
  for (const MetricValue* value : missing) {
    SWAA_RETURN_IF_ERROR(insert_.Run(
        std::string_view(outcomes.request_id), std::string_view(value->metric), value->value,
        scope.revision, scope.arm, scope.group, scope.unit_key, scope.end_ms, scope.triggered,
        scope.prompt_class, scope.unit_age, outcomes.at_ms));
  }
  return static_cast<int32_t>(missing.size());
}

}  // namespace swaa::server
