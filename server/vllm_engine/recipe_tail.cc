// A recipe at the end of a prompt.

#include "server/vllm_engine/recipe_tail.h"

#include <algorithm>

#include <google/protobuf/util/json_util.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"

namespace swaa::server {
namespace {

constexpr size_t kMostBytes = 4096;
constexpr auto kAsText = Tokenizer::SpecialTokens::kAsText;

absl::Status Invalid(const std::string& problem) {
  return MakeError(absl::StatusCode::kInvalidArgument, "invalid_recipe",
                   absl::StrCat("recipe: ", problem));
}

absl::Status ReadRecipe(const std::string& text, v1::GenerateRequest* request) {
  if (text.empty()) return absl::OkStatus();
  if (text[0] != '{') {
    request->set_recipe_name(text);
    return absl::OkStatus();
  }
  const auto parsed = google::protobuf::util::JsonStringToMessage(text, request->mutable_recipe());
  if (parsed.ok()) return absl::OkStatus();
  return Invalid(
      absl::StrCat(Quoted(text), " is no recipe: ", Quoted(std::string(parsed.message())),
                   "; give a name, or an object with the fields of swaa.v1.Recipe, such as "
                   "{\"sliding_window_tokens\": 2048, \"sink_tokens\": 100}"));
}

}  // namespace

std::string RecipeTail::TemplateEnd() {
  return absl::StrCat(kRecipeBegin,
                      "{{ (recipe | tojson if recipe is mapping else recipe) "
                      "if recipe is defined else '' }}",
                      kRecipeEnd);
}

absl::StatusOr<bool> RecipeTail::Cut(TokenIds* ids, v1::GenerateRequest* request) const {
  if (ids->empty() || (*ids)[ids->size() - 1] != static_cast<uint32_t>(end_id())) {
    MarksToText(ids);
    return false;
  }
  int begin = ids->size() - 1;
  while (begin >= 0 && (*ids)[begin] != static_cast<uint32_t>(begin_id())) --begin;
  if (begin < 0) {
    return Invalid(absl::StrCat("the prompt ends with ", kRecipeEnd, ", but has no ", kRecipeBegin,
                                "; write both, or neither"));
  }
  std::string text;
  for (int i = begin + 1; i < ids->size() - 1; ++i) {
    const uint32_t id = (*ids)[i];
    if (id >= static_cast<uint32_t>(begin_id())) {
      return Invalid(absl::StrCat("token ", id, " in it is beyond the vocabulary"));
    }
    text.append(tokenizer_.TokenBytes(static_cast<int32_t>(id)));
    if (text.size() > kMostBytes) {
      return Invalid(
          absl::StrCat("more than ", kMostBytes, " bytes; it begins ", Quoted(text.substr(0, 32))));
    }
  }
  SWAA_RETURN_IF_ERROR(ReadRecipe(text, request));
  ids->Truncate(begin);
  MarksToText(ids);
  return true;
}

bool RecipeTail::IsMark(uint32_t id) const {
  return id == static_cast<uint32_t>(begin_id()) || id == static_cast<uint32_t>(end_id());
}

// What stands for itself wherever it is, so that no text reaches over it.
bool RecipeTail::IsLiteral(uint32_t id) const {
  if (id >= static_cast<uint32_t>(begin_id())) return !IsMark(id);
  const auto token = static_cast<int32_t>(id);
  return tokenizer_.SpecialTokenId(tokenizer_.TokenBytes(token)) == token;
}

// A message that speaks of the marks has them as tokens, since the gateway parses special tokens
// wherever they stand. The text around one is made tokens again with it, as without the gateway.
void RecipeTail::MarksToText(TokenIds* ids) const {
  const auto is_mark = [this](uint32_t id) { return IsMark(id); };
  if (std::none_of(ids->begin(), ids->end(), is_mark)) return;
  TokenIds result;
  auto begin = ids->begin();
  while (begin != ids->end()) {
    const auto end = std::find_if(begin, ids->end(), [this](uint32_t id) { return IsLiteral(id); });
    if (std::any_of(begin, end, is_mark)) {
      for (const int32_t id : tokenizer_.Encode(TextOf(begin, end), kAsText)) {
        result.Add(static_cast<uint32_t>(id));
      }
    } else {
      result.Add(begin, end);
    }
    if (end != ids->end()) result.Add(*end);
    begin = end == ids->end() ? end : end + 1;
  }
  ids->Swap(&result);
}

std::string RecipeTail::TextOf(TokenIds::const_iterator begin, TokenIds::const_iterator end) const {
  std::string text;
  for (auto id = begin; id != end; ++id) {
    if (IsMark(*id)) {
      text.append(*id == static_cast<uint32_t>(begin_id()) ? kRecipeBegin : kRecipeEnd);
    } else {
      text.append(tokenizer_.TokenBytes(static_cast<int32_t>(*id)));
    }
  }
  return text;
}

}  // namespace swaa::server
