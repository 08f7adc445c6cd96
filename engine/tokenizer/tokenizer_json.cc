// Reads Hugging Face's tokenizer.json and tokenizer_config.json.

#include "engine/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/piece_splitter.h"
#include "engine/tokenizer/utf8.h"
#include "nlohmann/json.hpp"

namespace swaa {
namespace {

using Json = nlohmann::json;

// Ids that may go unused, beyond as many as there are tokens: a short file must not ask for much
// memory.
constexpr int64_t kMaxUnusedIds = 1024;
// Of objects and arrays in each other; files of this kind need six.
constexpr int kMaxDepth = 64;

const Json& Member(const Json& object, const char* key) {
  static const Json& null = *new Json(nullptr);
  if (!object.is_object()) return null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

std::string StringOr(const Json& value, const char* otherwise) {
  return value.is_string() ? value.get<std::string>() : otherwise;
}

bool IsTrue(const Json& value) { return value.is_boolean() && value.get<bool>(); }
bool IsFalse(const Json& value) { return value.is_boolean() && !value.get<bool>(); }

// A value as JSON, cut to what a message can hold.
std::string Shown(const Json& value) {
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() <= 200 ? text : AsValidUtf8(text, 200) + "...";
}

absl::StatusOr<Json> Parse(std::string_view text, const std::string& file) {
  // The library copies, prints and compares values by recursion: what is nested without end must
  // not reach that.
  bool too_deep = false;
  const auto watch = [&too_deep](int depth, Json::parse_event_t event, Json&) {
    const bool opens =
        event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start;
    too_deep = too_deep || (opens && depth >= kMaxDepth);
    return !too_deep;
  };
  try {
    Json json = Json::parse(text, watch);
    if (!too_deep) return json;
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": no JSON: ", AsValidUtf8(error.what())));
  }
  return absl::InvalidArgumentError(absl::StrCat(file, ": nested deeper than ", kMaxDepth));
}

// Fills TokenizerData from the parts of the two files. Each method reads one part.
class Reader {
 public:
  Reader(const Json& root, const Json& config, const std::string& file)
      : root_(root), config_(config), file_(file) {}

  absl::StatusOr<TokenizerData> Read() {
    SWAA_RETURN_IF_ERROR(ReadModel());
    SWAA_RETURN_IF_ERROR(ReadAddedTokens());
    SWAA_RETURN_IF_ERROR(ReadMerges());
    SWAA_RETURN_IF_ERROR(ReadNormalizer());
    SWAA_RETURN_IF_ERROR(ReadPreTokenizer());
    SWAA_RETURN_IF_ERROR(ReadPostProcessor(Member(root_, "post_processor")));
    SWAA_RETURN_IF_ERROR(ReadConfig());
    return std::move(data_);
  }

 private:
  absl::Status Malformed(const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrCat(file_, ": ", what));
  }
  absl::Status Unsupported(const std::string& what) const {
    return absl::UnimplementedError(absl::StrCat(file_, ": ", what));
  }

  absl::Status ReadModel();
  absl::Status ReadVocabulary(const Json& vocab);
  absl::Status ReadAddedTokens();
  absl::Status ReadAddedToken(const Json& token, size_t index);
  absl::Status ReadMerges();
  absl::Status ReadNormalizer();
  absl::Status ReadNormalizer(const Json& normalizer, int depth);
  absl::Status ReadPreTokenizer();
  absl::Status ReadPostProcessor(const Json& processor);
  absl::Status ReadTemplate(const Json& single);
  absl::Status ReadConfig();
  absl::Status ReadChatTemplate(const Json& value);
  absl::Status ReadConfigToken(const char* key, std::optional<int32_t>& id) const;
  // Makes room for `id`; ids between are unused until they are set.
  absl::Status SetToken(int64_t id, const std::string& text, TokenKind kind);
  std::optional<int32_t> IdOf(const std::string& text) const;

  const Json& root_;
  const Json& config_;
  const std::string& file_;
  TokenizerData data_;
};

absl::Status Reader::SetToken(int64_t id, const std::string& text, TokenKind kind) {
  const int64_t limit = static_cast<int64_t>(Member(Member(root_, "model"), "vocab").size() +
                                             Member(root_, "added_tokens").size()) +
                        kMaxUnusedIds;
  if (id < 0 || id >= limit) {
    return Malformed(absl::StrCat("token \"", text, "\" has id ", id,
                                  "; with this many tokens ids are 0 to ", limit - 1));
  }
  const size_t size = std::max<size_t>(data_.tokens.size(), static_cast<size_t>(id) + 1);
  data_.tokens.resize(size);
  data_.kinds.resize(size, TokenKind::kUnused);
  data_.tokens[id] = text;
  data_.kinds[id] = kind;
  return absl::OkStatus();
}

std::optional<int32_t> Reader::IdOf(const std::string& text) const {
  const auto found = std::find(data_.tokens.begin(), data_.tokens.end(), text);
  if (text.empty() || found == data_.tokens.end()) return std::nullopt;
  return static_cast<int32_t>(found - data_.tokens.begin());
}

absl::Status Reader::ReadModel() {
  const Json& model = Member(root_, "model");
  if (!model.is_object()) return Malformed("no object \"model\"");
  const std::string type = StringOr(Member(model, "type"), "");
  if (type != "BPE") {
    return Unsupported(absl::StrCat("model.type is ", Shown(Member(model, "type")),
                                    "; this build has BPE, byte-level"));
  }
  const Json& dropout = Member(model, "dropout");
  if (dropout.is_number() && dropout.get<double>() > 0) {
    return Unsupported(absl::StrCat("model.dropout is ", Shown(dropout), "; it must be null"));
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!StringOr(Member(model, key), "").empty()) {
      return Unsupported(absl::StrCat("model.", key, " is ", Shown(Member(model, key)),
                                      "; byte-level BPE has none"));
    }
  }
  data_.ignore_merges = IsTrue(Member(model, "ignore_merges"));
  return ReadVocabulary(Member(model, "vocab"));
}

absl::Status Reader::ReadVocabulary(const Json& vocab) {
  if (!vocab.is_object() || vocab.empty()) return Malformed("model.vocab is no object with tokens");
  for (const auto& [text, id] : vocab.items()) {
    if (!id.is_number_integer()) {
      return Malformed(absl::StrCat("model.vocab[\"", text, "\"] is ", Shown(id), ", no id"));
    }
    const int64_t value = id.get<int64_t>();
    const bool taken = value >= 0 && static_cast<size_t>(value) < data_.kinds.size() &&
                       data_.kinds[value] != TokenKind::kUnused;
    if (taken) {
      return Malformed(absl::StrCat("model.vocab: \"", data_.tokens[value], "\" and \"", text,
                                    "\" both have id ", value));
    }
    SWAA_RETURN_IF_ERROR(SetToken(value, text, TokenKind::kNormal));
  }
  // Both say what a character that is no token becomes; where every byte is one there is none.
  const Json& model = Member(root_, "model");
  const Json& unknown = Member(model, "unk_token");
  const bool falls_back = IsTrue(Member(model, "byte_fallback"));
  for (int byte = 0; byte < 256 && (unknown.is_string() || falls_back); ++byte) {
    if (vocab.contains(std::string(ByteToAlphabet(static_cast<uint8_t>(byte))))) continue;
    return Unsupported(absl::StrCat("model.unk_token is ", Shown(unknown), ", byte_fallback ",
                                    falls_back ? "true" : "false", ", and byte ", byte,
                                    " is no token; byte-level BPE without all bytes has neither"));
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadAddedTokens() {
  const Json& added = Member(root_, "added_tokens");
  if (added.is_null()) return absl::OkStatus();
  if (!added.is_array()) return Malformed("added_tokens is no array");
  for (size_t i = 0; i < added.size(); ++i) SWAA_RETURN_IF_ERROR(ReadAddedToken(added[i], i));
  return absl::OkStatus();
}

absl::Status Reader::ReadAddedToken(const Json& token, size_t index) {
  const Json& id = Member(token, "id");
  const std::string content = StringOr(Member(token, "content"), "");
  if (!id.is_number_integer() || content.empty()) {
    return Malformed(
        absl::StrCat("added_tokens[", index, "] has no id or content: ", Shown(token)));
  }
  const bool special = IsTrue(Member(token, "special"));
  SWAA_RETURN_IF_ERROR(
      SetToken(id.get<int64_t>(), content, special ? TokenKind::kSpecial : TokenKind::kAdded));
  const LiteralOptions options = {.lstrip = IsTrue(Member(token, "lstrip")),
                                  .rstrip = IsTrue(Member(token, "rstrip")),
                                  .single_word = IsTrue(Member(token, "single_word")),
                                  .normalized = IsTrue(Member(token, "normalized"))};
  if (options != LiteralOptions()) data_.literal_options[id.get<int32_t>()] = options;
  return absl::OkStatus();
}

absl::Status Reader::ReadMerges() {
  const Json& merges = Member(Member(root_, "model"), "merges");
  if (!merges.is_array()) return Malformed("model.merges is no array");
  data_.merges.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const Json& merge = merges[i];
    if (merge.is_string()) {
      const std::string text = merge.get<std::string>();
      const size_t space = text.find(' ');
      if (space != std::string::npos && space > 0 && space + 1 < text.size() &&
          text.find(' ', space + 1) == std::string::npos) {
        data_.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
        continue;
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      data_.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    return Malformed(absl::StrCat("model.merges[", i, "] is ", Shown(merge),
                                  "; a merge is \"a b\" or [\"a\", \"b\"]"));
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadNormalizer() { return ReadNormalizer(Member(root_, "normalizer"), 0); }

absl::Status Reader::ReadNormalizer(const Json& normalizer, int depth) {
  if (normalizer.is_null()) return absl::OkStatus();
  const std::string type = StringOr(Member(normalizer, "type"), "");
  const Json& steps = Member(normalizer, "normalizers");
  if (type == "Sequence" && steps.is_array() && depth < kMaxDepth) {
    for (const Json& step : steps) SWAA_RETURN_IF_ERROR(ReadNormalizer(step, depth + 1));
    return absl::OkStatus();
  }
  if (type != "NFC") {
    return Unsupported(
        absl::StrCat("normalizer is ", Shown(normalizer), "; this build has null and NFC"));
  }
  data_.normalize_nfc = true;
  return absl::OkStatus();
}

// Whether `step` is the ByteLevel pre-tokeniser, with or without its own regular expression.
bool IsByteLevel(const Json& step, bool use_regex) {
  const Json& regex = Member(step, "use_regex");
  return StringOr(Member(step, "type"), "") == "ByteLevel" &&
         !IsTrue(Member(step, "add_prefix_space")) &&
         (use_regex ? !IsFalse(regex) : IsFalse(regex));
}

absl::Status Reader::ReadPreTokenizer() {
  const Json& pre = Member(root_, "pre_tokenizer");
  const Json& steps = Member(pre, "pretokenizers");
  const bool is_sequence = StringOr(Member(pre, "type"), "") == "Sequence" && steps.is_array();
  if (IsByteLevel(is_sequence && steps.size() == 1 ? steps[0] : pre, /*use_regex=*/true)) {
    data_.pre_tokenizer = PreTokenizer::kGpt2;
    return absl::OkStatus();
  }
  if (is_sequence && steps.size() == 2) {
    const Json& first = steps[0];
    const std::string type = StringOr(Member(first, "type"), "");
    if (type == "Digits" && IsTrue(Member(first, "individual_digits")) &&
        IsByteLevel(steps[1], /*use_regex=*/true)) {
      data_.pre_tokenizer = PreTokenizer::kSmolLm;
      return absl::OkStatus();
    }
    const std::string behavior = StringOr(Member(first, "behavior"), "");
    const bool keeps_matches = (behavior == "Isolated" && !IsTrue(Member(first, "invert"))) ||
                               (behavior == "Removed" && IsTrue(Member(first, "invert")));
    const std::string regex = StringOr(Member(Member(first, "pattern"), "Regex"), "");
    if (type == "Split" && keeps_matches && IsByteLevel(steps[1], /*use_regex=*/false)) {
      for (const PreTokenizer kind : {PreTokenizer::kLlamaBpe, PreTokenizer::kQwen2}) {
        if (regex != SplitRegexOf(kind)) continue;
        data_.pre_tokenizer = kind;
        return absl::OkStatus();
      }
    }
  }
  return Unsupported(absl::StrCat("pre_tokenizer is ", Shown(pre),
                                  "; this build has those of GPT-2, SmolLM, Llama 3 and Qwen2"));
}

absl::Status Reader::ReadPostProcessor(const Json& processor) {
  const std::string type = StringOr(Member(processor, "type"), "");
  if (processor.is_null() || type == "ByteLevel") return absl::OkStatus();
  if (type == "TemplateProcessing") return ReadTemplate(Member(processor, "single"));
  const Json& steps = Member(processor, "processors");
  if (type == "Sequence" && steps.is_array()) {
    for (const Json& step : steps) {
      if (StringOr(Member(step, "type"), "") == "Sequence") {
        return Malformed("post_processor: a sequence inside a sequence");
      }
      SWAA_RETURN_IF_ERROR(ReadPostProcessor(step));
    }
    return absl::OkStatus();
  }
  return Unsupported(absl::StrCat("post_processor is ", Shown(processor),
                                  "; this build has null, ByteLevel and TemplateProcessing"));
}

// `$A`, or one token before it: the beginning of sequence.
absl::Status Reader::ReadTemplate(const Json& single) {
  const auto is_sequence = [](const Json& step) { return Member(step, "Sequence").is_object(); };
  if (single.is_array() && single.size() == 1 && is_sequence(single[0])) return absl::OkStatus();
  if (single.is_array() && single.size() == 2 && is_sequence(single[1])) {
    const std::string text = StringOr(Member(Member(single[0], "SpecialToken"), "id"), "");
    const std::optional<int32_t> id = IdOf(text);
    if (!id.has_value()) {
      return Malformed(absl::StrCat("post_processor.single: \"", text, "\" is no token"));
    }
    data_.bos_id = id;
    data_.add_bos = true;
    return absl::OkStatus();
  }
  return Unsupported(absl::StrCat("post_processor.single is ", Shown(single),
                                  "; this build has the text alone, or one token before it"));
}

absl::Status Reader::ReadConfigToken(const char* key, std::optional<int32_t>& id) const {
  const Json& value = Member(config_, key);
  if (value.is_null()) return absl::OkStatus();
  const Json& text = value.is_object() ? Member(value, "content") : value;
  if (!text.is_string()) {
    return Malformed(absl::StrCat("tokenizer_config.json: ", key, " is ", Shown(value),
                                  ", neither a string nor an object with \"content\""));
  }
  id = IdOf(text.get<std::string>());
  if (!id.has_value()) {
    return Malformed(
        absl::StrCat("tokenizer_config.json: ", key, " ", Shown(text), " is no token"));
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadConfig() {
  if (config_.is_null()) return absl::OkStatus();
  if (!config_.is_object()) return Malformed("tokenizer_config.json is no object");
  std::optional<int32_t> bos, eos;
  SWAA_RETURN_IF_ERROR(ReadConfigToken("bos_token", bos));
  SWAA_RETURN_IF_ERROR(ReadConfigToken("eos_token", eos));
  if (!data_.bos_id.has_value()) data_.bos_id = bos;
  if (eos.has_value()) data_.eos_ids.push_back(*eos);
  // add_bos_token says nothing: with a tokenizer.json, its post-processor decides what a prompt
  // begins with (transformers 5).
  for (const char* name : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
                           "cls_token", "mask_token"}) {
    const Json& value = Member(config_, name);
    const std::string text = StringOr(value.is_object() ? Member(value, "content") : value, "");
    if (!text.empty()) data_.named_tokens.emplace_back(name, text);
  }
  return ReadChatTemplate(Member(config_, "chat_template"));
}

absl::Status Reader::ReadChatTemplate(const Json& value) {
  if (value.is_null()) return absl::OkStatus();
  if (value.is_string()) {
    data_.chat_template = value.get<std::string>();
    return absl::OkStatus();
  }
  if (!value.is_array()) {
    return Malformed(absl::StrCat("tokenizer_config.json: chat_template is ", Shown(value),
                                  ", neither a string nor a list"));
  }
  for (const Json& entry : value) {
    const std::string name = StringOr(Member(entry, "name"), "");
    if (name == "default") data_.chat_template = StringOr(Member(entry, "template"), "");
    if (name == "tool_use") data_.tool_chat_template = StringOr(Member(entry, "template"), "");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerData> ParseTokenizerJson(std::string_view json,
                                                 std::string_view config_json,
                                                 const std::string& file) {
  SWAA_ASSIGN_OR_RETURN(const Json root, Parse(json, file));
  Json config = nullptr;
  if (!config_json.empty()) {
    SWAA_ASSIGN_OR_RETURN(config,
                          Parse(config_json, absl::StrCat(file, " (tokenizer_config.json)")));
  }
  return Reader(root, config, file).Read();
}

}  // namespace swaa
