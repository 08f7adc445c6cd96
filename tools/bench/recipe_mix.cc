// Bench: which recipe each request asks for.

#include "tools/bench/recipe_mix.h"

#include <algorithm>
#include <cmath>

#include <google/protobuf/util/json_util.h>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "tools/bench/random.h"
#include "tools/recipe_label.h"

namespace swaa::tools::bench {
namespace {

absl::Status Bad(const std::string& item, const std::string& why) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", item, "\" ", why,
                   "; write recipes as NAME=WEIGHT or {JSON}=WEIGHT, such as "
                   "full=1,balanced=2,{\"sliding_window_tokens\":512,\"sink_tokens\":16}=1"));
}

// Splits at the commas outside braces.
std::vector<std::string> SplitItems(const std::string& text) {
  std::vector<std::string> items(1);
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"' && (i == 0 || text[i - 1] != '\\')) quoted = !quoted;
    if (!quoted && c == '{') ++depth;
    if (!quoted && c == '}') --depth;
    if (c == ',' && depth == 0 && !quoted) {
      items.emplace_back();
    } else {
      items.back() += c;
    }
  }
  return items;
}

absl::StatusOr<RecipeArm> ParseItem(const std::string& item) {
  const size_t brace = item.rfind('}');
  const size_t equals = item.find('=', brace == std::string::npos ? 0 : brace);
  RecipeArm arm;
  std::string name(absl::StripAsciiWhitespace(item.substr(0, equals)));
  if (name.empty()) return Bad(item, "names no recipe");
  if (equals != std::string::npos) {
    const std::string weight = item.substr(equals + 1);
    if (!absl::SimpleAtod(weight, &arm.weight) || !std::isfinite(arm.weight) || arm.weight <= 0) {
      return Bad(item, absl::StrCat("has the weight \"", weight, "\", which is no number above 0"));
    }
  }
  arm.label = name;
  if (name[0] != '{') return arm;
  const auto parsed = google::protobuf::util::JsonStringToMessage(name, &arm.recipe);
  if (!parsed.ok()) {
    return Bad(item, absl::StrCat("is no recipe: ", std::string(parsed.message())));
  }
  arm.in_full = true;
  arm.label = RecipeLabel(arm.recipe);
  return arm;
}

}  // namespace

bool RecipeArm::IsFullAttention() const {
  return in_full ? recipe.ByteSizeLong() == 0 : label == "full";
}

void RecipeArm::SetOn(v1::GenerateRequest* request) const {
  if (in_full) {
    *request->mutable_recipe() = recipe;
  } else {
    request->set_recipe_name(label);
  }
}

absl::StatusOr<std::vector<RecipeArm>> ParseRecipeMix(const std::string& text) {
  std::vector<RecipeArm> arms;
  for (const std::string& item : SplitItems(text)) {
    SWAA_ASSIGN_OR_RETURN(RecipeArm arm, ParseItem(item));
    for (const RecipeArm& other : arms) {
      if (other.label == arm.label) return Bad(item, "is given twice");
    }
    arms.push_back(std::move(arm));
  }
  return arms;
}

RecipeDealer::RecipeDealer(const std::vector<RecipeArm>& arms, uint64_t seed)
    : generator_(MakeGenerator(seed, RandomStream::kRecipes, 0)) {
  SWAA_CHECK(!arms.empty());
  for (const RecipeArm& arm : arms) weights_.push_back(arm.weight);
  for (double weight : weights_) total_ += weight;
  credits_.resize(weights_.size());
}

size_t RecipeDealer::Next() {
  if (round_.empty()) {
    for (size_t i = 0; i < weights_.size(); ++i) round_.push_back(NextInOrder());
    std::shuffle(round_.begin(), round_.end(), generator_);
  }
  const size_t arm = round_.back();
  round_.pop_back();
  return arm;
}

// Every arm earns its weight a turn, and the richest pays for all: shares hold to within the number
// of arms at any moment.
size_t RecipeDealer::NextInOrder() {
  for (size_t i = 0; i < weights_.size(); ++i) credits_[i] += weights_[i];
  const size_t chosen =
      static_cast<size_t>(std::max_element(credits_.begin(), credits_.end()) - credits_.begin());
  credits_[chosen] -= total_;
  return chosen;
}

}  // namespace swaa::tools::bench
