// Fields of protobuf messages from the words that people write.

#include "server/settings/field_text.h"

#include <cctype>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>
#include <yaml-cpp/yaml.h>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "engine/tokenizer/utf8.h"
#include "server/settings/values.h"

namespace swaa::server {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// google.protobuf.Duration's own limit is 10,000 years; a century is forever to a server.
constexpr absl::Duration kLongest = absl::Hours(24 * 365 * 100);

// THINKING_MODE_ENABLED without the enum's prefix, in small letters.
std::string ShortName(const EnumValueDescriptor& value) {
  std::string prefix;
  for (const char c : value.type()->name()) {
    if (std::isupper(static_cast<unsigned char>(c)) && !prefix.empty()) prefix += '_';
    prefix += absl::ascii_toupper(static_cast<unsigned char>(c));
  }
  prefix += '_';
  const std::string& name = value.name();
  return absl::AsciiStrToLower(name.rfind(prefix, 0) == 0 ? name.substr(prefix.size()) : name);
}

std::vector<std::string> ShortNames(const EnumDescriptor& type) {
  std::vector<std::string> names;
  names.reserve(static_cast<size_t>(type.value_count()));
  for (int i = 0; i < type.value_count(); ++i) names.push_back(ShortName(*type.value(i)));
  return names;
}

bool IsShare(const FieldDescriptor& field) {
  return field.full_name() == "swaa.v1.Experiment.coverage";
}

bool SetString(const std::string& text, const FieldDescriptor& field, Message* message) {
  if (ValidUtf8Prefix(text) < text.size()) return false;
  const Reflection& reflection = *message->GetReflection();
  if (field.is_repeated()) {
    reflection.AddString(message, &field, text);
  } else {
    reflection.SetString(message, &field, text);
  }
  return true;
}

bool SetBool(const std::string& text, const FieldDescriptor& field, Message* message) {
  bool value = false;
  if (!YAML::convert<bool>::decode(YAML::Node(text), value)) return false;
  const Reflection& reflection = *message->GetReflection();
  if (field.is_repeated()) {
    reflection.AddBool(message, &field, value);
  } else {
    reflection.SetBool(message, &field, value);
  }
  return true;
}

bool SetDouble(const std::string& text, const FieldDescriptor& field, Message* message) {
  double value = 0;
  if (!absl::SimpleAtod(text, &value) || !std::isfinite(value)) return false;
  const Reflection& reflection = *message->GetReflection();
  if (field.is_repeated()) {
    reflection.AddDouble(message, &field, value);
  } else {
    reflection.SetDouble(message, &field, value);
  }
  return true;
}

bool SetBytes(const std::string& text, const FieldDescriptor& field, Message* message) {
  const std::optional<int64_t> bytes = ParseByteSize(text);
  if (!bytes.has_value()) return false;
  const Reflection& reflection = *message->GetReflection();
  if (field.is_repeated()) {
    reflection.AddUInt64(message, &field, static_cast<uint64_t>(*bytes));
  } else {
    reflection.SetUInt64(message, &field, static_cast<uint64_t>(*bytes));
  }
  return true;
}

// A share of 10,000 buckets, to four decimals: 0.25 is 2,500, as 2500 is.
std::optional<int64_t> ParseBuckets(const std::string& text) {
  const size_t point = text.find('.');
  double share = 0;
  if (text.size() - point - 1 > 4 || !absl::SimpleAtod(text, &share) || share < 0 || share > 1) {
    return std::nullopt;
  }
  return std::llround(share * 10000);
}

bool SetNumber(const std::string& text, const FieldDescriptor& field, Message* message) {
  int64_t value = 0;
  if (IsShare(field) && text.find('.') != std::string::npos) {
    const std::optional<int64_t> buckets = ParseBuckets(text);
    if (!buckets.has_value()) return false;
    value = *buckets;
  } else if (!absl::SimpleAtoi(text, &value) || value < 0 ||
             value > std::numeric_limits<int32_t>::max()) {
    return false;
  }
  const Reflection& reflection = *message->GetReflection();
  if (field.is_repeated()) {
    reflection.AddUInt32(message, &field, static_cast<uint32_t>(value));
  } else {
    reflection.SetUInt32(message, &field, static_cast<uint32_t>(value));
  }
  return true;
}

bool SetEnum(const std::string& text, const FieldDescriptor& field, Message* message) {
  for (int i = 0; i < field.enum_type()->value_count(); ++i) {
    const EnumValueDescriptor& value = *field.enum_type()->value(i);
    if (text != value.name() && text != ShortName(value)) continue;
    const Reflection& reflection = *message->GetReflection();
    if (field.is_repeated()) {
      reflection.AddEnum(message, &field, &value);
    } else {
      reflection.SetEnum(message, &field, &value);
    }
    return true;
  }
  return false;
}

// A message that is written as one word.
Message* NewMessage(const FieldDescriptor& field, Message* message) {
  const Reflection& reflection = *message->GetReflection();
  return field.is_repeated() ? reflection.AddMessage(message, &field)
                             : reflection.MutableMessage(message, &field);
}

bool SetDuration(const std::string& text, const FieldDescriptor& field, Message* message) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) || duration < absl::ZeroDuration() ||
      duration > kLongest) {
    return false;
  }
  // Through the interface: the message may be of another pool than the generated one.
  google::protobuf::Duration proto;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
  NewMessage(field, message)->CopyFrom(proto);
  return true;
}

bool SetTimestamp(const std::string& text, const FieldDescriptor& field, Message* message) {
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, text, &time, &error)) return false;
  const int64_t seconds = absl::ToUnixSeconds(time);
  if (seconds < 0) return false;
  google::protobuf::Timestamp proto;
  proto.set_seconds(seconds);
  proto.set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
  NewMessage(field, message)->CopyFrom(proto);
  return true;
}

}  // namespace

bool IsTimestamp(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE &&
         field.message_type()->full_name() == "google.protobuf.Timestamp";
}

bool IsDuration(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE &&
         field.message_type()->full_name() == "google.protobuf.Duration";
}

bool SetFieldFromText(const std::string& text, const FieldDescriptor& field, Message* message) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return SetString(text, field, message);
    case FieldDescriptor::CPPTYPE_BOOL:
      return SetBool(text, field, message);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return SetDouble(text, field, message);
    case FieldDescriptor::CPPTYPE_UINT64:
      return SetBytes(text, field, message);
    case FieldDescriptor::CPPTYPE_UINT32:
      return SetNumber(text, field, message);
    case FieldDescriptor::CPPTYPE_ENUM:
      return SetEnum(text, field, message);
    default:
      if (IsTimestamp(field)) return SetTimestamp(text, field, message);
      return IsDuration(field) && SetDuration(text, field, message);
  }
}

std::string TextThatFieldTakes(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return "UTF-8 text";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false, on or off";
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "a number";
    case FieldDescriptor::CPPTYPE_UINT64:
      return "a whole number of bytes, or one with KiB, MiB or GiB, such as 2GiB";
    case FieldDescriptor::CPPTYPE_UINT32:
      return IsShare(field) ? "0 to 10000, or a share of at most four decimals, such as 0.25"
                            : "a whole number from 0 to 2147483647";
    case FieldDescriptor::CPPTYPE_ENUM:
      return absl::StrCat("one of ", absl::StrJoin(ShortNames(*field.enum_type()), ", "));
    default:
      if (IsTimestamp(field)) return "a time such as 2026-01-31T09:15:00Z";
      return IsDuration(field) ? "a duration with its unit, such as 30s, 1m30s or 500ms"
                               : "nothing that can be written";
  }
}

double MagnitudeOf(const FieldDescriptor& field, const Message& message) {
  const Reflection& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection.GetDouble(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64:
      return static_cast<double>(reflection.GetUInt64(message, &field));
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection.GetUInt32(message, &field);
    default:
      break;
  }
  SWAA_CHECK(IsDuration(field)) << field.full_name() << " is no number";
  google::protobuf::Duration duration;
  duration.CopyFrom(reflection.GetMessage(message, &field));
  return static_cast<double>(duration.seconds()) + 1e-9 * duration.nanos();
}

}  // namespace swaa::server
