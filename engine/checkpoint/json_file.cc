// Reads and parses the JSON texts of a model's folder.

#include "engine/checkpoint/json_file.h"

#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint/text_checks.h"
#include "engine/tokenizer/utf8.h"

namespace swaa {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 64;

// What the library leaves to its callers. Once something is wrong it discards all that follows.
class Watcher {
 public:
  bool operator()(int depth, Json::parse_event_t event, Json& parsed) {
    if (!problem_.empty()) return false;
    if (event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start) {
      if (depth >= kMaxDepth) problem_ = absl::StrCat("nested deeper than ", kMaxDepth);
    }
    if (event == Json::parse_event_t::object_start) keys_.emplace_back();
    if (event == Json::parse_event_t::object_end) keys_.pop_back();
    if (event == Json::parse_event_t::key) {
      const std::string key = parsed.get<std::string>();
      if (!keys_.back().insert(key).second) problem_ = absl::StrCat("key ", Quoted(key), " twice");
    }
    return problem_.empty();
  }
  const std::string& problem() const { return problem_; }

 private:
  std::vector<std::set<std::string>> keys_;
  std::string problem_;
};

}  // namespace

absl::StatusOr<Json> ParseJsonObject(std::string_view text, const std::string& file) {
  Watcher watcher;
  Json json;
  // The library tells the place of a syntax error only by an exception.
  try {
    json = Json::parse(text.begin(), text.end(), [&watcher](int depth, auto event, Json& parsed) {
      return watcher(depth, event, parsed);
    });
  } catch (const Json::exception& error) {
    const auto* at = dynamic_cast<const Json::parse_error*>(&error);
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": offset ", at == nullptr || at->byte == 0 ? 0 : at->byte - 1, ": ",
                     AsValidUtf8(error.what())));
  }
  if (!watcher.problem().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", watcher.problem()));
  }
  if (!json.is_object()) return absl::InvalidArgumentError(absl::StrCat(file, ": not an object"));
  return json;
}

}  // namespace swaa
