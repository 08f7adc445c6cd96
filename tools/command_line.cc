// Tools: flags of subcommands, over abseil's flags.

#include "tools/command_line.h"

#include <algorithm>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"

namespace swaa::tools {
namespace {

std::string Dashed(const std::string& name) { return absl::StrReplaceAll(name, {{"_", "-"}}); }

// The flag that is declared for a name of the command's list.
absl::CommandLineFlag* Declared(const std::string& name, const CommandHelp& command) {
  absl::CommandLineFlag* own = absl::FindCommandLineFlag(command.flag_prefix + name);
  return own != nullptr ? own : absl::FindCommandLineFlag(name);
}

// The command's flag of this name, or null.
absl::CommandLineFlag* FindFlag(const std::string& dashed, const CommandHelp& command) {
  const std::string name = absl::StrReplaceAll(dashed, {{"-", "_"}});
  const auto& names = command.flag_names;
  if (std::find(names.begin(), names.end(), name) == names.end()) return nullptr;
  return Declared(name, command);
}

absl::Status UnknownFlag(const std::string& name, const CommandHelp& command) {
  const std::string known =
      absl::StrJoin(command.flag_names, " ",
                    [](std::string* out, auto& flag) { absl::StrAppend(out, "--", Dashed(flag)); });
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, ": no such flag here; there are ", known));
}

absl::Status SetFlag(const std::string& name, absl::CommandLineFlag* flag,
                     const std::string& value) {
  std::string error;
  if (flag->ParseFrom(value, &error)) return absl::OkStatus();
  const bool says_how = error.find("; ") != std::string::npos;
  return absl::InvalidArgumentError(
      absl::StrCat("--", Dashed(name), ": \"", value, "\" is not understood; ",
                   says_how ? error.substr(error.find("; ") + 2)
                            : absl::StrCat("it is ", std::string(flag->Help()))));
}

struct Token {
  std::string name;
  bool has_value = false;
  std::string value;
};

Token Split(const std::string& argument) {
  const size_t equals = argument.find('=');
  if (equals == std::string::npos) return {argument.substr(2)};
  return {argument.substr(2, equals - 2), true, argument.substr(equals + 1)};
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseFlags(const std::vector<std::string>& arguments,
                                                    const CommandHelp& command) {
  std::vector<std::string> rest;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--") {
      rest.insert(rest.end(), arguments.begin() + static_cast<int64_t>(i) + 1, arguments.end());
      break;
    }
    if (argument.rfind("--", 0) != 0) {
      rest.push_back(argument);
      continue;
    }
    Token token = Split(argument);
    absl::CommandLineFlag* flag = FindFlag(token.name, command);
    if (flag == nullptr && !token.has_value && token.name.rfind("no", 0) == 0) {
      flag = FindFlag(token.name.substr(2), command);
      if (flag != nullptr && flag->IsOfType<bool>()) token = {token.name.substr(2), true, "false"};
    }
    if (flag == nullptr) return UnknownFlag(token.name, command);
    if (!token.has_value && flag->IsOfType<bool>()) {
      token.value = "true";
    } else if (!token.has_value) {
      if (i + 1 == arguments.size()) {
        return absl::InvalidArgumentError(
            absl::StrCat("--", token.name, ": wants a value; it is ", std::string(flag->Help())));
      }
      token.value = arguments[++i];
    }
    SWAA_RETURN_IF_ERROR(SetFlag(token.name, flag, token.value));
  }
  return rest;
}

bool WantsHelp(const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (argument == "--") return false;
    if (argument == "--help" || argument == "-h") return true;
  }
  return false;
}

std::string HelpText(const CommandHelp& command) {
  std::string text = absl::StrCat("usage: ", command.usage, "\n\n", command.summary, "\n\n");
  for (const std::string& name : command.flag_names) {
    const absl::CommandLineFlag* flag = Declared(name, command);
    const std::string value = flag->DefaultValue();
    absl::StrAppend(&text, "  --", Dashed(name), "\n      ", std::string(flag->Help()),
                    value.empty() ? "" : absl::StrCat(" [", value, "]"), "\n");
  }
  return text;
}

}  // namespace swaa::tools
