// The configuration file as a message, and what overrides it.

#include "server/settings/config.h"

#include <memory>
#include <set>

#include <google/protobuf/util/message_differencer.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"
#include "server/settings/regular_file.h"
#include "server/settings/yaml_message.h"

namespace swaa::server {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// The largest file that is read; a real one has a few KiB.
constexpr size_t kMostFileBytes = size_t{4} << 20;

std::vector<const FieldDescriptor*> SetFields(const Message& message) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  return fields;
}

bool IsSection(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field.is_repeated() &&
         field.message_type()->file() == v1::ServerConfig::descriptor()->file();
}

// Takes over every setting that `from` has, whole: a duration's seconds and nanoseconds go
// together.
void Override(const Message& from, Message* to) {
  for (const FieldDescriptor* field : SetFields(from)) {
    if (IsSection(*field)) {
      Override(from.GetReflection()->GetMessage(from, field),
               to->GetReflection()->MutableMessage(to, field));
      continue;
    }
    // A message of this one setting.
    std::unique_ptr<Message> one(from.New());
    one->CopyFrom(from);
    for (const FieldDescriptor* other : SetFields(from)) {
      if (other != field) one->GetReflection()->ClearField(one.get(), other);
    }
    to->GetReflection()->ClearField(to, field);
    to->MergeFrom(*one);
  }
}

void CollectKeys(const Message& message, const std::string& path, std::set<std::string>* keys) {
  for (const FieldDescriptor* field : SetFields(message)) {
    const std::string key = path.empty() ? field->name() : absl::StrCat(path, ".", field->name());
    if (IsSection(*field)) {
      CollectKeys(message.GetReflection()->GetMessage(message, field), key, keys);
    } else {
      keys->insert(key);
    }
  }
}

absl::StatusOr<std::string> ReadText(const std::string& path) {
  absl::StatusOr<RegularFile> file = ReadRegularFile(path, kMostFileBytes);
  if (file.ok()) return std::move(file->bytes);
  const std::string why(file.status().message());
  if (absl::IsInvalidArgument(file.status())) {
    return absl::InvalidArgumentError(
        absl::StrCat("--config: ", Quoted(path), " ", why, "; is it a configuration file?"));
  }
  return absl::NotFoundError(
      absl::StrCat("--config: cannot read ", Quoted(path), ": ", why, "; name a YAML file"));
}

bool IsBlank(const std::string& text) {
  bool comment = false;
  for (char c : text) {
    if (c == '\n') {
      comment = false;
    } else if (c == '#') {
      comment = true;
    } else if (!comment && c != ' ' && c != '\t' && c != '\r') {
      return false;
    }
  }
  return true;
}

}  // namespace

std::set<std::string> KeysOf(const v1::ServerConfig& config) {
  std::set<std::string> keys;
  CollectKeys(config, "", &keys);
  return keys;
}

void OverrideConfig(const v1::ServerConfig& from, v1::ServerConfig* to) { Override(from, to); }

absl::StatusOr<v1::ServerConfig> ReadConfigFile(const std::string& path, bool may_be_blank) {
  SWAA_ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  if (!may_be_blank && IsBlank(text)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--config: ", Quoted(path),
                     " is empty; write {} into it to set nothing and keep the built-in recipes"));
  }
  v1::ServerConfig config;
  SWAA_RETURN_IF_ERROR(ReadYamlMessage(text, path, &config));
  return config;
}

std::vector<std::string> ChangedFixedSettings(const v1::ServerConfig& before,
                                              const v1::ServerConfig& now) {
  std::set<std::string> keys = KeysOf(before);
  keys.merge(KeysOf(now));
  std::vector<std::string> changed;
  for (const std::string& key : keys) {
    const size_t dot = key.find('.');
    // Recipes, experiments and shadows reload.
    if (dot == std::string::npos || key.starts_with("shadow.")) continue;
    const FieldDescriptor* section =
        v1::ServerConfig::descriptor()->FindFieldByName(key.substr(0, dot));
    const FieldDescriptor* setting = section->message_type()->FindFieldByName(key.substr(dot + 1));
    google::protobuf::util::MessageDifferencer differencer;
    if (!differencer.CompareWithFields(before.GetReflection()->GetMessage(before, section),
                                       now.GetReflection()->GetMessage(now, section), {setting},
                                       {setting})) {
      changed.push_back(key);
    }
  }
  return changed;
}

}  // namespace swaa::server
