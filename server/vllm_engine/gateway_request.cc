// A gateway's request as requests of swaa.v1.

#include "server/vllm_engine/gateway_request.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "engine/cache/content_hash.h"
#include "server/generate/errors.h"
#include "server/generate/request_validation.h"

namespace swaa::server {
namespace {

constexpr char kUnitPrefix[] = "unit=";
// What a gateway adds to a header's value: "-" and a UUID.
constexpr size_t kUuidBytes = 37;
// Of a long id, what stays of it in ours.
constexpr size_t kKeptIdBytes = 96;

absl::Status Unsupported(const std::string& field, const std::string& way_out) {
  return MakeError(absl::StatusCode::kInvalidArgument, "not_supported",
                   absl::StrCat(field, ": this server does not support it; ", way_out));
}

const char* ConstraintName(vllm_pb::SamplingParams::ConstraintCase constraint) {
  switch (constraint) {
    case vllm_pb::SamplingParams::kJsonSchema:
      return "json_schema";
    case vllm_pb::SamplingParams::kRegex:
      return "regex";
    case vllm_pb::SamplingParams::kGrammar:
      return "grammar";
    case vllm_pb::SamplingParams::kStructuralTag:
      return "structural_tag";
    case vllm_pb::SamplingParams::kJsonObject:
      return "json_object";
    case vllm_pb::SamplingParams::kChoice:
      return "choice";
    case vllm_pb::SamplingParams::CONSTRAINT_NOT_SET:
      return nullptr;
  }
  return nullptr;
}

absl::Status CheckSupported(const vllm_pb::GenerateRequest& request) {
  const vllm_pb::SamplingParams& params = request.sampling_params();
  if (const char* name = ConstraintName(params.constraint_case()); name != nullptr) {
    return Unsupported(absl::StrCat("sampling_params.", name),
                       "it constrains no output, so leave out response_format, and tool_choice "
                       "other than auto and none");
  }
  if (params.has_truncate_prompt_tokens()) {
    return Unsupported("sampling_params.truncate_prompt_tokens", "shorten the prompt yourself");
  }
  if (request.has_mm_inputs() || request.has_media_refs() || request.extra_mm_inputs_size() > 0) {
    return Unsupported("mm_inputs, media_refs", "send text alone");
  }
  if (request.has_kv_transfer_params() || request.has_kv_transfer_params_json()) {
    return Unsupported("kv_transfer_params", "do not divide prefill from decode");
  }
  if (request.data_parallel_rank() != 0) {
    return Unsupported(absl::StrCat("data_parallel_rank ", request.data_parallel_rank()),
                       "it has one rank, 0");
  }
  return absl::OkStatus();
}

// Alternatives as swaa.v1 counts them.
absl::StatusOr<std::optional<uint32_t>> Alternatives(bool present, int32_t value,
                                                     const std::string& field) {
  if (!present) return std::nullopt;
  if (value < 0) {
    return Unsupported(absl::StrCat("sampling_params.", field, " ", value),
                       absl::StrCat("ask for at most ", kMaxLogprobAlternatives));
  }
  return static_cast<uint32_t>(value);
}

void TranslateSampling(const vllm_pb::SamplingParams& from, v1::SamplingParams* to) {
  if (from.has_temperature()) to->set_temperature(from.temperature());
  to->set_top_p(from.top_p() == 0 ? 1 : from.top_p());
  to->set_top_k(from.top_k());
  to->set_min_p(from.min_p());
  to->set_frequency_penalty(from.frequency_penalty());
  to->set_presence_penalty(from.presence_penalty());
  to->set_repetition_penalty(from.repetition_penalty() == 0 ? 1 : from.repetition_penalty());
  for (const auto& [token, bias] : from.logit_bias()) {
    (*to->mutable_logit_bias())[static_cast<uint32_t>(token)] = bias;
  }
}

void TranslateStopping(const vllm_pb::SamplingParams& from, v1::StoppingOptions* to) {
  if (from.has_max_tokens()) to->set_max_tokens(from.max_tokens());
  if (from.min_tokens() > 0) to->set_min_tokens(from.min_tokens());
  *to->mutable_stop_strings() = from.stop();
  *to->mutable_stop_token_ids() = from.stop_token_ids();
  to->set_ignore_eos(from.ignore_eos());
  to->set_include_stop_in_output(from.include_stop_str_in_output());
}

// A gateway's ids may be longer than ours, and one of them is all samples'.
std::string SampleId(const std::string& id, uint32_t index, uint32_t samples) {
  if (id.empty()) return "";
  const std::string suffix = samples == 1 ? "" : absl::StrCat("#", index);
  if (id.size() + suffix.size() <= kMaxRequestIdBytes) return absl::StrCat(id, suffix);
  ContentHasher hasher({});
  hasher.AddBytes(id);
  return absl::StrCat(id.substr(0, kKeptIdBytes), "~",
                      absl::Hex(hasher.Finish().low, absl::kZeroPad16), suffix);
}

// As swaa.v1 has it for chat input, which this is, though it comes as tokens.
void AddTurnEnds(const ServingModel& model, v1::StoppingOptions* options, GatewayRequest* out) {
  if (options->ignore_eos() || model.chat_format == nullptr) return;
  const auto& asked = options->stop_token_ids();
  for (const int32_t id : model.chat_format->turn_end_ids()) {
    if (std::find(asked.begin(), asked.end(), static_cast<uint32_t>(id)) != asked.end()) continue;
    out->silent_stops.push_back(id);
  }
  for (const int32_t id : out->silent_stops) {
    options->add_stop_token_ids(static_cast<uint32_t>(id));
  }
}

absl::Status ReadPrompt(vllm_pb::GenerateRequest* request, const ServingModel& model,
                        const RecipeTail& tail, v1::GenerateRequest* sample, GatewayRequest* out) {
  if (request->has_text()) {
    // Before it is copied for each sample; so below.
    SWAA_RETURN_IF_ERROR(model.prompt_bound.Check(request->text(), "text"));
    sample->set_prompt(std::move(*request->mutable_text()));
  } else if (request->has_tokenized()) {
    RecipeTail::TokenIds* ids = request->mutable_tokenized()->mutable_input_ids();
    SWAA_ASSIGN_OR_RETURN(const bool is_chat, tail.Cut(ids, sample));
    SWAA_RETURN_IF_ERROR(model.prompt_bound.CheckTokens(ids->size(), "tokenized.input_ids"));
    sample->mutable_token_ids()->mutable_ids()->Swap(ids);
    if (is_chat) AddTurnEnds(model, sample->mutable_stopping_options(), out);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GatewayRequest> ReadGatewayRequest(vllm_pb::GenerateRequest* request,
                                                  const std::string& experiment_unit,
                                                  const ServingModel& model,
                                                  const RecipeTail& tail) {
  SWAA_RETURN_IF_ERROR(CheckSupported(*request));
  const vllm_pb::SamplingParams& params = request->sampling_params();
  const uint32_t count = std::max<uint32_t>(params.n(), 1);
  if (count > kMaxSamples) {
    return MakeError(absl::StatusCode::kInvalidArgument, "limit_exceeded",
                     absl::StrCat("sampling_params.n: ", count, " samples; at most ", kMaxSamples));
  }
  GatewayRequest out;
  out.id = request->request_id();
  out.stream = request->stream();
  v1::GenerateRequest sample;
  TranslateSampling(params, sample.mutable_sampling_params());
  TranslateStopping(params, sample.mutable_stopping_options());
  v1::ResponseOptions* options = sample.mutable_response_options();
  options->set_tokens_per_delta(out.stream ? 1 : 0);
  SWAA_ASSIGN_OR_RETURN(const auto of_output,
                        Alternatives(params.has_logprobs(), params.logprobs(), "logprobs"));
  if (of_output.has_value()) options->set_output_logprobs(*of_output);
  SWAA_ASSIGN_OR_RETURN(
      const auto of_prompt,
      Alternatives(params.has_prompt_logprobs(), params.prompt_logprobs(), "prompt_logprobs"));
  if (of_prompt.has_value()) options->set_prompt_logprobs(*of_prompt);
  out.prompt_logprobs = of_prompt.has_value();
  sample.set_experiment_unit_id(experiment_unit.empty() ? UnitOfRequestId(out.id)
                                                        : experiment_unit);
  SWAA_RETURN_IF_ERROR(ReadPrompt(request, model, tail, &sample, &out));
  for (uint32_t index = 0; index < count; ++index) {
    v1::GenerateRequest& one = out.samples.emplace_back(sample);
    one.set_request_id(SampleId(out.id, index, count));
    if (params.has_seed()) {
      one.mutable_sampling_params()->set_seed(uint64_t{static_cast<uint32_t>(params.seed())} +
                                              index);
    }
  }
  return out;
}

std::string UnitOfRequestId(const std::string& id) {
  const size_t prefix = sizeof(kUnitPrefix) - 1;
  if (id.compare(0, prefix, kUnitPrefix) != 0 || id.size() <= prefix + kUuidBytes) return "";
  if (id[id.size() - kUuidBytes] != '-') return "";
  return id.substr(prefix, id.size() - kUuidBytes - prefix);
}

std::string UnitOfTraceState(const std::string& header) {
  for (absl::string_view member : absl::StrSplit(header, ',')) {
    member = absl::StripAsciiWhitespace(member);
    if (absl::ConsumePrefix(&member, "swaa=")) return std::string(member);
  }
  return "";
}

}  // namespace swaa::server
