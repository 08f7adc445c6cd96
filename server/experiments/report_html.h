// A report as one page that needs nothing else: no script, no font, no network.

#ifndef SWAA_SERVER_EXPERIMENTS_REPORT_HTML_H_
#define SWAA_SERVER_EXPERIMENTS_REPORT_HTML_H_

#include <string>

#include "swaa/v1/experiment_service.pb.h"

namespace swaa::server {

// UTF-8 HTML with inline SVG. Every figure stands beside words that say what it means.
std::string ReportHtml(const v1::GetReportResponse& report);

}  // namespace swaa::server

#endif  // SWAA_SERVER_EXPERIMENTS_REPORT_HTML_H_
