// YAML text into a protobuf message, by reflection.

#ifndef SWAA_SERVER_SETTINGS_YAML_MESSAGE_H_
#define SWAA_SERVER_SETTINGS_YAML_MESSAGE_H_

#include <string>

#include <google/protobuf/message.h>

#include "absl/status/status.h"

namespace swaa::server {

// Fills `message` from one YAML document whose keys are its field names. Empty text is an empty
// message. Single values are
// written as SetFieldFromText takes them.
// INVALID_ARGUMENT begins with `FILE:LINE: path.of.key:` and says what was expected; for an unknown
// key it names the one that is nearest in spelling. `file` is for these messages alone. Throws
// nothing.
absl::Status ReadYamlMessage(const std::string& text, const std::string& file,
                             google::protobuf::Message* message);

}  // namespace swaa::server

#endif  // SWAA_SERVER_SETTINGS_YAML_MESSAGE_H_
