// Tools: `swaa generate`.

#include <cstdio>
#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "base/status_macros.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/delta_printer.h"

ABSL_FLAG(std::string, prompt_file, "", "read the prompt from this file instead");
ABSL_FLAG(bool, chat, false, "send the prompt as a user's message in the model's chat format");
ABSL_FLAG(absl::optional<uint32_t>, logprobs, absl::nullopt,
          "print each token's log-probability and this many alternatives");
ABSL_FLAG(bool, json, false, "print one JSON object instead of text");
ABSL_FLAG(bool, token_timing, false, "print when each token came");

namespace swaa::tools {
namespace {

using Json = nlohmann::ordered_json;

absl::StatusOr<std::string> ReadPrompt(const std::vector<std::string>& arguments) {
  const std::string path = absl::GetFlag(FLAGS_prompt_file);
  if (path.empty() == (arguments.size() != 1)) {
    return absl::InvalidArgumentError(
        "give the prompt as one argument, in quotes, or by --prompt-file; not both, not neither");
  }
  if (path.empty()) return arguments[0];
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    return absl::NotFoundError(
        absl::StrCat("--prompt-file: cannot read ", path, ", or it is empty"));
  }
  return text.str();
}

absl::StatusOr<v1::GenerateRequest> MakeRequest(const std::vector<std::string>& arguments) {
  SWAA_ASSIGN_OR_RETURN(std::string prompt, ReadPrompt(arguments));
  SWAA_ASSIGN_OR_RETURN(v1::GenerateRequest request, RequestFromFlags());
  if (absl::GetFlag(FLAGS_chat)) {
    v1::ChatMessage* message = request.mutable_chat()->add_messages();
    message->set_role(v1::ROLE_USER);
    message->set_content(prompt);
  } else {
    request.set_prompt(prompt);
  }
  if (auto logprobs = absl::GetFlag(FLAGS_logprobs)) {
    request.mutable_response_options()->set_output_logprobs(*logprobs);
  }
  return request;
}

Json TokenJson(const Generation& generation, size_t index) {
  const v1::TokenInfo& token = generation.tokens[index];
  Json json{{"id", token.token_id()}};
  if (token.has_logprob()) json["logprob"] = token.logprob();
  for (const v1::TokenLogprob& top : token.top_logprobs()) {
    json["top"].push_back({{"id", top.token_id()}, {"logprob", top.logprob()}});
  }
  if (absl::GetFlag(FLAGS_token_timing)) {
    json["ms"] = absl::ToDoubleMilliseconds(generation.token_times[index]);
  }
  return json;
}

void PrintJson(const v1::GenerateRequest& request, const Generation& generation) {
  const v1::Finished& finished = generation.finished;
  const v1::RequestStats& stats = finished.stats();
  Json json;
  json["request_id"] = generation.accepted.request_id();
  json["model"] = generation.accepted.model();
  json["recipe"] = RecipeNameOf(request, generation);
  json["text"] = generation.text;
  json["finish_reason"] = v1::FinishReason_Name(finished.finish_reason());
  json["prompt_tokens"] = finished.usage().prompt_tokens();
  json["completion_tokens"] = finished.usage().completion_tokens();
  json["reasoning_tokens"] = finished.usage().reasoning_tokens();
  json["cached_prompt_tokens"] = finished.usage().cached_prompt_tokens();
  json["queue_ms"] = stats.queue_time_us() / 1e3;
  json["prefill_ms"] = stats.prefill_time_us() / 1e3;
  json["decode_ms"] = stats.decode_time_us() / 1e3;
  json["time_to_first_token_ms"] = stats.time_to_first_token_us() / 1e3;
  json["peak_kv_cache_bytes"] = stats.peak_kv_cache_bytes();
  json["full_attention_kv_cache_bytes"] = stats.full_attention_kv_cache_bytes();
  json["attended_keys"] = stats.attended_keys();
  json["full_attention_attended_keys"] = stats.full_attention_attended_keys();
  json["tokens"] = Json::array();
  for (size_t i = 0; i < generation.tokens.size(); ++i) {
    json["tokens"].push_back(TokenJson(generation, i));
  }
  std::printf("%s\n", json.dump().c_str());
}

// Per token, where a person asked for it.
void PrintTokens(const Generation& generation) {
  if (!absl::GetFlag(FLAGS_logprobs).has_value() && !absl::GetFlag(FLAGS_token_timing)) return;
  for (size_t i = 0; i < generation.tokens.size(); ++i) {
    std::fprintf(stderr, "%s\n", TokenJson(generation, i).dump().c_str());
  }
}

absl::StatusOr<Generation> Answer(const Connection& connection, const v1::GenerateRequest& request,
                                  bool print) {
  DeltaPrinter printer;
  return Client(connection).Generate(request, [&](const v1::TokenDelta& delta) {
    if (print) printer.Print(delta);
  });
}

int Generate(const std::vector<std::string>& arguments) {
  absl::StatusOr<v1::GenerateRequest> request = MakeRequest(arguments);
  if (!request.ok()) {
    Fail("generate", request.status());
    return 2;
  }
  const absl::StatusOr<Connection> connection = ConnectionFromFlags();
  if (!connection.ok()) {
    Fail("generate", connection.status());
    return 2;
  }
  const bool json = absl::GetFlag(FLAGS_json);
  const absl::StatusOr<Generation> generation = Answer(*connection, *request, /*print=*/!json);
  if (!json) std::printf("\n");
  if (!generation.ok()) return Fail("generate", generation.status());
  if (json) {
    PrintJson(*request, *generation);
  } else {
    PrintTokens(*generation);
    std::fprintf(stderr, "%s\n", CostLine(*request, *generation).c_str());
  }
  return 0;
}

}  // namespace

Command GenerateCommand() {
  std::vector<std::string> flags = ClientFlagNames();
  flags.insert(flags.end(), {"prompt_file", "chat", "logprobs", "json", "token_timing"});
  return {"generate",
          {.usage = "swaa generate \"PROMPT\" [flags]",
           .summary = "Sends a prompt to a server, streams the answer, and says what it cost.",
           .flag_names = std::move(flags)},
          &Generate};
}

}  // namespace swaa::tools
