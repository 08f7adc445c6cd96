// Cuts a template into tokens.

#include "engine/jinja/lexer.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/jinja/budget.h"
#include "engine/jinja/string_literal.h"
#include "engine/jinja/unicode.h"

namespace swaa::jinja {
namespace {

using Kind = Token::Kind;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameCharacter(char c) {
  return IsDigit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

// Newlines as \n, and without the last one.
std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizeNewlines(source)), text_(source_) {}

  std::vector<Token> Run() {
    while (at_ < text_.size()) {
      const size_t open = FindOpening(at_);
      if (open == std::string_view::npos) {
        AddData(text_.substr(at_));
        at_ = text_.size();
      } else if (const std::optional<size_t> body = RawBegin(open); body.has_value()) {
        AddDataBefore(open, /*is_variable=*/false);
        MoveTo(*body);
        ReadRaw();
      } else {
        ReadTag(open);
      }
    }
    Add(Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void FailHere(const std::string& message) const { throw Failure(message, line_); }

  void Add(Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  void AddData(std::string_view data) {
    if (!data.empty()) Add(Kind::kData, std::string(data));
  }

  void MoveTo(size_t to) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<ptrdiff_t>(at_),
                                         text_.begin() + static_cast<ptrdiff_t>(to), '\n'));
    line_starting_ = to > at_ ? text_[to - 1] == '\n' : line_starting_;
    at_ = to;
  }

  size_t SkipSpace(size_t at) const {
    while (at < text_.size() && IsSpace(CharacterAt(text_, at))) at += CharacterLength(text_, at);
    return at;
  }

  size_t FindOpening(size_t from) const {
    for (size_t at = text_.find('{', from); at != std::string_view::npos;
         at = text_.find('{', at + 1)) {
      if (at + 1 >= text_.size()) break;
      const char next = text_[at + 1];
      if (next == '{' || next == '%' || next == '#') return at;
    }
    return std::string_view::npos;
  }

  bool HasSign(size_t at) const {
    return at < text_.size() && (text_[at] == '-' || text_[at] == '+');
  }

  // {% name %} with signs and white space at `at`: where it ends. `trims`: whether %} takes a
  // newline with it.
  std::optional<size_t> WholeTag(size_t at, std::string_view name, bool trims) const {
    if (!text_.substr(at).starts_with("{%")) return std::nullopt;
    at += 2;
    if (HasSign(at)) ++at;
    at = SkipSpace(at);
    if (!text_.substr(at).starts_with(name)) return std::nullopt;
    at = SkipSpace(at + name.size());
    const std::string_view rest = text_.substr(at);
    if (rest.starts_with("-%}")) return SkipSpace(at + 3);
    if (trims && rest.starts_with("+%}")) return at + 3;
    if (!rest.starts_with("%}")) return std::nullopt;
    at += 2;
    if (trims && at < text_.size() && text_[at] == '\n') ++at;
    return at;
  }

  std::optional<size_t> RawBegin(size_t at) const { return WholeTag(at, "raw", false); }

  // Data up to the tag at `open`, without the white space that its sign, or its standing alone at
  // a line's beginning, takes away.
  void AddDataBefore(size_t open, bool is_variable) {
    std::string_view data = text_.substr(at_, open - at_);
    const char sign = HasSign(open + 2) ? text_[open + 2] : ' ';
    if (sign == '-') {
      data = TrimRight(data);
    } else if (sign != '+' && !is_variable) {
      const size_t newline = data.rfind('\n');
      const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      const std::string_view last_line = data.substr(line_begin);
      if ((line_begin > 0 || line_starting_) && TrimRight(last_line).empty()) {
        data = data.substr(0, line_begin);
      }
    }
    AddData(data);
  }

  static std::string_view TrimRight(std::string_view data) {
    size_t end = 0;
    for (size_t at = 0; at < data.size();) {
      const size_t length = CharacterLength(data, at);
      if (!IsSpace(CharacterAt(data, at))) end = at + length;
      at += length;
    }
    return data.substr(0, end);
  }

  void ReadRaw() {
    for (size_t at = text_.find("{%", at_); at != std::string_view::npos;
         at = text_.find("{%", at + 1)) {
      const std::optional<size_t> end = WholeTag(at, "endraw", true);
      if (!end.has_value()) continue;
      AddDataBefore(at, /*is_variable=*/false);
      MoveTo(*end);
      return;
    }
    FailHere("{% raw %} without {% endraw %}");
  }

  void ReadTag(size_t open) {
    const char kind = text_[open + 1];
    AddDataBefore(open, kind == '{');
    const bool has_sign = HasSign(open + 2);
    MoveTo(open + (has_sign ? 3 : 2));
    if (kind == '#') return ReadComment();
    Add(kind == '{' ? Kind::kVariableBegin : Kind::kBlockBegin, "");
    ReadCode(kind == '{' ? "}}" : "%}");
  }

  void ReadComment() {
    const size_t end = text_.find("#}", at_);
    if (end == std::string_view::npos) FailHere("{# without #}");
    const char sign = end > at_ ? text_[end - 1] : ' ';
    size_t next = end + 2;
    if (sign == '-') {
      next = SkipSpace(next);
    } else if (sign != '+' && next < text_.size() && text_[next] == '\n') {
      ++next;
    }
    MoveTo(next);
  }

  // Where the tag that ends at `at`, if it does, is followed by what it leaves.
  std::optional<size_t> CodeEnd(std::string_view close) const {
    const std::string_view rest = text_.substr(at_);
    const bool is_block = close == "%}";
    if (rest.starts_with('-') && rest.substr(1).starts_with(close)) return SkipSpace(at_ + 3);
    if (is_block && rest.starts_with('+') && rest.substr(1).starts_with(close)) return at_ + 3;
    if (!rest.starts_with(close)) return std::nullopt;
    const size_t end = at_ + 2;
    return is_block && end < text_.size() && text_[end] == '\n' ? end + 1 : end;
  }

  void ReadCode(std::string_view close) {
    std::string open_brackets;
    for (;;) {
      MoveTo(SkipSpace(at_));
      if (at_ >= text_.size()) FailHere(absl::StrCat("a tag without ", std::string(close)));
      if (open_brackets.empty()) {
        if (const std::optional<size_t> end = CodeEnd(close); end.has_value()) {
          Add(close == "}}" ? Kind::kVariableEnd : Kind::kBlockEnd, "");
          return MoveTo(*end);
        }
      }
      ReadToken(open_brackets);
    }
  }

  void ReadToken(std::string& open_brackets) {
    const char c = text_[at_];
    if (IsDigit(c)) return ReadNumber();
    if (IsNameCharacter(c)) {
      size_t end = at_;
      while (end < text_.size() && IsNameCharacter(text_[end])) ++end;
      Add(Kind::kName, std::string(text_.substr(at_, end - at_)));
      return MoveTo(end);
    }
    if (c == '\'' || c == '"') return ReadString(c);
    ReadOperator(open_brackets);
  }

  // The end of digits, with single underscores between them, from `at` on.
  size_t DigitsEnd(size_t at) const {
    while (at < text_.size() &&
           (IsDigit(text_[at]) || (text_[at] == '_' && at + 1 < text_.size() && at > 0 &&
                                   IsDigit(text_[at - 1]) && IsDigit(text_[at + 1])))) {
      ++at;
    }
    return at;
  }

  void ReadNumber() {
    const bool after_dot = at_ > 0 && text_[at_ - 1] == '.';
    size_t end = DigitsEnd(at_);
    bool is_float = false;
    const auto digit_at = [&](size_t at) { return at < text_.size() && IsDigit(text_[at]); };
    if (!after_dot && end < text_.size() && text_[end] == '.' && digit_at(end + 1)) {
      end = DigitsEnd(end + 1);
      is_float = true;
    }
    if (!after_dot && end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      const size_t digits = HasSign(end + 1) ? end + 2 : end + 1;
      if (digit_at(digits)) {
        end = DigitsEnd(digits);
        is_float = true;
      }
    }
    std::string number(text_.substr(at_, end - at_));
    number.erase(std::remove(number.begin(), number.end(), '_'), number.end());
    const bool leading_zero = number.size() > 1 && number[0] == '0';
    const bool other_base = end < text_.size() && number == "0" && IsNameCharacter(text_[end]);
    if (!is_float &&
        (other_base || (leading_zero && number.find_first_not_of('0') != std::string::npos))) {
      FailHere(absl::StrCat("the number ", number, "… is not supported; write it in decimal"));
    }
    Add(is_float ? Kind::kFloat : Kind::kInteger, std::move(number));
    MoveTo(end);
  }

  void ReadString(char quote) {
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) FailHere("a string without its closing quote");
    const std::string_view body = text_.substr(at_ + 1, end - at_ - 1);
    std::optional<std::string> value = UnescapeString(body);
    if (!value.has_value()) FailHere("a string with an escape that is not supported");
    Add(Kind::kString, *std::move(value));
    MoveTo(end + 1);
  }

  void ReadOperator(std::string& open_brackets) {
    const std::string_view rest = text_.substr(at_);
    for (const std::string_view two : {"//", "**", "==", "!=", ">=", "<="}) {
      if (!rest.starts_with(two)) continue;
      Add(Kind::kOperator, std::string(two));
      return MoveTo(at_ + 2);
    }
    const char c = rest[0];
    if (std::string_view("+-/*%~[](){}<>=.:|,;").find(c) == std::string_view::npos) {
      FailHere(absl::StrCat("unexpected character '",
                            std::string(rest.substr(0, CharacterLength(rest, 0))), "'"));
    }
    if (c == '(' || c == '[' || c == '{') {
      open_brackets += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
      if (open_brackets.empty() || open_brackets.back() != c) {
        FailHere(absl::StrCat("unexpected '", std::string(1, c), "'"));
      }
      open_brackets.pop_back();
    }
    Add(Kind::kOperator, std::string(1, c));
    MoveTo(at_ + 1);
  }

  const std::string source_;
  const std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> Tokenize(std::string_view source) { return Lexer(source).Run(); }

}  // namespace swaa::jinja
