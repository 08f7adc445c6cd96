// The further names of the one model.

#include "server/generate/served_names.h"

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"

namespace swaa::server {
namespace {

constexpr size_t kMostNames = 100;
constexpr size_t kMostBytes = 256;

// What labels, JSON and URLs of gateways take.
bool IsPlain(const std::string& text) {
  return !text.empty() && text.size() <= kMostBytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

absl::Status Bad(size_t index, const std::string& field, const std::string& value,
                 const std::string& advice) {
  return absl::InvalidArgumentError(
      absl::StrCat("model.served_names[", index, "].", field, ": ", Quoted(value), " ", advice));
}

// Without the port; brackets of IPv6 addresses stay.
std::string_view HostOf(std::string_view authority) {
  const size_t colon = authority.rfind(':');
  if (colon == std::string_view::npos) return authority;
  const std::string_view port = authority.substr(colon + 1);
  const bool is_port = port.find_first_not_of("0123456789") == std::string_view::npos;
  return is_port ? authority.substr(0, colon) : authority;
}

bool IsWildcard(std::string_view pattern) { return pattern.starts_with("*."); }

// How much of the authority the pattern names; 0: it is another.
size_t Match(std::string_view pattern, std::string_view authority) {
  for (const std::string_view text : {authority, HostOf(authority)}) {
    if (text == pattern) return kMostBytes + pattern.size();
    if (!IsWildcard(pattern)) continue;
    const std::string_view suffix = pattern.substr(1);
    if (text.size() > suffix.size() && text.ends_with(suffix)) return pattern.size();
  }
  return 0;
}

}  // namespace

absl::StatusOr<ServedNames> ServedNames::Create(const v1::ModelConfig& config,
                                                const std::string& model_name) {
  ServedNames names;
  std::set<std::string> seen = {model_name}, authorities;
  if (static_cast<size_t>(config.served_names_size()) > kMostNames) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model.served_names: ", config.served_names_size(), " names; at most ", kMostNames));
  }
  for (const v1::ServedName& entry : config.served_names()) {
    const size_t index = names.names_.size();
    ServedName& name = names.names_.emplace_back();
    name.name = entry.name();
    name.recipe = entry.recipe();
    if (!IsPlain(name.name)) {
      return Bad(index, "name", name.name,
                 absl::StrCat("is no name; take 1 to ", kMostBytes, " printable characters"));
    }
    if (!seen.insert(name.name).second) {
      return Bad(index, "name", name.name, "is there twice, or the model's own; names differ");
    }
    for (const std::string& authority : entry.authorities()) {
      name.authorities.push_back(absl::AsciiStrToLower(authority));
      const std::string& taken = name.authorities.back();
      if (!IsPlain(taken) || taken.find('*', IsWildcard(taken) ? 1 : 0) != std::string::npos) {
        return Bad(index, "authorities", authority, "is no HOST, HOST:PORT or *.SUFFIX");
      }
      if (!authorities.insert(taken).second) {
        return Bad(index, "authorities", authority, "is there twice; each stands for one name");
      }
    }
  }
  return names;
}

const ServedName* ServedNames::Find(std::string_view name) const {
  for (const ServedName& known : names_) {
    if (known.name == name) return &known;
  }
  return nullptr;
}

const ServedName* ServedNames::OfAuthority(std::string_view authority) const {
  if (names_.empty() || authority.size() > kMostBytes) return nullptr;
  const std::string text =
      absl::AsciiStrToLower(absl::string_view(authority.data(), authority.size()));
  const ServedName* found = nullptr;
  size_t best = 0;
  for (const ServedName& known : names_) {
    for (const std::string& pattern : known.authorities) {
      const size_t match = Match(pattern, text);
      if (match <= best) continue;
      best = match;
      found = &known;
    }
  }
  return found;
}

absl::Status ServedNames::CheckRecipes(const RecipeCatalog& recipes) const {
  for (size_t index = 0; index < names_.size(); ++index) {
    const std::string& recipe = names_[index].recipe;
    if (recipes.Find(recipe) != nullptr) continue;
    return absl::NotFoundError(absl::StrCat("model.served_names[", index,
                                            "].recipe: ", Quoted(recipe),
                                            " is no recipe; there are ", recipes.Names()));
  }
  return absl::OkStatus();
}

std::string ServedNames::Text() const {
  return absl::StrJoin(names_, ", ", [](std::string* out, const ServedName& known) {
    absl::StrAppend(out, known.name);
  });
}

}  // namespace swaa::server
