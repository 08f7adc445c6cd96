// Keys "tokenizer.*" of GGUF files.

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/gguf_model.h"
#include "engine/checkpoint/text_checks.h"
#include "engine/checkpoint/validate_config.h"

namespace swaa {
namespace {

constexpr std::string_view kModel = "tokenizer.ggml.model";
constexpr std::string_view kPre = "tokenizer.ggml.pre";
constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
constexpr std::string_view kTypes = "tokenizer.ggml.token_type";
constexpr std::string_view kMerges = "tokenizer.ggml.merges";
constexpr std::string_view kBos = "tokenizer.ggml.bos_token_id";
constexpr std::string_view kAddBos = "tokenizer.ggml.add_bos_token";
constexpr std::string_view kAddEos = "tokenizer.ggml.add_eos_token";
constexpr std::string_view kChatTemplate = "tokenizer.chat_template";
constexpr std::string_view kToolChatTemplate = "tokenizer.chat_template.tool_use";
constexpr int64_t kNoToken = 0xffffffff;  // -1 of an unsigned number
// End of sequence, of turn, and of message: after each the model is done.
// What chat templates call them. A beginning is named apart.
constexpr std::pair<const char*, std::string_view> kNamedTokens[] = {
    {"eos_token", "tokenizer.ggml.eos_token_id"},
    {"unk_token", "tokenizer.ggml.unknown_token_id"},
    {"pad_token", "tokenizer.ggml.padding_token_id"},
};
constexpr std::string_view kEnds[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                      "tokenizer.ggml.eom_token_id"};

// Special tokens after which no model goes on, whatever the keys above say.
constexpr std::string_view kEndTexts[] = {
    "<|eot_id|>",      "<|im_end|>", "<|end|>",      "<end_of_turn>",      "<|endoftext|>",
    "<|end_of_text|>", "<|eom_id|>", "<|end_turn|>", "<end_of_utterance>", "<EOT>"};

// What the names of pre-tokenisers stand for. Llama 3's writers leave add_bos_token out.
struct PreTokenizerName {
  std::string_view name;
  PreTokenizer pre_tokenizer;
  bool normalize_nfc;
  bool ignore_merges;
  bool add_bos;
};
constexpr PreTokenizerName kPreTokenizers[] = {
    {"default", PreTokenizer::kLlamaCppDefault, false, false, false},
    {"gpt-2", PreTokenizer::kGpt2, false, false, false},
    {"smollm", PreTokenizer::kSmolLm, false, false, false},
    {"llama-bpe", PreTokenizer::kLlamaBpe, false, true, true},
    {"llama3", PreTokenizer::kLlamaBpe, false, true, true},
    {"llama-v3", PreTokenizer::kLlamaBpe, false, true, true},
    {"qwen2", PreTokenizer::kQwen2, true, false, false},
    {"deepseek-r1-qwen", PreTokenizer::kQwen2, true, false, false},
};

absl::Status Unsupported(const GgufFile& gguf, std::string_view key, std::string_view problem) {
  return absl::UnimplementedError(gguf.KeyError(key, problem).message());
}

absl::Status ReadKind(const GgufFile& gguf, TokenizerData* data,
                      std::vector<std::string>* warnings) {
  SWAA_ASSIGN_OR_RETURN(const std::optional<std::string_view> model, gguf.String(kModel));
  if (!model.has_value()) return gguf.KeyError(kModel, "is missing");
  if (*model != "gpt2") {
    return Unsupported(gguf, kModel,
                       absl::StrCat(Quoted(*model), " is not supported; gpt2 (byte-level BPE) is"));
  }
  SWAA_ASSIGN_OR_RETURN(const std::optional<std::string_view> pre, gguf.String(kPre));
  if (!pre.has_value()) {
    data->pre_tokenizer = PreTokenizer::kLlamaCppDefault;
    warnings->push_back(
        absl::StrCat(gguf.file()->path(), ": ", std::string(kPre),
                     ": is missing, so prompts are cut by llama.cpp's default rule, "
                     "which may not be the model's; convert the model again"));
    return absl::OkStatus();
  }
  std::string known;
  for (const PreTokenizerName& entry : kPreTokenizers) {
    absl::StrAppend(&known, known.empty() ? "" : ", ", std::string(entry.name));
    if (entry.name != *pre) continue;
    data->pre_tokenizer = entry.pre_tokenizer;
    data->normalize_nfc = entry.normalize_nfc;
    data->ignore_merges = entry.ignore_merges;
    data->add_bos = entry.add_bos;
    return absl::OkStatus();
  }
  return Unsupported(gguf, kPre,
                     absl::StrCat(Quoted(*pre), " is not supported; supported: ", known));
}

// GGUF's numbers: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
std::optional<TokenKind> KindOf(int64_t type) {
  switch (type) {
    case 1:
    case 6:
      return TokenKind::kNormal;
    case 2:
    case 3:
      return TokenKind::kSpecial;
    case 4:
      return TokenKind::kAdded;
    case 5:
      return TokenKind::kUnused;
    default:
      return std::nullopt;
  }
}

absl::Status ReadTokens(const GgufFile& gguf, TokenizerData* data) {
  SWAA_ASSIGN_OR_RETURN(const auto tokens, gguf.StringArray(kTokens));
  if (!tokens.has_value() || tokens->empty()) return gguf.KeyError(kTokens, "is missing or empty");
  if (static_cast<int64_t>(tokens->size()) > kMaxVocab) {
    return gguf.KeyError(kTokens, absl::StrCat(tokens->size(), " tokens; ", kMaxVocab, " at most"));
  }
  SWAA_ASSIGN_OR_RETURN(const auto types, gguf.IntArray(kTypes));
  if (types.has_value() && types->size() != tokens->size()) {
    return gguf.KeyError(
        kTypes, absl::StrCat("has ", types->size(), " elements for ", tokens->size(), " tokens"));
  }
  data->tokens.assign(tokens->begin(), tokens->end());
  data->kinds.assign(tokens->size(), TokenKind::kNormal);
  for (size_t i = 0; types.has_value() && i < types->size(); ++i) {
    const std::optional<TokenKind> kind = KindOf((*types)[i]);
    if (!kind.has_value()) {
      return gguf.KeyError(kTypes, absl::StrCat("element ", i, ": unknown type ", (*types)[i]));
    }
    data->kinds[i] = *kind;
  }
  return absl::OkStatus();
}

absl::Status ReadMerges(const GgufFile& gguf, TokenizerData* data) {
  SWAA_ASSIGN_OR_RETURN(const auto merges, gguf.StringArray(kMerges));
  if (!merges.has_value()) return gguf.KeyError(kMerges, "is missing");
  data->merges.reserve(merges->size());
  for (size_t i = 0; i < merges->size(); ++i) {
    const std::string_view merge = (*merges)[i];
    const size_t space = merge.find(' ');
    const bool sound = space != std::string_view::npos && space > 0 && space + 1 < merge.size() &&
                       merge.find(' ', space + 1) == std::string_view::npos;
    if (!sound) {
      return gguf.KeyError(kMerges, absl::StrCat("element ", i, ", ", Quoted(merge),
                                                 ", is not two tokens with a space between"));
    }
    data->merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<int32_t>> ReadTokenId(const GgufFile& gguf, std::string_view key,
                                                   const TokenizerData& data) {
  SWAA_ASSIGN_OR_RETURN(const std::optional<int64_t> id, gguf.Int(key));
  if (!id.has_value() || *id == -1 || *id == kNoToken) return std::nullopt;
  if (*id < 0 || *id >= static_cast<int64_t>(data.tokens.size())) {
    return gguf.KeyError(key, absl::StrCat(*id, " is no token; there are ", data.tokens.size()));
  }
  return static_cast<int32_t>(*id);
}

void AddEnd(int32_t id, TokenizerData* data) {
  std::vector<int32_t>& ids = data->eos_ids;
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

absl::Status ReadSpecialTokens(const GgufFile& gguf, TokenizerData* data) {
  SWAA_ASSIGN_OR_RETURN(data->bos_id, ReadTokenId(gguf, kBos, *data));
  SWAA_ASSIGN_OR_RETURN(const std::optional<bool> add_bos, gguf.Bool(kAddBos));
  if (add_bos.value_or(false) && !data->bos_id.has_value()) {
    return gguf.KeyError(kAddBos, absl::StrCat("is true without ", std::string(kBos)));
  }
  data->add_bos = add_bos.value_or(data->add_bos) && data->bos_id.has_value();
  SWAA_ASSIGN_OR_RETURN(const std::optional<bool> add_eos, gguf.Bool(kAddEos));
  if (add_eos.value_or(false)) {
    return Unsupported(gguf, kAddEos, "prompts that end with the end token are not supported");
  }
  const auto name_token = [&](const char* name, std::optional<int32_t> id) {
    if (id.has_value()) data->named_tokens.emplace_back(name, data->tokens[*id]);
  };
  name_token("bos_token", data->bos_id);
  for (const auto& [name, key] : kNamedTokens) {
    SWAA_ASSIGN_OR_RETURN(const std::optional<int32_t> id, ReadTokenId(gguf, key, *data));
    name_token(name, id);
  }
  for (const std::string_view key : kEnds) {
    SWAA_ASSIGN_OR_RETURN(const std::optional<int32_t> id, ReadTokenId(gguf, key, *data));
    if (id.has_value()) AddEnd(*id, data);
  }
  for (size_t id = 0; id < data->tokens.size(); ++id) {
    const bool ends = std::find(std::begin(kEndTexts), std::end(kEndTexts), data->tokens[id]) !=
                      std::end(kEndTexts);
    if (ends && data->kinds[id] == TokenKind::kSpecial) AddEnd(static_cast<int32_t>(id), data);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerData> ReadGgufTokenizer(const GgufFile& gguf,
                                                std::vector<std::string>* warnings) {
  TokenizerData data;
  SWAA_RETURN_IF_ERROR(ReadKind(gguf, &data, warnings));
  SWAA_RETURN_IF_ERROR(ReadTokens(gguf, &data));
  SWAA_RETURN_IF_ERROR(ReadMerges(gguf, &data));
  SWAA_RETURN_IF_ERROR(ReadSpecialTokens(gguf, &data));
  SWAA_ASSIGN_OR_RETURN(const std::optional<std::string_view> chat, gguf.String(kChatTemplate));
  data.chat_template = std::string(chat.value_or(""));
  SWAA_ASSIGN_OR_RETURN(const std::optional<std::string_view> tools,
                        gguf.String(kToolChatTemplate));
  data.tool_chat_template = std::string(tools.value_or(""));
  return data;
}

}  // namespace swaa
