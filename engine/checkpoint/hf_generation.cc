// generation_config.json.

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/hf_config.h"
#include "engine/checkpoint/hf_object.h"
#include "engine/sampling/sampling_params.h"

namespace swaa {
namespace {

using Json = nlohmann::json;

// Takes a number that is there, both for the defaults and for the check of them all.
absl::Status Take(const HfObject& object, const char* key, std::optional<float>* value,
                  float* checked) {
  if (object.Find(key) == nullptr) return absl::OkStatus();
  SWAA_ASSIGN_OR_RETURN(const double number, object.Number(key, std::nullopt));
  *checked = static_cast<float>(number);
  *value = *checked;
  return absl::OkStatus();
}

// Settings of transformers' generate() that are for each request to make here, or not there at all;
// a value that changes nothing is passed over.
struct UnheededKey {
  const char* name;
  const char* advice;
};
constexpr UnheededKey kUnheeded[] = {
    {"suppress_tokens", "forbid tokens by a request's sampling_params.logit_bias"},
    {"begin_suppress_tokens", "forbid tokens by a request's sampling_params.logit_bias"},
    {"bad_words_ids", "forbid tokens by a request's sampling_params.logit_bias"},
    {"sequence_bias", "forbid tokens by a request's sampling_params.logit_bias"},
    {"stop_strings", "name them in a request's stopping_options.stop_strings"},
    {"max_new_tokens", "set a request's stopping_options.max_tokens"},
    {"min_new_tokens", "set a request's stopping_options.min_tokens"},
    {"forced_bos_token_id", "end the prompt with it"},
    {"typical_p", "use top_p or min_p"},
    {"epsilon_cutoff", "use top_p or min_p"},
    {"eta_cutoff", "use top_p or min_p"},
    {"penalty_alpha", "use repetition_penalty"},
    {"no_repeat_ngram_size", "use repetition_penalty"},
    {"num_beams", "answers are drawn one token at a time"},
};

bool ChangesNothing(const UnheededKey& key, const Json& value) {
  const std::string_view name = key.name;
  if (value.is_number())
    return value == 0 || ((name == "typical_p" || name == "num_beams") && value == 1);
  return value.empty() || value == false;
}

}  // namespace

absl::StatusOr<GenerationDefaults> ReadGenerationDefaults(const Json& json, int32_t vocab_size,
                                                          const std::string& file) {
  const HfObject object(json, file);
  GenerationDefaults defaults;
  SamplingParams checked;
  SWAA_RETURN_IF_ERROR(Take(object, "temperature", &defaults.temperature, &checked.temperature));
  SWAA_RETURN_IF_ERROR(Take(object, "top_p", &defaults.top_p, &checked.top_p));
  SWAA_RETURN_IF_ERROR(Take(object, "min_p", &defaults.min_p, &checked.min_p));
  SWAA_RETURN_IF_ERROR(Take(object, "repetition_penalty", &defaults.repetition_penalty,
                            &checked.repetition_penalty));
  if (const Json* top_k = object.Find("top_k"); top_k != nullptr) {
    const bool fits =
        top_k->is_number_integer() && *top_k >= 0 && *top_k <= std::numeric_limits<int32_t>::max();
    if (!fits) return object.Wrong("top_k", absl::StrCat(HfObject::Shown(*top_k), " is no count"));
    defaults.top_k = top_k->get<uint32_t>();
  }
  SWAA_ASSIGN_OR_RETURN(const bool sample, object.Bool("do_sample", true));
  if (!sample) defaults.temperature = 0.0f;
  // The same rule as for requests: a default that none could name would fail all that name nothing.
  if (absl::Status status = Validate(checked, vocab_size); !status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": ", std::string(status.message()), "; change or remove it there"));
  }
  return defaults;
}

std::vector<std::string> UnheededGenerationKeys(const Json& json, const std::string& file) {
  const HfObject object(json, file);
  std::vector<std::string> warnings;
  for (const UnheededKey& key : kUnheeded) {
    const Json* value = object.Find(key.name);
    if (value == nullptr || ChangesNothing(key, *value)) continue;
    warnings.push_back(absl::StrCat(file, ": ", key.name, ": ", HfObject::Shown(*value),
                                    " is not heeded; ", key.advice));
  }
  return warnings;
}

absl::StatusOr<std::vector<int32_t>> ReadEosIds(const Json& json, int32_t vocab_size,
                                                const std::string& file) {
  const HfObject object(json, file);
  std::vector<int32_t> ids;
  const Json* value = object.Find("eos_token_id");
  if (value == nullptr) return ids;
  const Json list = value->is_array() ? *value : Json::array({*value});
  for (const Json& id : list) {
    if (!id.is_number_integer() || id < 0 || id >= vocab_size) {
      return object.Wrong("eos_token_id", absl::StrCat(HfObject::Shown(id),
                                                       " is no token; there are ", vocab_size));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

}  // namespace swaa
