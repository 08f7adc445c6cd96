// Writes tokenizer.json and tokenizer_config.json.

#include "engine/tokenizer/tokenizer_writer.h"

#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/tokenizer/piece_splitter.h"
#include "engine/tokenizer/utf8.h"
#include "nlohmann/json.hpp"

namespace swaa {
namespace {

using Json = nlohmann::json;

Json ByteLevel(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json PreTokenizerJson(PreTokenizer kind) {
  if (kind == PreTokenizer::kGpt2) return ByteLevel(/*use_regex=*/true);
  Json steps = Json::array();
  if (kind == PreTokenizer::kSmolLm) {
    steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
    steps.push_back(ByteLevel(/*use_regex=*/true));
  } else {
    for (const std::string_view expression : ExpressionsOf(kind)) {
      steps.push_back({{"type", "Split"},
                       {"pattern", {{"Regex", std::string(expression)}}},
                       {"behavior", "Isolated"},
                       {"invert", false}});
    }
    steps.push_back(ByteLevel(/*use_regex=*/false));
  }
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

// The text alone, or the beginning-of-sequence before it.
Json PostProcessorJson(const TokenizerData& data) {
  if (!data.add_bos) return ByteLevel(/*use_regex=*/true);
  const std::string& bos = data.tokens[*data.bos_id];
  const auto special = [&bos] { return Json{{"SpecialToken", {{"id", bos}, {"type_id", 0}}}}; };
  const auto text = [](const char* id) { return Json{{"Sequence", {{"id", id}, {"type_id", 0}}}}; };
  return {
      {"type", "TemplateProcessing"},
      {"single", {special(), text("A")}},
      {"pair", {special(), text("A"), special(), text("B")}},
      {"special_tokens",
       {{bos,
         {{"id", bos}, {"ids", Json::array({*data.bos_id})}, {"tokens", Json::array({bos})}}}}}};
}

Json AddedTokenJson(int64_t id, const std::string& content, bool special,
                    const LiteralOptions& options) {
  return {{"id", id},
          {"content", content},
          {"single_word", options.single_word},
          {"lstrip", options.lstrip},
          {"rstrip", options.rstrip},
          {"normalized", options.normalized},
          {"special", special}};
}

// Every token stands in the vocabulary, so that a reader that counts added tokens itself gives them
// the same ids.
class Vocabulary {
 public:
  absl::Status Add(const std::string& text, TokenKind kind, const LiteralOptions& options) {
    const int64_t id = next_++;
    if (kind == TokenKind::kUnused) return absl::OkStatus();
    if (ValidUtf8Prefix(text) != text.size()) {
      return absl::UnimplementedError(
          absl::StrCat("tokenizer.json cannot hold token ", id, ", which is not UTF-8"));
    }
    if (!vocab_.emplace(text, id).second) {
      return absl::UnimplementedError(absl::StrCat("tokenizer.json cannot hold two tokens \"", text,
                                                   "\", ", vocab_[text].get<int64_t>(), " and ",
                                                   id));
    }
    if (kind == TokenKind::kNormal) return absl::OkStatus();
    added_.push_back(AddedTokenJson(id, text, kind == TokenKind::kSpecial, options));
    return absl::OkStatus();
  }

  Json TakeVocab() { return std::move(vocab_); }
  Json TakeAdded() { return std::move(added_); }

 private:
  int64_t next_ = 0;
  Json vocab_ = Json::object();
  Json added_ = Json::array();
};

absl::StatusOr<std::string> TokenizerJson(const TokenizerData& data,
                                          const TokenizerAdditions& additions) {
  Vocabulary vocabulary;
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    const auto found = data.literal_options.find(static_cast<int32_t>(id));
    SWAA_RETURN_IF_ERROR(
        vocabulary.Add(data.tokens[id], data.kinds[id],
                       found == data.literal_options.end() ? LiteralOptions() : found->second));
  }
  for (const std::string& text : additions.special_tokens) {
    SWAA_RETURN_IF_ERROR(vocabulary.Add(text, TokenKind::kSpecial, {}));
  }
  Json merges = Json::array();
  for (const auto& [left, right] : data.merges) merges.push_back(absl::StrCat(left, " ", right));
  const Json normalizer = data.normalize_nfc ? Json{{"type", "NFC"}} : Json(nullptr);
  const Json root = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", vocabulary.TakeAdded()},
                     {"normalizer", normalizer},
                     {"pre_tokenizer", PreTokenizerJson(data.pre_tokenizer)},
                     {"post_processor", PostProcessorJson(data)},
                     {"decoder", ByteLevel(/*use_regex=*/true)},
                     {"model",
                      {{"type", "BPE"},
                       {"dropout", nullptr},
                       {"unk_token", nullptr},
                       {"continuing_subword_prefix", nullptr},
                       {"end_of_word_suffix", nullptr},
                       {"fuse_unk", false},
                       {"byte_fallback", false},
                       {"ignore_merges", data.ignore_merges},
                       {"vocab", vocabulary.TakeVocab()},
                       {"merges", merges}}}};
  return root.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Without the newline at its end, which Jinja drops, and would keep with something behind it.
std::string_view Trimmed(std::string_view text) {
  if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  return text;
}

std::string ChatTemplate(const TokenizerData& data, const std::string& end) {
  const std::string chat(Trimmed(data.chat_template));
  if (data.tool_chat_template.empty()) return absl::StrCat(chat, end);
  return absl::StrCat("{% if tools %}", std::string(Trimmed(data.tool_chat_template)), "{% else %}",
                      chat, "{% endif %}", end);
}

}  // namespace

absl::StatusOr<TokenizerFiles> WriteTokenizerFiles(const TokenizerData& data,
                                                   const TokenizerAdditions& additions) {
  TokenizerFiles files;
  SWAA_ASSIGN_OR_RETURN(files.tokenizer_json, TokenizerJson(data, additions));
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false},
                 {"add_bos_token", data.add_bos}};
  if (additions.max_tokens > 0) config["model_max_length"] = additions.max_tokens;
  for (const auto& [name, text] : data.named_tokens) config[name] = text;
  if (!data.chat_template.empty()) {
    config["chat_template"] = ChatTemplate(data, additions.chat_template_end);
  }
  files.tokenizer_config_json = config.dump(1, ' ', false, Json::error_handler_t::replace);
  return files;
}

}  // namespace swaa
