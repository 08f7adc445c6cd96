// YAML text into a protobuf message, by reflection.

#include "server/settings/yaml_message.h"

#include <algorithm>
#include <exception>
#include <set>
#include <sstream>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "engine/tokenizer/utf8.h"
#include "server/generate/errors.h"
#include "server/settings/field_text.h"
#include "server/settings/values.h"

namespace swaa::server {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Anchors can make a small file a deep or cyclic tree; no message here is as deep.
constexpr int kMostDepth = 32;

std::vector<std::string> FieldNames(const Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
  return names;
}

class Reader {
 public:
  explicit Reader(const std::string& file) : file_(file) {}

  // `path` is that of the message; empty for the document.
  absl::Status ReadMessage(const YAML::Node& node, const std::string& path, int depth,
                           Message* message) const {
    const Descriptor& type = *message->GetDescriptor();
    if (depth > kMostDepth) return Wrong(node, path, "nested too deeply");
    if (node.IsNull()) return absl::OkStatus();  // a key with nothing under it
    if (!node.IsMap()) {
      return Wrong(node, path,
                   absl::StrCat("expected keys (", absl::StrJoin(FieldNames(type), ", "), "), got ",
                                Shown(node)));
    }
    std::set<std::string> seen;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) return Wrong(entry.first, path, "a key must be a plain word");
      const std::string key = entry.first.Scalar();
      const std::string below = path.empty() ? Word(key) : absl::StrCat(path, ".", Word(key));
      const FieldDescriptor* field = type.FindFieldByName(key);
      if (field == nullptr) return Unknown(entry.first, below, key, type);
      if (!seen.insert(key).second) return Wrong(entry.first, below, "written twice");
      SWAA_RETURN_IF_ERROR(ReadField(entry.second, below, depth, *field, message));
    }
    return absl::OkStatus();
  }

 private:
  // A key in a path: as it is where it is an identifier, else quoted.
  static std::string Word(const std::string& key) {
    const bool plain = key.size() <= 64 && !key.empty() &&
                       key.find_first_not_of(
                           "abcdefghijklmnopqrstuvwxyz"
                           "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == std::string::npos;
    return plain ? key : Quoted(key);
  }

  static std::string Shown(const YAML::Node& node) {
    if (node.IsScalar()) return Quoted(node.Scalar());
    if (node.IsSequence()) return "a list";
    return node.IsMap() ? "a map" : "nothing";
  }

  absl::Status Wrong(const YAML::Node& node, const std::string& path,
                     const std::string& what) const {
    const YAML::Mark mark = node.Mark();
    return absl::InvalidArgumentError(
        absl::StrCat(file_, mark.is_null() ? "" : absl::StrCat(":", mark.line + 1), ": ", path,
                     path.empty() ? "" : ": ", what));
  }

  absl::Status Unknown(const YAML::Node& node, const std::string& path, const std::string& key,
                       const Descriptor& type) const {
    const std::vector<std::string> names = FieldNames(type);
    const std::string nearest = NearestWord(key, names);
    return Wrong(
        node, path,
        absl::StrCat("no such key; ",
                     nearest.empty() ? "" : absl::StrCat("did you mean ", nearest, "? "),
                     nearest.empty() ? "there are " : "There are ", absl::StrJoin(names, ", ")));
  }

  absl::Status Expected(const YAML::Node& node, const std::string& path,
                        const std::string& what) const {
    return Wrong(node, path, absl::StrCat("expected ", what, ", got ", Shown(node)));
  }

  absl::Status ReadField(const YAML::Node& node, const std::string& path, int depth,
                         const FieldDescriptor& field, Message* message) const {
    const Reflection& reflection = *message->GetReflection();
    if (const auto* one = field.real_containing_oneof();
        one != nullptr && reflection.HasOneof(*message, one)) {
      return Wrong(
          node, path,
          absl::StrCat("excludes ", reflection.GetOneofFieldDescriptor(*message, one)->name(),
                       ", which is set too; keep one of them"));
    }
    if (!field.is_repeated()) return ReadOne(node, path, depth, field, message);
    if (node.IsNull()) return absl::OkStatus();
    if (!node.IsSequence()) return Expected(node, path, "a list");
    int index = 0;
    for (const YAML::Node& item : node) {
      SWAA_RETURN_IF_ERROR(
          ReadOne(item, absl::StrCat(path, "[", index++, "]"), depth, field, message));
    }
    return absl::OkStatus();
  }

  // Sets the field, or appends to it.
  absl::Status ReadOne(const YAML::Node& node, const std::string& path, int depth,
                       const FieldDescriptor& field, Message* message) const {
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !IsDuration(field) &&
        !IsTimestamp(field)) {
      const Reflection& reflection = *message->GetReflection();
      return ReadMessage(node, path, depth + 1,
                         field.is_repeated() ? reflection.AddMessage(message, &field)
                                             : reflection.MutableMessage(message, &field));
    }
    if (node.IsScalar() && SetFieldFromText(node.Scalar(), field, message)) return absl::OkStatus();
    return Expected(node, path, TextThatFieldTakes(field));
  }

  const std::string& file_;
};

// Reads events and keeps none.
class IgnoreEvents final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

// yaml-cpp's LoadAll finds documents for ever in some malformed files, such as one of a single
// comma.
bool HasMoreThanOneDocument(const std::string& text) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  IgnoreEvents ignore;
  return parser.HandleNextDocument(ignore) && parser.HandleNextDocument(ignore);
}

}  // namespace

absl::Status ReadYamlMessage(const std::string& text, const std::string& file, Message* message) {
  // Messages quote what they refuse and must be UTF-8 themselves. A zero byte would make yaml-cpp
  // guess at UTF-16 or UTF-32.
  const size_t whole = std::min(ValidUtf8Prefix(text), text.find('\0'));
  if (whole < text.size()) {
    const auto line =
        1 + std::count(text.begin(), text.begin() + static_cast<int64_t>(whole), '\n');
    return absl::InvalidArgumentError(absl::StrCat(
        file, ":", line, ": byte ", whole, " of the file is no UTF-8 text; save it as UTF-8"));
  }
  // yaml-cpp reports by exceptions; none leaves this function.
  try {
    if (HasMoreThanOneDocument(text)) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": more than one document, or something behind the first; keep one"));
    }
    const YAML::Node document = YAML::Load(text);
    if (document.IsNull()) return absl::OkStatus();
    return Reader(file).ReadMessage(document, "", 0, message);
  } catch (const YAML::Exception& error) {
    // Its message may quote one byte of a character.
    return absl::InvalidArgumentError(
        absl::StrCat(file, error.mark.is_null() ? "" : absl::StrCat(":", error.mark.line + 1),
                     ": no YAML: ", AsValidUtf8(error.msg)));
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": cannot be read: ", error.what()));
  }
}

}  // namespace swaa::server
