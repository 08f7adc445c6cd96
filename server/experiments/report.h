// From what was recorded to what it means: the report of one revision of an experiment.

#ifndef SWAA_SERVER_EXPERIMENTS_REPORT_H_
#define SWAA_SERVER_EXPERIMENTS_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/experiments/experiment_data.h"
#include "swaa/v1/experiment_service.pb.h"

namespace swaa::server {

// Both arms need as many units before a verdict, and rates as many ones and zeros in each arm.
inline constexpr int64_t kLeastUnits = 100;
inline constexpr double kLeastOnesAndZeros = 25;

// The report on all that `data`, one file's or several merged, has of a revision. NOT_FOUND if that
// is nothing; DATA_LOSS if the revision's configuration cannot be read. Pure.
absl::StatusOr<v1::GetReportResponse> MakeReport(const ExperimentData& data, uint64_t revision,
                                                 int64_t now_ms);

// The revision of an experiment that started last. NOT_FOUND names the experiments that there are.
absl::StatusOr<uint64_t> NewestRevision(const ExperimentData& data,
                                        const std::string& experiment_id);

// The ids of all experiments in `data`, sorted.
std::vector<std::string> ExperimentIds(const ExperimentData& data);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_REPORT_H_
