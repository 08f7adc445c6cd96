// Tools: `swaa experiment`.

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include <google/protobuf/util/json_util.h>

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "server/experiments/report.h"
#include "server/experiments/report_html.h"
#include "server/experiments/report_text.h"
#include "server/experiments/report_words.h"
#include "server/experiments/storage/experiment_file.h"
#include "server/experiments/storage/merge.h"
#include "swaa/v1/experiment_service.grpc.pb.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/unary_call.h"

ABSL_FLAG(std::string, experiment_format, "text",
          "what the report is written as: text, json or html");
ABSL_FLAG(std::string, experiment_output, "", "the file to write; empty: the terminal");
ABSL_FLAG(std::string, experiment_revision, "",
          "the revision to report on, as `list` shows it; empty: the newest");

namespace swaa::tools {
namespace {

using Stub = v1::ExperimentService::Stub;
using Arguments = std::vector<std::string>;

constexpr int kWrongCommandLine = 2;
// A report reads all that was recorded.
constexpr absl::Duration kReportPatience = absl::Minutes(2);

// --data, as often as it was given.
std::vector<std::string>& DataFiles() {
  static auto* const kFiles = new std::vector<std::string>;
  return *kFiles;
}

std::string TimeText(const google::protobuf::Timestamp& time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", absl::FromUnixSeconds(time.seconds()),
                          absl::UTCTimeZone());
}

void PrintStatus(const v1::ExperimentStatus& status) {
  const v1::Experiment& experiment = status.experiment();
  std::printf("%s: %s, revision %016llx\n", experiment.id().c_str(),
              server::StateInWords(status.state()).c_str(),
              static_cast<unsigned long long>(status.revision()));
  for (const v1::ExperimentArm& arm : experiment.arms()) {
    std::printf("    %-16s recipe %s, weight %u%s\n", arm.name().c_str(), arm.recipe_name().c_str(),
                arm.has_weight() ? arm.weight() : 1,
                arm.name() == experiment.control_arm() ? ", control" : "");
  }
  for (const v1::StoppedArm& stop : status.stopped_arms()) {
    std::printf("    stopped: %s at %s: %s\n", stop.arm().empty() ? "all arms" : stop.arm().c_str(),
                TimeText(stop.stop_time()).c_str(), stop.reason().c_str());
  }
}

absl::Status List(const Arguments& arguments) {
  v1::ListExperimentsResponse listed;
  SWAA_RETURN_IF_ERROR(Ask(&Stub::ListExperiments, v1::ListExperimentsRequest(), &listed));
  if (listed.experiments().empty()) {
    std::printf("no experiments; `experiments:` in the server's configuration makes some\n");
  }
  for (const v1::ExperimentStatus& status : listed.experiments()) PrintStatus(status);
  return absl::OkStatus();
}

absl::Status Start(const Arguments& arguments) {
  v1::StartExperimentRequest request;
  request.set_experiment_id(arguments[0]);
  v1::StartExperimentResponse response;
  SWAA_RETURN_IF_ERROR(Ask(&Stub::StartExperiment, request, &response));
  PrintStatus(response.status());
  return absl::OkStatus();
}

absl::Status Stop(const Arguments& arguments) {
  v1::StopExperimentRequest request;
  request.set_experiment_id(arguments[0]);
  if (arguments.size() > 1) request.set_arm(arguments[1]);
  v1::StopExperimentResponse response;
  SWAA_RETURN_IF_ERROR(Ask(&Stub::StopExperiment, request, &response));
  PrintStatus(response.status());
  return absl::OkStatus();
}

absl::Status Assign(const Arguments& arguments) {
  for (const std::string& unit : arguments) {
    v1::GetAssignmentRequest request;
    request.set_experiment_unit_id(unit);
    v1::GetAssignmentResponse got;
    SWAA_RETURN_IF_ERROR(Ask(&Stub::GetAssignment, request, &got));
    std::string buckets;
    if (got.has_layer_bucket()) absl::StrAppend(&buckets, "; layer bucket ", got.layer_bucket());
    if (got.has_arm_bucket()) absl::StrAppend(&buckets, "; arm bucket ", got.arm_bucket());
    if (got.experiment_id().empty()) {
      std::printf("%s: in no experiment%s\n", unit.c_str(), buckets.c_str());
    } else {
      std::printf("%s: experiment %s, arm %s, recipe %s%s\n", unit.c_str(),
                  got.experiment_id().c_str(), got.arm().c_str(), got.recipe_name().c_str(),
                  buckets.c_str());
    }
  }
  return absl::OkStatus();
}

// --revision; 0: absent.
absl::StatusOr<uint64_t> RevisionFlag() {
  const std::string text = absl::GetFlag(FLAGS_experiment_revision);
  uint64_t revision = 0;
  if (text.empty() || (absl::SimpleHexAtoi(text, &revision) && revision != 0)) return revision;
  return absl::InvalidArgumentError(
      absl::StrCat("--revision: \"", text,
                   "\" is none; write one as `swaa experiment list` shows "
                   "it, such as 0123456789abcdef"));
}

// The one that was named, or the only one that there is.
absl::StatusOr<std::string> ChooseExperiment(const Arguments& arguments,
                                             const std::vector<std::string>& known) {
  if (!arguments.empty()) return arguments[0];
  if (known.size() == 1) return known[0];
  return absl::InvalidArgumentError(
      known.empty() ? "there is no experiment yet"
                    : absl::StrCat("which experiment? name one of ", absl::StrJoin(known, ", ")));
}

absl::StatusOr<v1::GetReportResponse> ReportOfFiles(const Arguments& arguments, uint64_t revision) {
  SWAA_ASSIGN_OR_RETURN(const server::ExperimentData data,
                        server::MergeExperimentFiles(DataFiles()));
  if (revision == 0) {
    SWAA_ASSIGN_OR_RETURN(const std::string experiment,
                          ChooseExperiment(arguments, server::ExperimentIds(data)));
    SWAA_ASSIGN_OR_RETURN(revision, server::NewestRevision(data, experiment));
  }
  const auto record = data.revisions.find(revision);
  if (!arguments.empty() && record != data.revisions.end() &&
      record->second.experiment_id != arguments[0]) {
    return absl::NotFoundError(absl::StrCat("--revision: it is one of experiment ",
                                            record->second.experiment_id, ", not of ",
                                            arguments[0]));
  }
  return server::MakeReport(data, revision, absl::ToUnixMillis(absl::Now()));
}

absl::StatusOr<v1::GetReportResponse> ReportOfServer(const Arguments& arguments,
                                                     uint64_t revision) {
  v1::ListExperimentsResponse listed;
  SWAA_RETURN_IF_ERROR(Ask(&Stub::ListExperiments, v1::ListExperimentsRequest(), &listed));
  std::vector<std::string> known;
  for (const v1::ExperimentStatus& status : listed.experiments()) {
    known.push_back(status.experiment().id());
  }
  v1::GetReportRequest request;
  SWAA_ASSIGN_OR_RETURN(*request.mutable_experiment_id(), ChooseExperiment(arguments, known));
  if (revision != 0) request.set_revision(revision);
  v1::GetReportResponse report;
  SWAA_RETURN_IF_ERROR(Ask(&Stub::GetReport, request, &report, kReportPatience));
  return report;
}

absl::StatusOr<std::string> Render(const v1::GetReportResponse& report) {
  const std::string format = absl::GetFlag(FLAGS_experiment_format);
  if (format == "text") return server::ReportText(report);
  if (format == "html") return server::ReportHtml(report);
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(report, &json, options);
  if (status.ok()) return json;
  return absl::InternalError(absl::StrCat("no JSON: ", std::string(status.message())));
}

absl::Status Report(const Arguments& arguments) {
  const std::string format = absl::GetFlag(FLAGS_experiment_format);
  if (format != "text" && format != "json" && format != "html") {
    return absl::InvalidArgumentError(
        absl::StrCat("--format: \"", format, "\" is none; there are text, json and html"));
  }
  SWAA_ASSIGN_OR_RETURN(const uint64_t revision, RevisionFlag());
  SWAA_ASSIGN_OR_RETURN(const v1::GetReportResponse report,
                        DataFiles().empty() ? ReportOfServer(arguments, revision)
                                            : ReportOfFiles(arguments, revision));
  SWAA_ASSIGN_OR_RETURN(const std::string text, Render(report));
  const std::string path = absl::GetFlag(FLAGS_experiment_output);
  if (path.empty()) {
    std::fputs(text.c_str(), stdout);
    return absl::OkStatus();
  }
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (file) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("--output: cannot write \"", path,
                                                  "\": ", std::strerror(errno),
                                                  "; name a place that can be written"));
}

absl::Status Export(const Arguments& arguments) {
  const std::string path = absl::GetFlag(FLAGS_experiment_output);
  if (DataFiles().size() != 1 || path.empty()) {
    return absl::InvalidArgumentError(
        "give --data FILE, a server's file on this host, and --output FILE, where the copy goes");
  }
  SWAA_ASSIGN_OR_RETURN(const server::OpenedExperimentFile file,
                        server::OpenExperimentFile(DataFiles()[0]));
  return server::ExportExperiments(file.database.get(), path);
}

struct Verb {
  const char* name;
  size_t min_arguments;
  size_t max_arguments;
  const char* wanted;
  absl::Status (*run)(const Arguments& arguments);
};

const Verb* FindVerb(const std::string& name) {
  static constexpr Verb kVerbs[] = {
      {"list", 0, 0, "list", &List},
      {"report", 0, 1, "report [EXPERIMENT]", &Report},
      {"export", 0, 0, "export --data FILE --output FILE", &Export},
      {"start", 1, 1, "start EXPERIMENT", &Start},
      {"stop", 1, 2, "stop EXPERIMENT [ARM]", &Stop},
      {"assign", 1, 1000, "assign UNIT...", &Assign},
  };
  for (const Verb& verb : kVerbs) {
    if (name == verb.name) return &verb;
  }
  return nullptr;
}

int Run(const Arguments& arguments) {
  const Verb* const verb = arguments.empty() ? nullptr : FindVerb(arguments[0]);
  if (verb == nullptr) {
    Fail("experiment",
         absl::InvalidArgumentError("say what: list, report, export, start, stop or assign"));
    return kWrongCommandLine;
  }
  const Arguments rest(arguments.begin() + 1, arguments.end());
  if (rest.size() < verb->min_arguments || rest.size() > verb->max_arguments) {
    Fail("experiment",
         absl::InvalidArgumentError(absl::StrCat("swaa experiment ", verb->wanted, " [flags]")));
    return kWrongCommandLine;
  }
  const absl::Status status = verb->run(rest);
  return status.ok() ? 0 : Fail("experiment", status);
}

}  // namespace

Command ExperimentCommand() {
  std::vector<std::string> flags = ConnectionFlagNames();
  flags.insert(flags.end(), {"format", "output", "revision"});
  return {"experiment",
          {.usage = "swaa experiment list | report [EXPERIMENT] | export | start EXPERIMENT | "
                    "stop EXPERIMENT [ARM] | assign UNIT... [flags]",
           .summary = "Shows, reports on, starts and stops experiments.",
           .flag_names = std::move(flags),
           .made_flags = {{"data",
                           "a server's file of experiments to report on instead of asking a "
                           "server; once for each replica, and all are added up",
                           "",
                           [](const std::string& path) {
                             DataFiles().push_back(path);
                             return absl::OkStatus();
                           }}},
           .flag_prefix = "experiment_"},
          &Run};
}

}  // namespace swaa::tools
