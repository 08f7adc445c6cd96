// Reads a Jinja chat template as text.

#include "engine/tokenizer/jinja_text.h"

#include <cctype>

#include "absl/strings/str_cat.h"

namespace swaa {
namespace {

bool IsSpace(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }
bool IsWord(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool IsName(std::string_view text) {
  for (const char c : text) {
    if (!IsWord(c)) return false;
  }
  return !text.empty();
}

// Reads the string constant that `text` begins with (a quote) and removes it from `text`.
std::string TakeString(std::string_view& text) {
  const char quote = text[0];
  text.remove_prefix(1);
  std::string value;
  while (!text.empty() && text[0] != quote) {
    char c = text[0];
    text.remove_prefix(1);
    if (c == '\\' && !text.empty()) {
      c = text[0] == 'n' ? '\n' : text[0] == 't' ? '\t' : text[0] == 'r' ? '\r' : text[0];
      text.remove_prefix(1);
    }
    value.push_back(c);
  }
  if (!text.empty()) text.remove_prefix(1);
  return value;
}

std::string Quoted(std::string_view value) {
  std::string quoted = "'";
  for (const char c : value) {
    if (c == '\n') {
      quoted += "\\n";
    } else {
      if (c == '\'' || c == '\\') quoted += '\\';
      quoted += c;
    }
  }
  return quoted + "'";
}

// Reads a block's inside up to `close` and removes both from `text`.
void TakeBlock(std::string_view& text, std::string_view close, JinjaText& out) {
  bool spaced = false;
  while (!text.empty() && !text.starts_with(close)) {
    const char c = text[0];
    if (c == '\'' || c == '"') {
      const std::string value = TakeString(text);
      out.strings.push_back(value);
      if (out.code.ends_with('[') && text.starts_with(']') && IsName(value)) {
        out.code.back() = '.';
        out.code += value;
        text.remove_prefix(1);
      } else {
        out.code += Quoted(value);
      }
      spaced = false;
      continue;
    }
    text.remove_prefix(1);
    if (IsSpace(c)) {
      spaced = true;
      continue;
    }
    if (c == '-' && text.starts_with(close)) continue;
    if (spaced && IsWord(c) && !out.code.empty() && IsWord(out.code.back())) out.code += ' ';
    out.code += c;
    spaced = false;
  }
  text.remove_prefix(std::min(close.size(), text.size()));
}

}  // namespace

JinjaText ReadJinja(std::string_view text) {
  JinjaText out;
  while (!text.empty()) {
    if (text.starts_with("{#")) {
      const size_t end = text.find("#}");
      text = end == std::string_view::npos ? "" : text.substr(end + 2);
    } else if (text.starts_with("{{") || text.starts_with("{%")) {
      const std::string open(text.substr(0, 2));
      const std::string close = open == "{{" ? "}}" : "%}";
      text.remove_prefix(2);
      if (text.starts_with('-')) text.remove_prefix(1);
      out.code += open;
      TakeBlock(text, close, out);
      out.code += close;
    } else {
      if (!IsSpace(text[0])) out.has_outside_text = true;
      text.remove_prefix(1);
    }
  }
  return out;
}

}  // namespace swaa
