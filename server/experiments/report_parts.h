// The parts that report.cc puts together.

#ifndef SWAA_SERVER_EXPERIMENTS_REPORT_PARTS_H_
#define SWAA_SERVER_EXPERIMENTS_REPORT_PARTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/experiments/experiment_data.h"
#include "server/experiments/experiment_definition.h"
#include "server/experiments/metric_table.h"
#include "server/experiments/statistics/ratio_estimate.h"
#include "swaa/v1/experiment_service.pb.h"

namespace swaa::server {

// What all parts look at.
struct ReportInput {
  const ExperimentData& data;
  uint64_t revision = 0;
  const StoredRevision& stored;
  const MetricTable& table;
  std::vector<double> shares;  // [arms], of buckets; empty with a switchback
  int32_t control = 0;
  double step_model_error = 0;  // mean over requests

  const v1::Experiment& experiment() const { return stored.experiment; }
  bool is_switchback() const { return experiment().design() == v1::EXPERIMENT_DESIGN_SWITCHBACK; }
  // Whether some requests can be triggered and others not.
  bool has_untriggered() const {
    return stored.trigger_positions.has_value() && *stored.trigger_positions > 0;
  }
  // Whether the arm alone was stopped, so that control went on without it.
  bool WasStopped(int32_t arm) const;
  bool HasUnequalShares(int32_t arm) const;
  const std::string& ArmName(int32_t arm) const { return experiment().arms(arm).name(); }
};

// Whether arms of this design differ by the metric as their recipes do: not by latencies in a
// shared batch, and in a switchback only by what the server measures, as users meet both arms; and
// not by attributed device time while the model that it is attributed by is too far off.
bool IsJudged(const ReportInput& input, const v1::ExperimentMetric& metric);

// Every arm against control on every declared metric, for all requests and for triggered ones.
// With `trusted` false no verdict is given.
void AddComparisons(const ReportInput& input, bool trusted, v1::GetReportResponse* report);

// The same among units that are new to their arm, and among those that have had it for longer: an
// effect that is there for its novelty alone fades. Information: no verdict, and each interval
// holds for itself alone.
void AddEffectsByUnitAge(const ReportInput& input, v1::GetReportResponse* report);

// How many times less of something than control, each kind's question apart.
void AddSpeedups(const ReportInput& input, v1::GetReportResponse* report);
// What replays of the same requests under two recipes told.
void AddShadowAgreements(const ReportInput& input, v1::GetReportResponse* report);

// Everything that one should know before believing the rest; needs the other parts to be there.
void AddWarnings(const ReportInput& input, v1::GetReportResponse* report);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_REPORT_PARTS_H_
