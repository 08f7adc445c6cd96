// Every setting, as config.proto has it: its key, its flag, its default and what it may be.

#include "server/settings/setting_table.h"

#include <algorithm>
#include <memory>

#include <google/protobuf/duration.pb.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"
#include "server/settings/field_text.h"

namespace swaa::server {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// gRPC takes milliseconds in an int.
constexpr char kLongestDuration[] = "576h";

void AddSettings(const Descriptor& message, const FieldDescriptor* section,
                 std::vector<SettingEntry>* out) {
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor* field = message.field(i);
    if (!field->options().HasExtension(v1::setting)) continue;
    SettingEntry entry{.key = field->name(), .section = section, .field = field};
    if (section != nullptr) entry.key = absl::StrCat(section->name(), ".", field->name());
    entry.setting = field->options().GetExtension(v1::setting);
    if (IsDuration(*field) && entry.setting.most().empty()) {
      entry.setting.set_most(kLongestDuration);
    }
    out->push_back(std::move(entry));
  }
}

std::vector<SettingEntry> MakeTable() {
  const Descriptor& file = *v1::ServerConfig::descriptor();
  std::vector<SettingEntry> table;
  for (int i = 0; i < file.field_count(); ++i) {
    const FieldDescriptor* field = file.field(i);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_repeated()) {
      AddSettings(*field->message_type(), field, &table);
    }
  }
  AddSettings(file, nullptr, &table);
  return table;
}

const Message& SectionOf(const SettingEntry& entry, const v1::ServerConfig& config) {
  return entry.section == nullptr ? config
                                  : config.GetReflection()->GetMessage(config, entry.section);
}

Message* MutableSectionOf(const SettingEntry& entry, v1::ServerConfig* config) {
  return entry.section == nullptr ? config
                                  : config->GetReflection()->MutableMessage(config, entry.section);
}

// The bound's own text is part of the program.
double Magnitude(const SettingEntry& entry, const std::string& text) {
  v1::ServerConfig config;
  Message* section = MutableSectionOf(entry, &config);
  SWAA_CHECK(SetFieldFromText(text, *entry.field, section)) << entry.key << " " << text;
  return MagnitudeOf(*entry.field, *section);
}

// As an error message shows it.
std::string Shown(const SettingEntry& entry, const Message& section) {
  const auto& reflection = *section.GetReflection();
  if (entry.field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    return reflection.GetString(section, entry.field);
  }
  if (IsDuration(*entry.field)) {
    google::protobuf::Duration duration;
    duration.CopyFrom(reflection.GetMessage(section, entry.field));
    return absl::FormatDuration(absl::Seconds(duration.seconds()) +
                                absl::Nanoseconds(duration.nanos()));
  }
  const double value = MagnitudeOf(*entry.field, section);
  return entry.field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE
             ? absl::StrCat(value)
             : absl::StrCat(static_cast<int64_t>(value));
}

bool IsAddress(const std::string& text) {
  const size_t colon = text.rfind(':');
  int port = -1;
  return colon != std::string::npos && colon > 0 &&
         absl::SimpleAtoi(text.substr(colon + 1), &port) && port >= 0 && port <= 65535;
}

// Why it is wrong, with what would be right; empty: it is not.
std::string FaultOf(const SettingEntry& entry, const Message& section) {
  const v1::Setting& setting = entry.setting;
  if (!setting.least().empty() &&
      MagnitudeOf(*entry.field, section) < Magnitude(entry, setting.least())) {
    return absl::StrCat("is too small; at least ", setting.least());
  }
  if (!setting.most().empty() &&
      MagnitudeOf(*entry.field, section) > Magnitude(entry, setting.most())) {
    return absl::StrCat("is too large; at most ", setting.most());
  }
  if (entry.field->cpp_type() != FieldDescriptor::CPPTYPE_STRING) return "";
  const std::string value = section.GetReflection()->GetString(section, entry.field);
  const auto& words = setting.words();
  if (!words.empty() && std::find(words.begin(), words.end(), value) == words.end()) {
    return absl::StrCat("is none of its values; take ", absl::StrJoin(words, ", "));
  }
  const bool may_be_empty = setting.default_value().empty();
  if (setting.is_address() && !(value.empty() && may_be_empty) && !IsAddress(value)) {
    return "is no HOST:PORT, such as 127.0.0.1:50051 or [::]:50051";
  }
  return "";
}

}  // namespace

const std::vector<SettingEntry>& AllSettings() {
  static const auto* const kTable = new std::vector<SettingEntry>(MakeTable());
  return *kTable;
}

std::string FlagOfKey(const std::string& key) {
  for (const SettingEntry& entry : AllSettings()) {
    if (entry.key == key) return entry.setting.flag();
  }
  return "";
}

absl::Status SetByFlag(const SettingEntry& entry, const std::string& text,
                       v1::ServerConfig* config) {
  const bool bare_seconds = absl::EndsWith(entry.setting.flag(), "-seconds") && !text.empty() &&
                            text.find_first_not_of("0123456789") == std::string::npos;
  if (SetFieldFromText(bare_seconds ? text + "s" : text, *entry.field,
                       MutableSectionOf(entry, config))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("--", entry.setting.flag(), ": expected ",
                                                 TextThatFieldTakes(*entry.field), ", got ",
                                                 Quoted(text)));
}

void FillDefaults(v1::ServerConfig* config) {
  for (const SettingEntry& entry : AllSettings()) {
    const std::string& text = entry.setting.default_value();
    Message* section = MutableSectionOf(entry, config);
    if (text.empty() || section->GetReflection()->HasField(*section, entry.field)) continue;
    SWAA_CHECK(SetFieldFromText(text, *entry.field, section)) << entry.key << " " << text;
  }
}

absl::Status CheckSettings(const v1::ServerConfig& config,
                           const std::function<std::string(const std::string& key)>& name_of) {
  for (const SettingEntry& entry : AllSettings()) {
    const Message& section = SectionOf(entry, config);
    if (!section.GetReflection()->HasField(section, entry.field)) continue;
    const std::string fault = FaultOf(entry, section);
    if (fault.empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(name_of(entry.key), ": ", Quoted(Shown(entry, section)), " ", fault));
  }
  return absl::OkStatus();
}

}  // namespace swaa::server
