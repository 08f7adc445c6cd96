// Every setting, as config.proto has it: its key, its flag, its default and what it may be.

#ifndef SWAA_SERVER_SETTINGS_SETTING_TABLE_H_
#define SWAA_SERVER_SETTINGS_SETTING_TABLE_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "swaa/v1/config.pb.h"
#include "swaa/v1/setting.pb.h"

namespace swaa::server {

struct SettingEntry {
  std::string key;                                             // "network.drain_grace"
  const google::protobuf::FieldDescriptor* section = nullptr;  // null: of the file itself
  const google::protobuf::FieldDescriptor* field = nullptr;
  v1::Setting setting;
};

// In the order of the proto. Any thread.
const std::vector<SettingEntry>& AllSettings();

// The flag that stands for a key, without its dashes; empty if none does.
std::string FlagOfKey(const std::string& key);

// What a flag's text means. A flag that ends in -seconds takes their bare number as well.
// INVALID_ARGUMENT names flag and value, and what would be right.
absl::Status SetByFlag(const SettingEntry& entry, const std::string& text,
                       v1::ServerConfig* config);

// Gives every setting that is not there its default, if it has one.
void FillDefaults(v1::ServerConfig* config);

// INVALID_ARGUMENT for the first setting that is not what it may be: what `name_of` makes of its
// key, its value, and what would be right.
absl::Status CheckSettings(const v1::ServerConfig& config,
                           const std::function<std::string(const std::string& key)>& name_of);

}  // namespace swaa::server

#endif  // SWAA_SERVER_SETTINGS_SETTING_TABLE_H_
