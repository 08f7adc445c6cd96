// A recipe at the end of a prompt: how it comes through a gateway that has no field for it.
//
// The chat template that GetTokenizer hands out ends every chat with two marks, which are special
// tokens beyond the model's vocabulary, and between them what the caller's chat_template_kwargs say
// of "recipe". As the template writes its marks last, whatever a message says, no message can stand
// in their place.

#ifndef SWAA_SERVER_VLLM_ENGINE_RECIPE_TAIL_H_
#define SWAA_SERVER_VLLM_ENGINE_RECIPE_TAIL_H_

#include <cstdint>
#include <string>

#include <google/protobuf/repeated_field.h>

#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer.h"
#include "swaa/v1/generation.pb.h"

namespace swaa::server {

inline constexpr char kRecipeBegin[] = "<|recipe|>";
inline constexpr char kRecipeEnd[] = "<|/recipe|>";

// Immutable; any thread. The tokenizer outlives it.
class RecipeTail {
 public:
  explicit RecipeTail(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // The marks' token ids: the two behind the vocabulary.
  int32_t begin_id() const { return tokenizer_.vocab_size(); }
  int32_t end_id() const { return begin_id() + 1; }

  // What a chat template has to end with.
  static std::string TemplateEnd();

  using TokenIds = google::protobuf::RepeatedField<uint32_t>;
  // Cuts the marks and what is between them off the prompt's end, if they are there, and turns
  // marks before them into the tokens of their text. Whether they were there. A recipe between them
  // goes into `request`: a name, or an object with the fields of swaa.v1.Recipe. INVALID_ARGUMENT:
  // an object that is no recipe, text beyond 4096 bytes, or a token in it that is none.
  absl::StatusOr<bool> Cut(TokenIds* ids, v1::GenerateRequest* request) const;

 private:
  bool IsMark(uint32_t id) const;
  bool IsLiteral(uint32_t id) const;
  void MarksToText(TokenIds* ids) const;
  std::string TextOf(TokenIds::const_iterator begin, TokenIds::const_iterator end) const;

  const Tokenizer& tokenizer_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_VLLM_ENGINE_RECIPE_TAIL_H_
