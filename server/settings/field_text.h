// Fields of protobuf messages from the words that people write.

#ifndef SWAA_SERVER_SETTINGS_FIELD_TEXT_H_
#define SWAA_SERVER_SETTINGS_FIELD_TEXT_H_

#include <string>

#include <google/protobuf/message.h>

namespace swaa::server {

// Sets `field` of `message`, or appends to it where it is repeated:
//   * a uint64 is a number of bytes and takes a unit: 2GiB, 512MiB, 64KiB;
//   * a google.protobuf.Duration is written as 30s, 1m30s, 500ms; it is never negative;
//   * a google.protobuf.Timestamp is written as 2026-01-31T09:15:00Z (RFC 3339);
//   * a share of buckets (Experiment.coverage) takes 0 to 10000 or a fraction: 0.25;
//   * an enum takes a value's name with or without its prefix: THINKING_MODE_ENABLED, enabled;
//   * a bool is on or off, true or false, yes or no.
// False: the text is none of what the field takes; the message is as it was.
bool SetFieldFromText(const std::string& text, const google::protobuf::FieldDescriptor& field,
                      google::protobuf::Message* message);

// What the field takes, for "expected ...".
std::string TextThatFieldTakes(const google::protobuf::FieldDescriptor& field);

// Whether it is a google.protobuf.Duration, or Timestamp: messages that are written as one word.
bool IsDuration(const google::protobuf::FieldDescriptor& field);
bool IsTimestamp(const google::protobuf::FieldDescriptor& field);

// The field of a message with a number or a duration in it, in seconds.
double MagnitudeOf(const google::protobuf::FieldDescriptor& field,
                   const google::protobuf::Message& message);

}  // namespace swaa::server

#endif  // SWAA_SERVER_SETTINGS_FIELD_TEXT_H_
