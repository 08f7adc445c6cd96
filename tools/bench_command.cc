// Tools: `swaa bench`.

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "tools/bench/load.h"
#include "tools/bench/monitor.h"
#include "tools/bench/options.h"
#include "tools/bench/outcomes.h"
#include "tools/bench/plots.h"
#include "tools/bench/report.h"
#include "tools/bench/server_facts.h"
#include "tools/bench/stream_pool.h"
#include "tools/client.h"
#include "tools/commands.h"

namespace swaa::tools {
namespace {

using bench::BenchOptions;

constexpr int kWrongCommandLine = 2;
constexpr int kInterrupted = 130;

absl::Status WriteFile(const std::string& flag, const std::string& path, const std::string& text,
                       std::ios::openmode mode = std::ios::trunc) {
  std::ofstream file(path, std::ios::out | std::ios::binary | mode);
  file << text;
  file.close();
  if (file) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("--", flag, ": cannot write \"", path,
                                                  "\": ", std::strerror(errno),
                                                  "; name a place that can be written"));
}

// Before a long run, not after it. What an earlier one wrote stays until this one has results.
absl::Status CheckOutputs(const BenchOptions& options) {
  if (!options.json_file.empty()) {
    SWAA_RETURN_IF_ERROR(WriteFile("json", options.json_file, "", std::ios::app));
  }
  if (options.plot_folder.empty()) return absl::OkStatus();
  std::error_code error;
  std::filesystem::create_directories(options.plot_folder, error);
  if (!error) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("--plot: cannot make the folder \"",
                                                  options.plot_folder, "\": ", error.message(),
                                                  "; name one that can be made"));
}

absl::StatusOr<bench::PromptMaker> MakePrompts(const BenchOptions& options,
                                               const bench::ServerFacts& facts,
                                               const std::shared_ptr<grpc::Channel>& channel) {
  bench::PromptOptions prompts{
      .tokens = options.prompt_tokens,
      .shared_prefix_tokens = options.shared_prefix_tokens,
      .shared_prefixes = options.shared_prefixes,
      .seed = options.seed,
      .vocab_size = facts.model.vocab_size(),
      .avoided_ids = {facts.model.eos_token_ids().begin(), facts.model.eos_token_ids().end()},
      .text = options.text_prompts};
  if (prompts.text) {
    SWAA_ASSIGN_OR_RETURN(prompts.tokens_per_word, bench::MeasureTokensPerWord(channel));
  }
  return bench::PromptMaker(std::move(prompts));
}

// The warm-up, if any, and the run.
bench::LoadResult RunAll(const BenchOptions& options, const bench::RequestMaker& maker,
                         const std::vector<std::shared_ptr<grpc::Channel>>& channels) {
  const auto warmups = static_cast<uint64_t>(options.warmup_requests);
  if (warmups > 0) {
    bench::LoadResult warmup = bench::RunLoad({.title = "warm-up",
                                               .num_requests = options.warmup_requests,
                                               .max_in_flight = options.max_in_flight},
                                              options, maker, channels);
    if (warmup.interrupted) return {.interrupted = true};
  }
  // Numbers of its own, so that no prompt of the warm-up comes again.
  const bench::LoadPlan plan{.title = "bench",
                             .num_requests = options.num_requests,
                             .duration = options.duration,
                             .request_rate = options.request_rate,
                             .max_in_flight = options.max_in_flight,
                             .first_index = warmups};
  return bench::InTurns(options) ? bench::RunInTurns(plan, options, maker, channels)
                                 : bench::RunLoad(plan, options, maker, channels);
}

absl::Status WriteOutputs(const BenchOptions& options, const bench::LoadResult& result,
                          const bench::Report& report) {
  if (!options.json_file.empty()) {
    SWAA_RETURN_IF_ERROR(
        WriteFile("json", options.json_file, ReportJson(report, options, result).dump(1) + "\n"));
  }
  if (options.plot_folder.empty()) return absl::OkStatus();
  SWAA_RETURN_IF_ERROR(WriteFile("plot", options.plot_folder + "/latency.vl.json",
                                 bench::LatencyPlot(result, options, report.model).dump(1) + "\n"));
  return WriteFile("plot", options.plot_folder + "/kv_memory.vl.json",
                   bench::KvMemoryPlot(result, options, report.model).dump(1) + "\n");
}

// The exit code.
absl::StatusOr<int> RunBench(BenchOptions options) {
  SWAA_RETURN_IF_ERROR(CheckOutputs(options));
  const auto channels = bench::MakeChannels(options.connection, options.connections, options.retry);
  SWAA_ASSIGN_OR_RETURN(const bench::ServerFacts facts,
                        bench::AskServer(channels[0], options.connection.address));
  SWAA_RETURN_IF_ERROR(bench::Settle(facts, &options));
  SWAA_ASSIGN_OR_RETURN(bench::PromptMaker prompts, MakePrompts(options, facts, channels[0]));
  const bench::RequestMaker maker(options, std::move(prompts));
  const bench::LoadResult result = RunAll(options, maker, channels);
  bench::Report report = bench::MakeReport(options, result);
  report.model = facts.model.served_model_name();
  std::fputs(bench::ReportTable(report).c_str(), stdout);
  SWAA_RETURN_IF_ERROR(WriteOutputs(options, result, report));
  if (result.interrupted) return kInterrupted;
  if (!options.outcome.metric.empty()) {
    SWAA_ASSIGN_OR_RETURN(
        const int64_t recorded,
        bench::RecordPlantedOutcomes(options.outcome, options.seed, result.records, channels[0]));
    std::printf("outcomes recorded as %s: %lld\n", options.outcome.metric.c_str(),
                static_cast<long long>(recorded));
  }
  if (report.overall.completed > 0) return 0;
  return absl::UnavailableError("no request was completed; the table says why");
}

int Bench(const std::vector<std::string>& arguments) {
  if (!arguments.empty()) {
    Fail("bench",
         absl::InvalidArgumentError(absl::StrCat("\"", arguments[0],
                                                 "\" is no flag; `swaa bench --help` lists "
                                                 "them")));
    return kWrongCommandLine;
  }
  absl::StatusOr<BenchOptions> options = bench::BenchOptionsFromFlags();
  if (!options.ok()) {
    Fail("bench", options.status());
    return kWrongCommandLine;
  }
  bench::Monitor::BlockSignals();
  absl::StatusOr<int> code = RunBench(*std::move(options));
  return code.ok() ? *code : Fail("bench", code.status());
}

}  // namespace

Command BenchCommand() {
  return {"bench",
          {.usage = "swaa bench [flags]",
           .summary = "Puts a server under load and reports latency, throughput, memory and "
                      "speed-up by recipe.",
           .flag_names = bench::BenchFlagNames(),
           .flag_prefix = bench::BenchFlagPrefix()},
          &Bench};
}

}  // namespace swaa::tools
