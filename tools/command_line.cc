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

// A flag, whoever has declared it.
struct Flag : MadeFlag {
  bool is_bool = false;
};

absl::Status ParseDeclared(absl::CommandLineFlag* flag, const std::string& name,
                           const std::string& value) {
  std::string error;
  if (flag->ParseFrom(value, &error)) return absl::OkStatus();
  const bool says_how = error.find("; ") != std::string::npos;
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, ": \"", value, "\" is not understood; ",
                   says_how ? error.substr(error.find("; ") + 2)
                            : absl::StrCat("it is ", std::string(flag->Help()))));
}

// All flags of the command, as help lists them.
std::vector<Flag> FlagsOf(const CommandHelp& command) {
  std::vector<Flag> flags;
  for (const MadeFlag& made : command.made_flags) flags.push_back({made});
  for (const std::string& name : command.flag_names) {
    absl::CommandLineFlag* declared = absl::FindCommandLineFlag(command.flag_prefix + name);
    if (declared == nullptr) declared = absl::FindCommandLineFlag(name);
    const std::string dashed = absl::StrReplaceAll(name, {{"_", "-"}});
    flags.push_back({{dashed, std::string(declared->Help()), declared->DefaultValue(),
                      [declared, dashed](const std::string& value) {
                        return ParseDeclared(declared, dashed, value);
                      }},
                     declared->IsOfType<bool>()});
  }
  return flags;
}

// The one of this name, or null.
const Flag* FindFlag(const std::string& name, const std::vector<Flag>& flags) {
  const std::string dashed = absl::StrReplaceAll(name, {{"_", "-"}});
  const auto found = std::find_if(flags.begin(), flags.end(),
                                  [&](const Flag& flag) { return flag.name == dashed; });
  return found == flags.end() ? nullptr : &*found;
}

absl::Status UnknownFlag(const std::string& name, const std::vector<Flag>& flags) {
  const std::string known = absl::StrJoin(flags, " ", [](std::string* out, const Flag& flag) {
    absl::StrAppend(out, "--", flag.name);
  });
  return absl::InvalidArgumentError(
      absl::StrCat("--", name, ": no such flag here; there are ", known));
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
  const std::vector<Flag> flags = FlagsOf(command);
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
    const Flag* flag = FindFlag(token.name, flags);
    if (flag == nullptr && !token.has_value && token.name.rfind("no", 0) == 0) {
      flag = FindFlag(token.name.substr(2), flags);
      if (flag != nullptr && flag->is_bool) token = {token.name.substr(2), true, "false"};
    }
    if (flag == nullptr) return UnknownFlag(token.name, flags);
    if (!token.has_value && flag->is_bool) {
      token.value = "true";
    } else if (!token.has_value) {
      if (i + 1 == arguments.size()) {
        return absl::InvalidArgumentError(
            absl::StrCat("--", token.name, ": wants a value; it is ", flag->help));
      }
      token.value = arguments[++i];
    }
    SWAA_RETURN_IF_ERROR(flag->set(token.value));
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
  for (const Flag& flag : FlagsOf(command)) {
    absl::StrAppend(&text, "  --", flag.name, "\n      ", flag.help,
                    flag.default_value.empty() ? "" : absl::StrCat(" [", flag.default_value, "]"),
                    "\n");
  }
  return text;
}

}  // namespace swaa::tools
