// Every refusal of a Generate request that needs neither the tokenizer's work nor the
// engine.

#include "server/generate/request_validation.h"

#include <algorithm>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"

namespace swaa::server {
namespace {

absl::Status Invalid(const std::string& reason, const std::string& message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason, message);
}

// At most `most` of something.
absl::Status CheckCount(const std::string& field, int count, int most, const std::string& what,
                        const std::string& way_out) {
  if (count <= most) return absl::OkStatus();
  return Invalid("limit_exceeded",
                 absl::StrCat(field, ": ", count, " ", what, "; at most ", most, way_out));
}

// What has no other bound than the message's.
absl::Status CheckNames(const v1::GenerateRequest& request) {
  SWAA_RETURN_IF_ERROR(CheckBytes("model", request.model(), kMaxNameBytes));
  SWAA_RETURN_IF_ERROR(CheckBytes("cache_salt", request.cache_salt(), kMaxCacheSaltBytes));
  return CheckBytes("experiment_unit_id", request.experiment_unit_id(), kMaxNameBytes);
}

absl::Status CheckPriority(int32_t priority, int32_t most) {
  if (priority >= -most && priority <= most) return absl::OkStatus();
  return Invalid("limit_exceeded", absl::StrCat("priority: ", priority, " is out of range; from ",
                                                -most, " to ", most, " on this server"));
}

// Ids below the vocabulary's size, as the engine's type.
template <typename Ids>
absl::StatusOr<std::vector<int32_t>> ValidTokens(const Ids& ids, int32_t vocab_size,
                                                 const std::string& field) {
  std::vector<int32_t> tokens;
  tokens.reserve(ids.size());
  for (uint32_t id : ids) {
    if (id >= static_cast<uint32_t>(vocab_size)) {
      return Invalid("token_out_of_vocabulary",
                     absl::StrCat(field, "[", tokens.size(), "]: ", id,
                                  " is beyond the vocabulary; ids go from 0 to ", vocab_size - 1));
    }
    tokens.push_back(static_cast<int32_t>(id));
  }
  return tokens;
}

absl::StatusOr<ChatRole> RoleFromProto(v1::Role role, const std::string& field) {
  switch (role) {
    case v1::ROLE_SYSTEM:
      return ChatRole::kSystem;
    case v1::ROLE_USER:
      return ChatRole::kUser;
    case v1::ROLE_ASSISTANT:
      return ChatRole::kAssistant;
    case v1::ROLE_TOOL:
      return ChatRole::kTool;
    case v1::ROLE_UNSPECIFIED:
      return Invalid("role_unspecified",
                     absl::StrCat(field,
                                  ": ROLE_UNSPECIFIED; say who speaks: 1 (system), 2 (user), "
                                  "3 (assistant) or 4 (tool)"));
    default:
      return Invalid(
          "unknown_enum_value",
          absl::StrCat(
              field, ": ", static_cast<int>(role),
              " is no value of Role; take 1 (system), 2 (user), 3 (assistant) or 4 (tool)"));
  }
}

absl::StatusOr<Conversation> ValidChat(const v1::ChatInput& chat, const ServingModel& model) {
  if (model.chat_format == nullptr) {
    return Invalid("chat_not_supported",
                   absl::StrCat("chat: ", model.no_chat_reason, "; send prompt or token_ids"));
  }
  if (chat.messages().empty()) {
    return Invalid("empty_input", "chat.messages: empty; send at least one message");
  }
  SWAA_RETURN_IF_ERROR(CheckCount("chat.messages", chat.messages_size(), kMaxChatMessages,
                                  "messages", "; join or drop some"));
  Conversation conversation;
  for (int i = 0; i < chat.messages_size(); ++i) {
    const v1::ChatMessage& message = chat.messages(i);
    SWAA_ASSIGN_OR_RETURN(
        ChatRole role, RoleFromProto(message.role(), absl::StrCat("chat.messages[", i, "].role")));
    SWAA_RETURN_IF_ERROR(model.prompt_bound.Check(message.content(),
                                                  absl::StrCat("chat.messages[", i, "].content")));
    conversation.messages.push_back({role, message.content(), message.fields_json()});
  }
  conversation.tools_json = chat.tools_json();
  conversation.continue_final_message = chat.continue_final_message();
  return conversation;
}

absl::Status ReadInput(const v1::GenerateRequest& request, const ServingModel& model,
                       ValidRequest* out) {
  switch (request.input_case()) {
    case v1::GenerateRequest::kPrompt:
      if (request.prompt().empty()) {
        return Invalid("empty_input", "prompt: \"\" is empty; send at least one character");
      }
      SWAA_RETURN_IF_ERROR(model.prompt_bound.Check(request.prompt(), "prompt"));
      out->input = request.prompt();
      return absl::OkStatus();
    case v1::GenerateRequest::kTokenIds: {
      if (request.token_ids().ids().empty()) {
        return Invalid("empty_input", "token_ids.ids: empty; send at least one token id");
      }
      SWAA_RETURN_IF_ERROR(
          model.prompt_bound.CheckTokens(request.token_ids().ids_size(), "token_ids.ids"));
      SWAA_ASSIGN_OR_RETURN(
          out->input,
          ValidTokens(request.token_ids().ids(), model.tokenizer->vocab_size(), "token_ids.ids"));
      return absl::OkStatus();
    }
    case v1::GenerateRequest::kChat: {
      SWAA_ASSIGN_OR_RETURN(out->input, ValidChat(request.chat(), model));
      out->stopping.end_token_ids = model.chat_format->turn_end_ids();
      return absl::OkStatus();
    }
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return Invalid("no_input", "input: not set; send one of prompt, token_ids and chat");
}

uint64_t RandomSeed() {
  thread_local absl::BitGen generator;
  return absl::Uniform<uint64_t>(generator);
}

absl::Status ReadSampling(const v1::SamplingParams& proto, const ServingModel& model,
                          SamplingParams* out) {
  const GenerationDefaults& defaults = model.defaults;
  out->temperature =
      proto.has_temperature() ? proto.temperature() : defaults.temperature.value_or(1);
  out->top_p = proto.has_top_p() ? proto.top_p() : defaults.top_p.value_or(1);
  out->top_k = proto.has_top_k() ? proto.top_k() : defaults.top_k.value_or(0);
  out->min_p = proto.has_min_p() ? proto.min_p() : defaults.min_p.value_or(0);
  out->frequency_penalty = proto.frequency_penalty();
  out->presence_penalty = proto.presence_penalty();
  out->repetition_penalty = proto.has_repetition_penalty()
                                ? proto.repetition_penalty()
                                : defaults.repetition_penalty.value_or(1);
  out->seed = proto.has_seed() ? proto.seed() : RandomSeed();
  SWAA_RETURN_IF_ERROR(CheckCount("sampling_params.logit_bias",
                                  static_cast<int>(proto.logit_bias().size()), kMaxLogitBiases,
                                  "entries", "; bias fewer tokens"));
  out->logit_bias.assign(proto.logit_bias().begin(), proto.logit_bias().end());
  std::sort(out->logit_bias.begin(), out->logit_bias.end());
  return WithReason(Validate(*out, model.tokenizer->vocab_size()), "invalid_sampling_params");
}

absl::Status ReadStopping(const v1::StoppingOptions& proto, const ServingModel& model,
                          StoppingOptions* out) {
  if (proto.has_max_tokens()) out->max_tokens = proto.max_tokens();
  out->min_tokens = proto.min_tokens();
  SWAA_RETURN_IF_ERROR(CheckCount("stopping_options.stop_strings", proto.stop_strings_size(),
                                  kMaxStopStrings, "strings", "; stop at fewer"));
  for (int i = 0; i < proto.stop_strings_size(); ++i) {
    SWAA_RETURN_IF_ERROR(CheckBytes(absl::StrCat("stopping_options.stop_strings[", i, "]"),
                                    proto.stop_strings(i), kMaxStopStringBytes));
  }
  SWAA_RETURN_IF_ERROR(CheckCount("stopping_options.stop_token_ids", proto.stop_token_ids_size(),
                                  kMaxStopTokens, "tokens", "; stop at fewer"));
  out->stop_strings = {proto.stop_strings().begin(), proto.stop_strings().end()};
  SWAA_ASSIGN_OR_RETURN(out->stop_token_ids,
                        ValidTokens(proto.stop_token_ids(), model.tokenizer->vocab_size(),
                                    "stopping_options.stop_token_ids"));
  // The text of a special token is not written, so no string would match it: the token does.
  for (const std::string& text : out->stop_strings) {
    const std::optional<int32_t> id = model.tokenizer->SpecialTokenId(text);
    if (id.has_value() && model.tokenizer->IsSpecial(*id)) out->stop_token_ids.push_back(*id);
  }
  out->ignore_eos = proto.ignore_eos();
  out->include_stop_in_output = proto.include_stop_in_output();
  return WithReason(Validate(*out, model.tokenizer->vocab_size()), "invalid_stopping_options");
}

absl::Status ReadAlternatives(bool present, uint32_t value, const std::string& field,
                              std::optional<int32_t>* out) {
  if (!present) return absl::OkStatus();
  if (value > kMaxLogprobAlternatives) {
    return Invalid("too_many_logprobs",
                   absl::StrCat("response_options.", field, ": ", value, " alternatives; at most ",
                                kMaxLogprobAlternatives, " are given"));
  }
  *out = static_cast<int32_t>(value);
  return absl::OkStatus();
}

absl::Status ReadResponseOptions(const v1::ResponseOptions& proto, ValidRequest* out) {
  SWAA_RETURN_IF_ERROR(ReadAlternatives(proto.has_output_logprobs(), proto.output_logprobs(),
                                        "output_logprobs", &out->output_logprobs));
  SWAA_RETURN_IF_ERROR(ReadAlternatives(proto.has_prompt_logprobs(), proto.prompt_logprobs(),
                                        "prompt_logprobs", &out->prompt_logprobs));
  out->tokens_per_delta = proto.has_tokens_per_delta() ? proto.tokens_per_delta() : 1;
  return absl::OkStatus();
}

absl::Status ReadForcedOutput(const v1::GenerateRequest& request, const ServingModel& model,
                              ValidRequest* out) {
  SWAA_ASSIGN_OR_RETURN(out->forced_output,
                        ValidTokens(request.forced_output_ids().ids(),
                                    model.tokenizer->vocab_size(), "forced_output_ids.ids"));
  const std::optional<uint32_t>& max_tokens = out->stopping.max_tokens;
  if (max_tokens.has_value() && out->forced_output.size() > *max_tokens) {
    return Invalid("forced_output_too_long",
                   absl::StrCat("forced_output_ids.ids: ", out->forced_output.size(),
                                " tokens exceed stopping_options.max_tokens, ", *max_tokens,
                                "; they count towards it: raise it or force fewer"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckBytes(const std::string& field, const std::string& value, int most) {
  return CheckCount(field, static_cast<int>(value.size()), most, "bytes",
                    absl::StrCat("; it begins ", Quoted(value.substr(0, 32))));
}

absl::Status ValidateRequestId(const std::string& id) {
  if (id.size() > kMaxRequestIdBytes) {
    return Invalid("invalid_request_id",
                   absl::StrCat("request_id: ", Quoted(id), " has ", id.size(), " bytes; at most ",
                                kMaxRequestIdBytes));
  }
  for (size_t i = 0; i < id.size(); ++i) {
    if (id[i] < 0x20 || id[i] > 0x7e) {
      return Invalid("invalid_request_id",
                     absl::StrCat("request_id: ", Quoted(id), " is not printable ASCII at byte ", i,
                                  "; use letters, digits and punctuation"));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateModelName(const std::string& name, const ServingModel& model) {
  if (name.empty() || name == model.served_name || model.more_names.Find(name) != nullptr) {
    return absl::OkStatus();
  }
  const std::string more = model.more_names.Text();
  return MakeError(absl::StatusCode::kNotFound, "model_not_found",
                   absl::StrCat("model: ", Quoted(name), " is not served here; this server has ",
                                Quoted(model.served_name), ", also when the field is empty",
                                more.empty() ? "" : absl::StrCat("; and ", more)));
}

absl::StatusOr<ValidRequest> ValidateRequest(const v1::GenerateRequest& request,
                                             const ServingModel& model) {
  SWAA_RETURN_IF_ERROR(ValidateRequestId(request.request_id()));
  SWAA_RETURN_IF_ERROR(CheckNames(request));
  SWAA_RETURN_IF_ERROR(ValidateModelName(request.model(), model));
  SWAA_RETURN_IF_ERROR(CheckPriority(request.priority(), model.max_priority));
  ValidRequest valid;
  SWAA_RETURN_IF_ERROR(ReadInput(request, model, &valid));
  SWAA_RETURN_IF_ERROR(ReadSampling(request.sampling_params(), model, &valid.sampling));
  SWAA_RETURN_IF_ERROR(ReadStopping(request.stopping_options(), model, &valid.stopping));
  SWAA_RETURN_IF_ERROR(ReadResponseOptions(request.response_options(), &valid));
  SWAA_RETURN_IF_ERROR(ReadForcedOutput(request, model, &valid));
  valid.priority = request.priority();
  valid.cache_salt = request.cache_salt();
  return valid;
}

absl::StatusOr<std::vector<int32_t>> TokenizeInput(const ValidRequest& request,
                                                   const ServingModel& model,
                                                   std::optional<bool> thinking) {
  const Tokenizer& tokenizer = *model.tokenizer;
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&request.input)) return *ids;
  if (const auto* chat = std::get_if<Conversation>(&request.input)) {
    Conversation conversation = *chat;
    conversation.thinking = thinking;
    absl::StatusOr<std::vector<int32_t>> tokens = model.chat_format->Render(conversation);
    if (!tokens.ok()) return WithReason(tokens.status(), "invalid_chat");
    return tokens;
  }
  const std::string& text = std::get<std::string>(request.input);
  std::vector<int32_t> tokens = tokenizer.Encode(text, Tokenizer::SpecialTokens::kParse);
  if (std::optional<int32_t> bos = tokenizer.prompt_bos(); bos.has_value()) {
    tokens.insert(tokens.begin(), *bos);
  }
  return tokens;
}

}  // namespace swaa::server
