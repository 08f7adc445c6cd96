// Tools: a thin client of the server, shared by the subcommands that talk to one.

#include "tools/client.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "tools/recipe_label.h"

namespace swaa::tools {
namespace {

constexpr int kRetryBufferBytes = 16 << 20;
constexpr double kMegabyte = 1e6;

// In the unit that fits.
std::string Time(double seconds) {
  return seconds < 1 ? absl::StrFormat("%.0f ms", 1e3 * seconds)
                     : absl::StrFormat("%.1f s", seconds);
}

}  // namespace

absl::Status ToStatus(const grpc::Status& status, const grpc::ClientContext& call) {
  if (status.ok()) return absl::OkStatus();
  std::string message = status.error_message();
  const auto& trailers = call.GetServerTrailingMetadata();
  if (auto reason = trailers.find("swaa-error-reason"); reason != trailers.end()) {
    absl::StrAppend(&message, " (", std::string(reason->second.data(), reason->second.size()), ")");
  } else if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    // Not a server's word: none was reached.
    absl::StrAppend(&message, "; no server answers at ", AddressFlag(),
                    ": `swaa serve --model FILE` starts one, --address names another");
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), message);
}

namespace {

double Ratio(double part, double whole) { return whole > 0 ? part / whole : 0; }

absl::Status BadLayers(const std::string& text) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text,
                   "\" names no layers; write odd, even, all, a list such as 1,3,5, or "
                   "first:step such as 1:4"));
}

}  // namespace

Client::Client(const Connection& connection) {
  grpc::ChannelArguments arguments;
  // Beyond gRPC's own 256 KiB a long prompt would lose its retries.
  arguments.SetInt(GRPC_ARG_PER_RPC_RETRY_BUFFER_SIZE, kRetryBufferBytes);
  arguments.SetMaxSendMessageSize(kRetryBufferBytes);
  stub_ = v1::InferenceService::NewStub(OpenChannel(connection, arguments));
}

absl::StatusOr<Generation> Client::Generate(
    const v1::GenerateRequest& request,
    const std::function<void(const v1::TokenDelta&)>& on_delta) {
  grpc::ClientContext call;
  const absl::Time start = absl::Now();
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader =
      stub_->Generate(&call, request);
  Generation generation;
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    switch (response.event_case()) {
      case v1::GenerateResponse::kAccepted:
        generation.accepted = response.accepted();
        break;
      case v1::GenerateResponse::kTokenDelta:
        generation.text += response.token_delta().text();
        for (const v1::TokenInfo& token : response.token_delta().tokens()) {
          generation.tokens.push_back(token);
          generation.token_times.push_back(absl::Now() - start);
        }
        on_delta(response.token_delta());
        break;
      case v1::GenerateResponse::kFinished:
        generation.finished = response.finished();
        break;
      case v1::GenerateResponse::kPromptLogprobs:
      case v1::GenerateResponse::EVENT_NOT_SET:
        break;
    }
  }
  if (grpc::Status status = reader->Finish(); !status.ok()) return ToStatus(status, call);
  return generation;
}

absl::StatusOr<v1::LayerSet> ParseLayers(const std::string& text) {
  v1::LayerSet layers;
  if (text == "all") {
    layers.set_all(true);
    return layers;
  }
  if (text == "odd" || text == "even") {
    layers.mutable_stride()->set_first(text == "odd" ? 1 : 0);
    layers.mutable_stride()->set_step(2);
    return layers;
  }
  const bool stride = text.find(':') != std::string::npos;
  std::vector<uint32_t> numbers;
  for (const std::string& part :
       std::vector<std::string>(absl::StrSplit(text, stride ? ':' : ','))) {
    uint32_t number = 0;
    if (!absl::SimpleAtoi(part, &number)) return BadLayers(text);
    numbers.push_back(number);
  }
  if (stride) {
    if (numbers.size() != 2) return BadLayers(text);
    layers.mutable_stride()->set_first(numbers[0]);
    layers.mutable_stride()->set_step(numbers[1]);
  } else {
    for (uint32_t number : numbers) layers.mutable_layers()->add_indices(number);
  }
  return layers;
}

std::string RecipeNameOf(const v1::GenerateRequest& request, const Generation& generation) {
  return request.has_recipe() ? RecipeLabel(request.recipe()) : generation.accepted.recipe_name();
}

std::string CostLine(const v1::GenerateRequest& request, const Generation& generation) {
  const v1::Usage& usage = generation.finished.usage();
  const v1::RequestStats& stats = generation.finished.stats();
  const double decode_seconds = static_cast<double>(stats.decode_time_us()) / 1e6;
  const double decoded = std::max(0.0, static_cast<double>(usage.completion_tokens()) - 1);
  const double kv = static_cast<double>(stats.peak_kv_cache_bytes());
  const double full_kv = static_cast<double>(stats.full_attention_kv_cache_bytes());
  return absl::StrFormat(
      "recipe %s: %d prompt + %d output tokens; first token after %s, then %.1f tokens/s; KV peak "
      "%.1f MB, full attention %.1f MB; keys attended %.1f %% of full attention's",
      RecipeNameOf(request, generation).c_str(), usage.prompt_tokens(), usage.completion_tokens(),
      Time(static_cast<double>(stats.time_to_first_token_us()) / 1e6).c_str(),
      Ratio(decoded, decode_seconds), kv / kMegabyte, full_kv / kMegabyte,
      100 * Ratio(static_cast<double>(stats.attended_keys()),
                  static_cast<double>(stats.full_attention_attended_keys())));
}

int Fail(const std::string& command, const absl::Status& status) {
  std::fprintf(stderr, "swaa %s: %s: %s\n", command.c_str(),
               absl::StatusCodeToString(status.code()).c_str(),
               std::string(status.message()).c_str());
  return 1;
}

}  // namespace swaa::tools
