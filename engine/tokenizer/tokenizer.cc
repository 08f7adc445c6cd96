// Byte-level BPE from text to ids.

#include "engine/tokenizer/tokenizer.h"

#include <array>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/literal_splitter.h"
#include "engine/tokenizer/normalize.h"
#include "engine/tokenizer/piece_splitter.h"
#include "engine/tokenizer/utf8.h"

namespace swaa {
namespace {

// Token by a text that is kept elsewhere.
using TextMap = absl::flat_hash_map<std::string_view, int32_t>;

absl::Status CheckId(const char* what, int32_t id, size_t vocab) {
  if (id >= 0 && static_cast<size_t>(id) < vocab) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " token id ", id, " is outside the vocabulary of ", vocab, " tokens"));
}

absl::Status CheckData(const TokenizerData& data) {
  const size_t vocab = data.tokens.size();
  if (vocab == 0 || vocab > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return absl::InvalidArgumentError(absl::StrCat("a vocabulary of ", vocab, " tokens"));
  }
  if (data.kinds.size() != vocab) {
    return absl::InvalidArgumentError(
        absl::StrCat(vocab, " tokens but ", data.kinds.size(), " token kinds"));
  }
  if (data.bos_id.has_value()) {
    SWAA_RETURN_IF_ERROR(CheckId("beginning-of-sequence", *data.bos_id, vocab));
  }
  if (data.add_bos && !data.bos_id.has_value()) {
    return absl::InvalidArgumentError(
        "prompts are to begin with a beginning-of-sequence token, but none is named");
  }
  for (const int32_t id : data.eos_ids) SWAA_RETURN_IF_ERROR(CheckId("end", id, vocab));
  return absl::OkStatus();
}

absl::StatusOr<TextMap> MapTexts(const TokenizerData& data) {
  TextMap ids;
  ids.reserve(data.tokens.size());
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    if (data.kinds[id] == TokenKind::kUnused) continue;
    const auto [entry, is_new] = ids.try_emplace(data.tokens[id], static_cast<int32_t>(id));
    if (!is_new && data.kinds[id] == TokenKind::kNormal &&
        data.kinds[entry->second] == TokenKind::kNormal) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tokens ", entry->second, " and ", id, " have the same text \"", data.tokens[id], "\""));
    }
  }
  return ids;
}

absl::Status AddMerges(const TokenizerData& data, const TextMap& ids, Bpe& bpe) {
  for (size_t rank = 0; rank < data.merges.size(); ++rank) {
    const auto& [left, right] = data.merges[rank];
    const std::string merged = left + right;
    std::array<int32_t, 3> tokens;
    const std::array<const std::string*, 3> texts = {&left, &right, &merged};
    for (size_t i = 0; i < texts.size(); ++i) {
      const auto found = ids.find(*texts[i]);
      if (found == ids.end()) {
        return absl::InvalidArgumentError(absl::StrCat("merge ", rank, ", \"", left, "\" \"", right,
                                                       "\": \"", *texts[i], "\" is no token"));
      }
      tokens[i] = found->second;
    }
    bpe.AddMerge(tokens[0], tokens[1], tokens[2]);
  }
  return absl::OkStatus();
}

std::string BytesOf(const std::string& text, TokenKind kind) {
  if (kind == TokenKind::kUnused) return "";
  if (kind != TokenKind::kNormal) return text;
  return AlphabetToBytes(text).value_or(text);
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(const std::array<int32_t, 256>& byte_tokens) : bpe(byte_tokens) {}

  std::unique_ptr<PieceSplitter> splitter;
  Bpe bpe;
  LiteralSplitter literals;
  LiteralSplitter normalized_literals;  // looked for in normalised text that `literals` left
  std::vector<std::string> bytes;       // id -> what it stands for
  std::vector<TokenKind> kinds;
  bool normalize_nfc = false;
  TextMap words;  // bytes -> id; keys look into `bytes`; filled when merges are ignored
  std::optional<int32_t> prompt_bos;
  std::vector<int32_t> eos_ids;
  std::string chat_template;
  std::string tool_chat_template;
  std::vector<std::pair<std::string, std::string>> named_tokens;

  // Tokens of a piece of the pre-tokeniser.
  void EncodePiece(std::string_view piece, std::vector<int32_t>& out) const {
    if (!words.empty()) {
      if (const auto word = words.find(piece); word != words.end()) {
        out.push_back(word->second);
        return;
      }
    }
    bpe.Encode(piece, out);
  }

  // Tokens of text that is whole and normalised. It was `bytes` bytes from `begin` on before; where
  // they were changed, a literal in it may lie anywhere among them.
  void EncodeNormalized(std::string_view text, size_t begin, size_t bytes, bool changed,
                        LiteralFilter is_token, std::vector<int32_t>& out) const {
    const auto encode = [&](std::string_view part) {
      splitter->Split(part, [&](std::string_view piece) { EncodePiece(piece, out); });
    };
    if (normalized_literals.empty()) return encode(text);
    const auto accepts = [&](const LiteralMatcher::Match& match) {
      if (changed) return is_token(match.token, begin, begin + bytes);
      return is_token(match.token, begin + match.begin, begin + match.begin + match.length);
    };
    normalized_literals.Split(text, accepts, encode, [&](int32_t token) { out.push_back(token); });
  }

  // Tokens of text that holds none of `literals`.
  // It begins at byte `begin` of what is encoded.
  void EncodeText(std::string_view text, size_t begin, LiteralFilter is_token,
                  std::vector<int32_t>& out) const {
    while (!text.empty()) {
      const size_t valid = ValidUtf8Prefix(text);
      const std::string_view whole = text.substr(0, valid);
      if (normalize_nfc) {
        const std::string normal = NormalizeNfc(whole);
        EncodeNormalized(normal, begin, valid, normal != whole, is_token, out);
      } else {
        EncodeNormalized(whole, begin, valid, /*changed=*/false, is_token, out);
      }
      text.remove_prefix(valid);
      begin += valid;
      while (!text.empty() && FirstUtf8Unit(text).kind != Utf8Unit::Kind::kCharacter) {
        EncodePiece(text.substr(0, 1), out);
        text.remove_prefix(1);
        ++begin;
      }
    }
  }
};

void Tokenizer::AddLiteral(const TokenizerData& data, int32_t id, const std::string& text,
                           Impl& impl) {
  const auto found = data.literal_options.find(id);
  const LiteralOptions options =
      found == data.literal_options.end() ? LiteralOptions() : found->second;
  if (!options.normalized) return impl.literals.Add(text, id, options);
  impl.normalized_literals.Add(data.normalize_nfc ? NormalizeNfc(text) : text, id, options);
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(TokenizerData data) {
  SWAA_RETURN_IF_ERROR(CheckData(data));
  SWAA_ASSIGN_OR_RETURN(const TextMap ids, MapTexts(data));
  std::array<int32_t, 256> byte_tokens;
  for (size_t byte = 0; byte < byte_tokens.size(); ++byte) {
    const auto found = ids.find(ByteToAlphabet(static_cast<uint8_t>(byte)));
    byte_tokens[byte] = found == ids.end() ? -1 : found->second;
  }
  auto impl = std::make_unique<Impl>(byte_tokens);
  SWAA_RETURN_IF_ERROR(AddMerges(data, ids, impl->bpe));
  SWAA_ASSIGN_OR_RETURN(impl->splitter, PieceSplitter::Create(data.pre_tokenizer));
  impl->bytes.reserve(data.tokens.size());
  for (size_t id = 0; id < data.tokens.size(); ++id) {
    const TokenKind kind = data.kinds[id];
    impl->bytes.push_back(BytesOf(data.tokens[id], kind));
    const std::string& bytes = impl->bytes.back();
    if (bytes.empty()) continue;
    if (kind == TokenKind::kSpecial || kind == TokenKind::kAdded) {
      AddLiteral(data, static_cast<int32_t>(id), bytes, *impl);
    } else if (data.ignore_merges && kind == TokenKind::kNormal) {
      impl->words.try_emplace(bytes, static_cast<int32_t>(id));
    }
  }
  impl->kinds = std::move(data.kinds);
  impl->normalize_nfc = data.normalize_nfc;
  if (data.add_bos) impl->prompt_bos = data.bos_id;
  impl->eos_ids = std::move(data.eos_ids);
  impl->chat_template = std::move(data.chat_template);
  impl->tool_chat_template = std::move(data.tool_chat_template);
  impl->named_tokens = std::move(data.named_tokens);
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(impl)));
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, SpecialTokens special_tokens) const {
  const bool parse = special_tokens == SpecialTokens::kParse;
  return Encode(text, [parse](int32_t, size_t, size_t) { return parse; });
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, LiteralFilter is_token) const {
  std::vector<int32_t> out;
  impl_->literals.Split(
      text,
      [&](const LiteralMatcher::Match& match) {
        return is_token(match.token, match.begin, match.begin + match.length);
      },
      [&](std::string_view part) {
        impl_->EncodeText(part, static_cast<size_t>(part.data() - text.data()), is_token, out);
      },
      [&](int32_t token) { out.push_back(token); });
  return out;
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  SWAA_CHECK(id >= 0 && id < vocab_size()) << "token " << id << " of " << vocab_size();
  return impl_->bytes[id];
}

bool Tokenizer::IsSpecial(int32_t id) const {
  SWAA_CHECK(id >= 0 && id < vocab_size()) << "token " << id << " of " << vocab_size();
  return impl_->kinds[id] == TokenKind::kSpecial;
}

std::optional<int32_t> Tokenizer::SpecialTokenId(std::string_view text) const {
  const std::optional<int32_t> id = impl_->literals.Lookup(text);
  return id.has_value() ? id : impl_->normalized_literals.Lookup(text);
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->bytes.size()); }
std::optional<int32_t> Tokenizer::prompt_bos() const { return impl_->prompt_bos; }
const std::vector<int32_t>& Tokenizer::eos_ids() const { return impl_->eos_ids; }
const std::string& Tokenizer::chat_template() const { return impl_->chat_template; }
const std::string& Tokenizer::tool_chat_template() const { return impl_->tool_chat_template; }
const std::vector<std::pair<std::string, std::string>>& Tokenizer::named_tokens() const {
  return impl_->named_tokens;
}

}  // namespace swaa
