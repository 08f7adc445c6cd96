// How values are printed: Python's str() and repr().

#include "engine/jinja/print.h"

#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/jinja/unicode.h"

namespace swaa::jinja {
namespace {

void AppendEscaped(char32_t character, char quote, std::string& out) {
  if (character == '\\' || character == static_cast<char32_t>(quote)) {
    out += '\\';
    out += static_cast<char>(character);
  } else if (character == '\n') {
    out += "\\n";
  } else if (character == '\r') {
    out += "\\r";
  } else if (character == '\t') {
    out += "\\t";
  } else if (IsPrintable(character)) {
    AppendCharacter(character, out);
  } else if (character < 0x100) {
    absl::StrAppend(&out, "\\x", absl::Hex(static_cast<uint32_t>(character), absl::kZeroPad2));
  } else if (character < 0x10000) {
    absl::StrAppend(&out, "\\u", absl::Hex(static_cast<uint32_t>(character), absl::kZeroPad4));
  } else {
    absl::StrAppend(&out, "\\U", absl::Hex(static_cast<uint32_t>(character), absl::kZeroPad8));
  }
}

class ReprWriter {
 public:
  explicit ReprWriter(Budget& budget) : budget_(budget) {}

  void Write(const Value& value) {
    const Budget::Level level(budget_);
    budget_.Step();
    if (const Text* text = value.text(); text != nullptr) {
      WriteText(*text);
    } else if (const Sequence* sequence = value.sequence(); sequence != nullptr) {
      WriteSequence(*sequence);
    } else if (const Dict* dict = value.dict(); dict != nullptr) {
      WriteDict(*dict);
    } else {
      Put(Scalar(value));
    }
  }
  Text Take() { return std::move(out_); }

 private:
  std::string Scalar(const Value& value) {
    if (value.is_undefined()) return "Undefined";
    if (value.is_none()) return "None";
    if (value.is_bool()) return IsTrue(value) ? "True" : "False";
    if (value.is_integer()) return absl::StrCat(*value.AsInteger());
    if (value.is_float()) return FormatFloat(*value.AsNumber());
    return value.object()->Repr(budget_);
  }

  void Put(std::string_view text) {
    budget_.Take(text.size());
    out_.Append(text, false);
  }

  void WriteText(const Text& text) {
    const bool has_single = text.bytes().find('\'') != std::string::npos;
    const bool has_double = text.bytes().find('"') != std::string::npos;
    const char quote = has_single && !has_double ? '"' : '\'';
    const std::string_view open(&quote, 1);
    if (text.is_markup) Put("Markup(");
    Put(open);
    size_t at = 0;
    for (const Text::Run& run : text.runs()) {
      std::string escaped;
      for (; at < run.end; at += CharacterLength(text.bytes(), at)) {
        AppendEscaped(CharacterAt(text.bytes(), at), quote, escaped);
      }
      budget_.Take(escaped.size());
      out_.Append(escaped, run.is_input);
    }
    Put(open);
    if (text.is_markup) Put(")");
  }

  void WriteItems(const Sequence& sequence) {
    for (size_t i = 0; i < sequence.items.size(); ++i) {
      if (i > 0) Put(", ");
      Write(sequence.items[i]);
    }
  }

  void WriteSequence(const Sequence& sequence) {
    switch (sequence.kind) {
      case Sequence::Kind::kList:
        Put("[");
        WriteItems(sequence);
        return Put("]");
      case Sequence::Kind::kTuple:
        Put("(");
        WriteItems(sequence);
        return Put(sequence.items.size() == 1 ? ",)" : ")");
      case Sequence::Kind::kRange:
        if (sequence.repr.empty()) Fail("printing a part of a range is not supported");
        return Put(sequence.repr);
      case Sequence::Kind::kView:
        Put(sequence.type_name);
        Put("([");
        WriteItems(sequence);
        return Put("])");
      case Sequence::Kind::kIterator:
        // Python prints an address, which no template can mean.
        Fail(absl::StrCat("printing a ", sequence.type_name,
                          " is not supported; use the filter list"));
    }
  }

  void WriteDict(const Dict& dict) {
    Put("{");
    bool first = true;
    for (const auto& [key, value] : dict.entries()) {
      if (!first) Put(", ");
      first = false;
      Write(key);
      Put(": ");
      Write(value);
    }
    Put("}");
  }

  Budget& budget_;
  Text out_;
};

}  // namespace

std::string FormatFloat(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), number, std::chars_format::scientific);
  std::string_view digits(buffer, static_cast<size_t>(end.ptr - buffer));
  std::string out;
  if (digits[0] == '-') {
    out += '-';
    digits.remove_prefix(1);
  }
  const size_t mark = digits.find('e');
  int exponent = 0;
  const std::string_view exponent_text = digits.substr(mark + (digits[mark + 1] == '+' ? 2 : 1));
  std::from_chars(exponent_text.data(), exponent_text.data() + exponent_text.size(), exponent);
  std::string mantissa(digits.substr(0, 1));
  if (mark > 2) mantissa += digits.substr(2, mark - 2);
  const int count = static_cast<int>(mantissa.size());
  if (exponent < -4 || exponent >= 16) {
    out += mantissa[0];
    if (count > 1) absl::StrAppend(&out, ".", mantissa.substr(1));
    return absl::StrCat(out,
                        absl::StrFormat("e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent)));
  }
  if (exponent < 0) return absl::StrCat(out, "0.", std::string(-exponent - 1, '0'), mantissa);
  if (count <= exponent + 1) {
    return absl::StrCat(out, mantissa, std::string(exponent + 1 - count, '0'), ".0");
  }
  return absl::StrCat(out, mantissa.substr(0, exponent + 1), ".", mantissa.substr(exponent + 1));
}

Text Repr(const Value& value, Budget& budget) {
  ReprWriter writer(budget);
  writer.Write(value);
  return writer.Take();
}

Text ToText(const Value& value, Budget& budget) {
  if (value.is_undefined()) return Text();
  if (const Text* text = value.text(); text != nullptr) {
    budget.Take(text->size());
    return *text;
  }
  return Repr(value, budget);
}

}  // namespace swaa::jinja
