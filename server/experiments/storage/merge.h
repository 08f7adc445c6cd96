// Many replicas' files as one.

#ifndef SWAA_SERVER_EXPERIMENTS_STORAGE_MERGE_H_
#define SWAA_SERVER_EXPERIMENTS_STORAGE_MERGE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/experiments/experiment_data.h"

namespace swaa::server {

// Stops of an arm on two replicas that lie no further apart are one decision: an operator's, who
// goes from replica to replica.
inline constexpr int64_t kOneStopMilliseconds = 10 * 60 * 1000;

// Reads replicas' files, in use or exported, and adds them up; all of them or one revision's.
//  * Sums, sketches and pairs add. A unit's records unite; one that was in another arm on another
//    replica is counted in a warning, and has both arms' bits.
//  * An outcome that several have counts once; where they differ, the earliest, with a warning.
//  * An arm ends with its first stop anywhere: of the other replicas, which went on, count the
//  whole
//    UTC days before it, and outcomes of requests that ended before it. Warnings say which those
//    are.
//  * A revision began with the first replica and ends with the last; its configuration is that of
//    the replica that began last. The least p of the sample ratio is multiplied by the number of
//    replicas (Bonferroni), as each looked at units of its own.
// Errors: INVALID_ARGUMENT for no file or two of the same replica; FAILED_PRECONDITION for files of
// different keys or another schema; and those of SqliteDatabase, which name the file.
absl::StatusOr<ExperimentData> MergeExperimentFiles(
    const std::vector<std::string>& paths, std::optional<uint64_t> revision = std::nullopt);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_STORAGE_MERGE_H_
