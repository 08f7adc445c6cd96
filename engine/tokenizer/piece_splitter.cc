// Pre-tokenisation, by PCRE2.

#include "engine/tokenizer/piece_splitter.h"

#include <limits>
#include <string>
#include <vector>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"
#include "engine/tokenizer/utf8.h"

namespace swaa {
namespace {

constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// PCRE2's own \s has U+180E, which is no white space in Unicode since version 6.3.
constexpr std::string_view kWhiteSpace =
    R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

// The pattern with \s and \S spelled out.
std::string ForPcre(std::string_view pattern) {
  std::string result(pattern);
  const std::string space(kWhiteSpace);
  result = absl::StrReplaceAll(result, {{"[^\\s", absl::StrCat("[^", space)}});
  return absl::StrReplaceAll(
      result, {{"\\s", absl::StrCat("[", space, "]")}, {"\\S", absl::StrCat("[^", space, "]")}});
}

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatchData {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct FreeMatchContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
using Code = std::unique_ptr<pcre2_code, FreeCode>;
using MatchData = std::unique_ptr<pcre2_match_data, FreeMatchData>;

absl::StatusOr<Code> Compile(std::string_view pattern) {
  const std::string text = ForPcre(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                          PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
  if (code == nullptr) {
    return absl::InternalError(absl::StrCat(
        "PCRE2 refuses the pre-tokeniser's expression at offset ", offset, " with error ", error));
  }
  // Where there is no just-in-time compiler the interpreter does the same, slower.
  (void)pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return code;
}

}  // namespace

std::vector<std::string_view> ExpressionsOf(PreTokenizer kind) {
  switch (kind) {
    case PreTokenizer::kGpt2:
      return {kGpt2};
    case PreTokenizer::kSmolLm:
      return {R"(\p{N})", kGpt2};
    case PreTokenizer::kLlamaBpe:
      return {kLlama3};
    case PreTokenizer::kQwen2:
      return {kQwen2};
    case PreTokenizer::kLlamaCppDefault:
      return {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"};
  }
  return {};
}

std::string_view SplitRegexOf(PreTokenizer kind) {
  const bool is_split = kind == PreTokenizer::kLlamaBpe || kind == PreTokenizer::kQwen2;
  return is_split ? ExpressionsOf(kind).front() : "";
}

struct PieceSplitter::Impl {
  std::vector<Code> expressions;
  std::unique_ptr<pcre2_match_context, FreeMatchContext> context;

  using Visitor = std::function<void(std::string_view)>;

  // Cuts by the expressions from `first` on.
  void Cut(size_t first, std::string_view text, const Visitor& visit) const {
    if (first == expressions.size()) return visit(text);
    Scan(expressions[first].get(), text,
         [&](std::string_view part) { Cut(first + 1, part, visit); });
  }

  // Visits the matches in `text` and what lies between them.
  template <typename Visit>
  void Scan(const pcre2_code* pattern, std::string_view text, const Visit& visit) const {
    const MatchData data(pcre2_match_data_create_from_pattern(pattern, nullptr));
    SWAA_CHECK(data != nullptr) << "out of memory";
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
    size_t done = 0;
    while (done < text.size()) {
      // The text is known to be UTF-8: checking it again at each piece would take quadratic time.
      const int count = pcre2_match(pattern, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                    done, PCRE2_NO_UTF_CHECK, data.get(), context.get());
      if (count == PCRE2_ERROR_NOMATCH) break;
      // A failure of the matcher (a limit, say) makes one character a piece; the text stays whole.
      const size_t begin = count > 0 ? range[0] : done;
      const size_t end = count > 0 ? range[1] : done + FirstUtf8Unit(text.substr(done)).length;
      SWAA_CHECK(end > begin && begin >= done) << "empty match at " << begin;
      if (begin > done) visit(text.substr(done, begin - done));
      visit(text.substr(begin, end - begin));
      done = end;
    }
    if (done < text.size()) visit(text.substr(done));
  }
};

PieceSplitter::PieceSplitter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PieceSplitter::~PieceSplitter() = default;

absl::StatusOr<std::unique_ptr<PieceSplitter>> PieceSplitter::Create(PreTokenizer kind) {
  auto impl = std::make_unique<Impl>();
  for (const std::string_view expression : ExpressionsOf(kind)) {
    absl::StatusOr<Code> code = Compile(expression);
    if (!code.ok()) return code.status();
    impl->expressions.push_back(*std::move(code));
  }
  impl->context.reset(pcre2_match_context_create(nullptr));
  if (impl->context == nullptr) return absl::InternalError("PCRE2 is out of memory");
  // A run of white space as long as a request is backtracked once, which is linear and no attack.
  pcre2_set_match_limit(impl->context.get(), std::numeric_limits<uint32_t>::max());
  return std::unique_ptr<PieceSplitter>(new PieceSplitter(std::move(impl)));
}

void PieceSplitter::Split(std::string_view text,
                          const std::function<void(std::string_view)>& visit) const {
  impl_->Cut(0, text, visit);
}

}  // namespace swaa
