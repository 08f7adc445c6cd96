// A report for a terminal.

#ifndef SWAA_SERVER_EXPERIMENTS_REPORT_TEXT_H_
#define SWAA_SERVER_EXPERIMENTS_REPORT_TEXT_H_

#include <string>

#include "swaa/v1/experiment_service.pb.h"

namespace swaa::server {

// Lines of plain text, sample ratio and warnings before any result.
std::string ReportText(const v1::GetReportResponse& report);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_REPORT_TEXT_H_
