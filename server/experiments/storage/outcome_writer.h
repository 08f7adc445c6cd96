// Outcomes into their table: idempotent, all of a request or none.

#ifndef SWAA_SERVER_EXPERIMENTS_STORAGE_OUTCOME_WRITER_H_
#define SWAA_SERVER_EXPERIMENTS_STORAGE_OUTCOME_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/experiments/experiment_data.h"
#include "server/experiments/storage/sqlite_database.h"

namespace swaa::server {

struct MetricValue {
  std::string metric;
  double value = 0;
};

// What a client says of one request.
struct RequestOutcomes {
  std::string request_id;
  OutcomeScope scope;
  int64_t at_ms = 0;  // when the client said it
  std::vector<MetricValue> values;
};

// Within a transaction, which must be given up where a status is not one of a refusal (IsRefusal).
class OutcomeWriter {
 public:
  static absl::StatusOr<OutcomeWriter> Create(SqliteDatabase* database);

  // How many of the values are new. A refusal writes nothing: INVALID_ARGUMENT, ALREADY_EXISTS.
  absl::StatusOr<int32_t> Write(const RequestOutcomes& outcomes);

  static bool IsRefusal(const absl::Status& status) {
    return absl::IsInvalidArgument(status) || absl::IsAlreadyExists(status);
  }

 private:
  OutcomeWriter(SqliteStatement find, SqliteStatement insert)
      : find_(std::move(find)), insert_(std::move(insert)) {}

  SqliteStatement find_;
  SqliteStatement insert_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STORAGE_OUTCOME_WRITER_H_
