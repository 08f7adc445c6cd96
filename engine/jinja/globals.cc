// The functions that every template can call.

#include "engine/jinja/globals.h"

#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/jinja/interpreter.h"
#include "engine/jinja/objects.h"
#include "engine/jinja/operators.h"
#include "engine/jinja/parameters.h"
#include "engine/jinja/print.h"

namespace swaa::jinja {
namespace {

// Jinja's sandbox allows no more.
constexpr int64_t kMaxRange = 100'000;

Value Range(Interpreter& interpreter, const Arguments& arguments) {
  const Parameters parameters("range", arguments, {"start", "stop", "step"}, 3);
  parameters.Required(0);
  int64_t start = parameters.IntegerOr(0, 0);
  int64_t stop = parameters.IntegerOr(1, 0);
  if (!parameters.Has(1)) std::swap(start, stop);
  const int64_t step = parameters.IntegerOr(2, 1);
  if (step == 0) Fail("range() arg 3 must not be zero");
  const auto sequence = std::make_shared<Sequence>();
  sequence->kind = Sequence::Kind::kRange;
  sequence->repr = absl::StrCat("range(", start, ", ", stop);
  if (step != 1) absl::StrAppend(&sequence->repr, ", ", step);
  sequence->repr += ")";
  for (int64_t at = start; step > 0 ? at < stop : at > stop;) {
    interpreter.budget().Take(sizeof(Value));
    if (static_cast<int64_t>(sequence->items.size()) >= kMaxRange) {
      Fail(absl::StrCat("a range of more than ", kMaxRange, " numbers"));
    }
    sequence->items.push_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  interpreter.budget().Step(static_cast<int64_t>(sequence->items.size()));
  return sequence;
}

// The entries that dict() and namespace() take: a mapping or pairs, then names.
void AddEntries(Interpreter& interpreter, const Arguments& arguments,
                const std::function<void(const Value&, const Value&)>& add) {
  Budget& budget = interpreter.budget();
  if (arguments.positional.size() > 1) Fail("dict expected at most 1 argument");
  for (const Value& value : arguments.positional) {
    if (value.dict() != nullptr) {
      for (const auto& [key, item] : value.dict()->entries()) add(key, item);
      continue;
    }
    for (const Value& pair : Iterate(value, budget)) {
      const std::vector<Value> parts = Iterate(pair, budget);
      if (parts.size() != 2) Fail("dict() takes pairs of key and value");
      add(parts[0], parts[1]);
    }
  }
  for (const auto& [key, value] : arguments.named) add(MakeText(key), value);
}

Value MakeDict(Interpreter& interpreter, const Arguments& arguments) {
  auto dict = std::make_shared<Dict>();
  AddEntries(interpreter, arguments, [&](const Value& key, const Value& value) {
    dict->Set(key, value, interpreter.budget());
  });
  return std::shared_ptr<const Dict>(std::move(dict));
}

Value MakeNamespace(Interpreter& interpreter, const Arguments& arguments) {
  const auto result = std::make_shared<Namespace>();
  interpreter.Register(result);
  AddEntries(interpreter, arguments, [&](const Value& key, const Value& value) {
    if (key.is_text() && key.text()->bytes().starts_with('_')) {
      Fail(absl::StrCat("a namespace has no attributes with an underscore first, such as ",
                        key.text()->bytes()));
    }
    result->Set(key, value, interpreter.budget());
  });
  return std::shared_ptr<Object>(result);
}

Value MakeCycler(Interpreter& interpreter, const Arguments& arguments) {
  if (arguments.positional.empty() || !arguments.named.empty()) {
    Fail("cycler() takes one or more values");
  }
  const Value items = MakeSequence(arguments.positional, interpreter.budget());
  return std::shared_ptr<Object>(std::make_shared<Cycler>(items.sequence()->items, DepthOf(items)));
}

Value MakeJoiner(Interpreter& interpreter, const Arguments& arguments) {
  const Parameters parameters("joiner", arguments, {"sep"});
  const Value separator = parameters.Or(0, MakeText(", "));
  interpreter.budget().CheckDepth(DepthOf(separator) + 1);
  return std::shared_ptr<Object>(std::make_shared<Joiner>(separator));
}

Value RaiseException(Interpreter& interpreter, const Arguments& arguments) {
  const Parameters parameters("raise_exception", arguments, {"message"});
  Fail(ToText(parameters.Required(0), interpreter.budget()).bytes());
}

// Of a time without zone, as Python's datetime.now(): %z and %Z are empty.
Value StrftimeNow(Interpreter& interpreter, const Arguments& arguments) {
  const Parameters parameters("strftime_now", arguments, {"format"});
  const std::time_t now = interpreter.now();
  std::tm parts{};
  localtime_r(&now, &parts);
  std::string out;
  const std::string& format = parameters.RequiredText(0).bytes();
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    std::string directive = {'%', format[++i]};
    if (format[i] == '-' && i + 1 < format.size()) directive += format[++i];
    if (format[i] == 'z' || format[i] == 'Z') continue;
    if (format[i] == 'f') {
      out += "000000";
      continue;
    }
    char buffer[128];
    out.append(buffer, std::strftime(buffer, sizeof(buffer), directive.c_str(), &parts));
  }
  return MakeText(std::move(out));
}

struct Entry {
  const char* name;
  Value (*function)(Interpreter&, const Arguments&);
};

constexpr Entry kGlobals[] = {
    {"range", Range},
    {"dict", MakeDict},
    {"namespace", MakeNamespace},
    {"cycler", MakeCycler},
    {"joiner", MakeJoiner},
    {"raise_exception", RaiseException},
    {"strftime_now", StrftimeNow},
};

}  // namespace

std::optional<Value> FindGlobal(std::string_view name) {
  for (const Entry& entry : kGlobals) {
    if (entry.name == name) return MakeFunction(entry.name, entry.function);
  }
  if (name == "lipsum") Fail("lipsum() is not supported");
  return std::nullopt;
}

}  // namespace swaa::jinja
