// JSON as a template's input, and what the filter tojson writes.

#include "engine/jinja/json.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/jinja/operators.h"
#include "engine/jinja/print.h"
#include "engine/jinja/unicode.h"

namespace swaa::jinja {
namespace {

constexpr size_t kMaxJsonDepth = 100;

// What nlohmann's parser calls; it keeps the order of keys and the difference between 1 and 1.0.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  Builder() : budget_(Limits{.max_steps = std::numeric_limits<int64_t>::max() / 2}) {}

  bool null() override { return Add(Value()); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(static_cast<int64_t>(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return FailBigInteger(absl::StrCat(value));
    }
    return Add(static_cast<int64_t>(value));
  }
  bool number_float(number_float_t value, const string_t& text) override {
    if (text.find_first_of(".eE") == std::string::npos) return FailBigInteger(text);
    return Add(static_cast<double>(value));
  }
  bool string(string_t& value) override { return Add(MakeText(std::move(value), true)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return Open(true); }
  bool key(string_t& key) override {
    levels_.back().key = MakeText(std::move(key), true);
    return true;
  }
  bool end_object() override { return Close(); }
  bool start_array(size_t) override { return Open(false); }
  bool end_array() override { return Close(); }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    error_ = absl::StrCat("no JSON at byte ", position);
    return false;
  }

  Value result() const { return result_; }
  const std::string& error() const { return error_; }

 private:
  struct Level {
    bool is_object;
    Value key;
    std::vector<Value> items;
    std::shared_ptr<Dict> dict;
  };

  bool FailBigInteger(const std::string& text) {
    error_ = absl::StrCat("the integer ", text.substr(0, 40), " needs more than 64 bits");
    return false;
  }
  bool Open(bool is_object) {
    if (levels_.size() >= kMaxJsonDepth) {
      error_ = absl::StrCat("it is nested deeper than ", kMaxJsonDepth, " levels");
      return false;
    }
    levels_.push_back({.is_object = is_object});
    if (is_object) levels_.back().dict = std::make_shared<Dict>();
    return true;
  }
  bool Close() {
    Level level = std::move(levels_.back());
    levels_.pop_back();
    if (level.is_object) return Add(std::shared_ptr<const Dict>(std::move(level.dict)));
    return Add(MakeSequence(std::move(level.items), budget_));
  }
  bool Add(Value value) {
    if (levels_.empty()) {
      result_ = std::move(value);
    } else if (levels_.back().is_object) {
      levels_.back().dict->Set(levels_.back().key, std::move(value), budget_);
    } else {
      levels_.back().items.push_back(std::move(value));
    }
    return true;
  }

  Budget budget_;
  std::vector<Level> levels_;
  Value result_;
  std::string error_;
};

void AppendJsonCharacter(char32_t character, bool ensure_ascii, std::string& out) {
  switch (character) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    case '\f':
      out += "\\f";
      return;
    case '\b':
      out += "\\b";
      return;
    default:
      break;
  }
  if (character < 0x20 || (ensure_ascii && character > 0x7E && character < 0x10000)) {
    absl::StrAppend(&out, "\\u", absl::Hex(static_cast<uint32_t>(character), absl::kZeroPad4));
  } else if (ensure_ascii && character >= 0x10000) {
    const uint32_t rest = static_cast<uint32_t>(character) - 0x10000;
    absl::StrAppend(&out, "\\u", absl::Hex(0xD800 + (rest >> 10), absl::kZeroPad4), "\\u",
                    absl::Hex(0xDC00 + (rest & 0x3FF), absl::kZeroPad4));
  } else {
    AppendCharacter(character, out);
  }
}

class JsonWriter {
 public:
  JsonWriter(const JsonFormat& format, Budget& budget) : format_(format), budget_(budget) {
    item_separator_ = format.item_separator.value_or(format.indent.has_value() ? "," : ", ");
    key_separator_ = format.key_separator.value_or(": ");
  }

  void Write(const Value& value) {
    const Budget::Level level(budget_);
    budget_.Step();
    if (const Text* text = value.text(); text != nullptr) return WriteText(*text);
    if (const Sequence* sequence = value.sequence();
        sequence != nullptr &&
        (sequence->kind == Sequence::Kind::kList || sequence->kind == Sequence::Kind::kTuple)) {
      return WriteList(sequence->items);
    }
    if (const Dict* dict = value.dict(); dict != nullptr) return WriteDict(*dict);
    Put(Scalar(value));
  }
  Text Take() { return std::move(out_); }

 private:
  static std::string Scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (value.is_bool()) return IsTrue(value) ? "true" : "false";
    if (value.is_integer()) return absl::StrCat(*value.AsInteger());
    if (value.is_float()) {
      const double number = *value.AsNumber();
      if (std::isnan(number)) return "NaN";
      if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
      return FormatFloat(number);
    }
    Fail(absl::StrCat("Object of type ", TypeName(value), " is not JSON serializable"));
  }

  void Put(std::string_view text) {
    budget_.Take(text.size());
    out_.Append(text, false);
  }

  void NewLine() {
    if (!format_.indent.has_value()) return;
    budget_.Take(depth_ * format_.indent->size() + 1);
    std::string line = "\n";
    for (size_t i = 0; i < depth_; ++i) line += *format_.indent;
    out_.Append(line, false);
  }

  void WriteText(const Text& text) {
    Put("\"");
    size_t at = 0;
    for (const Text::Run& run : text.runs()) {
      std::string escaped;
      for (; at < run.end; at += CharacterLength(text.bytes(), at)) {
        AppendJsonCharacter(CharacterAt(text.bytes(), at), format_.ensure_ascii, escaped);
      }
      budget_.Take(escaped.size());
      out_.Append(escaped, run.is_input);
    }
    Put("\"");
  }

  void WriteList(const std::vector<Value>& items) {
    if (items.empty()) return Put("[]");
    Put("[");
    ++depth_;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) Put(item_separator_);
      NewLine();
      Write(items[i]);
    }
    --depth_;
    NewLine();
    Put("]");
  }

  void WriteKey(const Value& key) {
    if (key.is_text()) return WriteText(*key.text());
    if (key.sequence() != nullptr || key.is_undefined() || key.object() != nullptr) {
      Fail(absl::StrCat("keys must be str, int, float, bool or None, not ", TypeName(key)));
    }
    Put("\"");
    Put(Scalar(key));
    Put("\"");
  }

  void WriteDict(const Dict& dict) {
    if (dict.entries().empty()) return Put("{}");
    std::vector<Dict::Entry> entries = dict.entries();
    if (format_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [&](const auto& a, const auto& b) {
        return IsLess(a.first, b.first, budget_);
      });
    }
    Put("{");
    ++depth_;
    bool first = true;
    for (const auto& [key, value] : entries) {
      if (!first) Put(item_separator_);
      first = false;
      NewLine();
      WriteKey(key);
      Put(key_separator_);
      Write(value);
    }
    --depth_;
    NewLine();
    Put("}");
  }

  const JsonFormat& format_;
  Budget& budget_;
  std::string item_separator_;
  std::string key_separator_;
  size_t depth_ = 0;
  Text out_;
};

}  // namespace

absl::StatusOr<Value> ParseJson(std::string_view json) {
  Builder builder;
  try {
    if (!nlohmann::json::sax_parse(json.begin(), json.end(), &builder)) {
      return absl::InvalidArgumentError(builder.error());
    }
  } catch (const Failure& failure) {
    return absl::InvalidArgumentError(failure.what());
  }
  return builder.result();
}

Text ToJson(const Value& value, const JsonFormat& format, Budget& budget) {
  JsonWriter writer(format, budget);
  writer.Write(value);
  return writer.Take();
}

}  // namespace swaa::jinja
