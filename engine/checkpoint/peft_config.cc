// adapter_config.json.

#include "engine/checkpoint/peft_config.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "engine/checkpoint/hf_object.h"
#include "engine/checkpoint/json_file.h"
#include "engine/checkpoint/text_checks.h"

namespace swaa {
namespace {

using Json = nlohmann::json;

constexpr double kMaxAlpha = 1e6;
constexpr size_t kMaxPatterns = 4096;
constexpr size_t kMaxPatternBytes = 512;
constexpr uint32_t kMaxMatchSteps = 100'000;

// What only training reads, or what says in other words which modules the file has.
constexpr std::string_view kUnread[] = {
    "auto_mapping",        "base_model_name_or_path",
    "corda_config",        "ensure_weight_tying",
    "eva_config",          "exclude_modules",
    "inference_mode",      "layers_pattern",
    "layers_to_transform", "loftq_config",
    "lora_dropout",        "lora_ga_config",
    "peft_version",        "revision",
    "runtime_config",
};

constexpr std::string_view kRead[] = {
    "alpha_pattern", "bias",      "init_lora_weights", "lora_alpha", "peft_type", "r",
    "rank_pattern",  "task_type", "target_modules",    "use_rslora",
};

// Why an option other than none is refused.
struct Refused {
  std::string_view key;
  std::string_view why;
};
constexpr Refused kRefused[] = {
    {"use_dora", "DoRA scales the base model's weights by column"},
    {"lora_bias", "adapters with biases are not computed"},
    {"modules_to_save", "whole modules of an adapter are not loaded; train without them"},
    {"fan_in_fan_out", "transposed layers are not loaded"},
    {"layer_replication", "the model would have other layers"},
    {"megatron_config", "Megatron's layers are not loaded"},
    {"target_parameters", "parameters that are no linear layers are not adapted"},
    {"trainable_token_indices", "trained embeddings are not loaded"},
    {"use_qalora", "QA-LoRA pools its inputs"},
    {"alora_invocation_tokens", "an adapter is for the whole of a request"},
    {"arrow_config", "adapters are not routed by token"},
};

constexpr std::string_view kTargets[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                         "gate_proj", "up_proj", "down_proj"};

bool IsNothing(const Json& value) {
  return value.is_null() || value == false || (value.is_structured() && value.empty()) ||
         (value.is_string() && value.get_ref<const std::string&>().empty());
}

template <typename List>
bool IsIn(const List& list, std::string_view key) {
  return std::find(std::begin(list), std::end(list), key) != std::end(list);
}

absl::Status CheckOptions(const HfObject& object, const Json& json) {
  for (const Refused& refused : kRefused) {
    const std::string key(refused.key);
    const Json* value = object.Find(key.c_str());
    if (value == nullptr || IsNothing(*value)) continue;
    return object.Unsupported(
        key.c_str(), absl::StrCat(HfObject::Shown(*value), ": ", std::string(refused.why)));
  }
  for (const auto& [key, value] : json.items()) {
    if (IsNothing(value) || IsIn(kUnread, key) || IsIn(kRead, key)) continue;
    // Megatron's module matters with its config alone, and that is refused above. The block of
    // QA-LoRA likewise.
    if (key == "megatron_core" || key == "qalora_group_size") continue;
    if (std::any_of(std::begin(kRefused), std::end(kRefused),
                    [&key = key](const Refused& refused) { return refused.key == key; })) {
      continue;
    }
    return object.Unsupported(Quoted(key).c_str(), "no option of adapters that this build knows");
  }
  return absl::OkStatus();
}

// One of `words`.
absl::Status CheckWord(const HfObject& object, const char* key,
                       std::initializer_list<std::string_view> words, bool bool_is_fine,
                       std::string_view why) {
  const Json* value = object.Find(key);
  if (value == nullptr || (bool_is_fine && value->is_boolean())) return absl::OkStatus();
  if (value->is_string() && IsIn(words, value->get_ref<const std::string&>())) {
    return absl::OkStatus();
  }
  return object.Unsupported(key, absl::StrCat(HfObject::Shown(*value), ": ", std::string(why)));
}

// The tensors say which modules there are; a list says it by name. An expression in place of the
// list is left to the tensors.
absl::Status CheckTargets(const HfObject& object) {
  const Json* targets = object.Find("target_modules");
  if (targets == nullptr || targets->is_string()) return absl::OkStatus();
  if (!targets->is_array()) return object.Wrong("target_modules", "is no list of names");
  for (const Json& target : *targets) {
    if (!target.is_string()) return object.Wrong("target_modules", "is no list of names");
    const std::string& name = target.get_ref<const std::string&>();
    const size_t dot = name.rfind('.');
    const std::string_view last =
        std::string_view(name).substr(dot == std::string::npos ? 0 : dot + 1);
    if (IsIn(kTargets, last)) continue;
    return object.Unsupported("target_modules",
                              absl::StrCat(Quoted(name),
                                           " is not adapted; q_proj, k_proj, v_proj, "
                                           "o_proj, gate_proj, up_proj and down_proj are"));
  }
  return absl::OkStatus();
}

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatchData {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct FreeMatchContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

// The patterns of one kind, in the file's order.
class Patterns {
 public:
  absl::Status Read(const HfObject& object, const char* key, double most) {
    key_ = key;
    const Json* patterns = object.Find(key);
    if (patterns == nullptr) return absl::OkStatus();
    if (!patterns->is_object()) return object.Wrong(key, "is no object");
    if (patterns->size() > kMaxPatterns) {
      return object.Wrong(key, absl::StrCat(patterns->size(), " patterns; at most ", kMaxPatterns));
    }
    for (const auto& [pattern, value] : patterns->items()) {
      if (!value.is_number() || !(value.get<double>() > 0) || value.get<double>() > most) {
        return object.Wrong(key, absl::StrCat(Quoted(pattern), ": ", HfObject::Shown(value),
                                              " is no number above 0, at most ", most));
      }
      SWAA_ASSIGN_OR_RETURN(Code code, Compile(object, key, pattern));
      patterns_.push_back({pattern, std::move(code), value.get<double>()});
    }
    return absl::OkStatus();
  }

  // Absent: none matches.
  absl::StatusOr<std::optional<double>> Find(const std::string& module) const {
    for (const Pattern& one : patterns_) {
      const std::unique_ptr<pcre2_match_data, FreeMatchData> data(
          pcre2_match_data_create_from_pattern(one.code.get(), nullptr));
      const std::unique_ptr<pcre2_match_context, FreeMatchContext> context(
          pcre2_match_context_create(nullptr));
      pcre2_set_match_limit(context.get(), kMaxMatchSteps);
      pcre2_set_depth_limit(context.get(), kMaxMatchSteps);
      const int found = pcre2_match(one.code.get(), reinterpret_cast<PCRE2_SPTR>(module.data()),
                                    module.size(), 0, 0, data.get(), context.get());
      if (found >= 0) return one.value;
      if (found == PCRE2_ERROR_NOMATCH) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(key_, ": ", Quoted(one.text), " cannot be matched: PCRE2 error ", found));
    }
    return std::nullopt;
  }

 private:
  using Code = std::unique_ptr<pcre2_code, FreeCode>;
  struct Pattern {
    std::string text;
    Code code;
    double value;
  };

  // The end of a module's name from a dot on, or the whole, matches.
  static absl::StatusOr<Code> Compile(const HfObject& object, const char* key,
                                      const std::string& pattern) {
    if (pattern.size() > kMaxPatternBytes) {
      return object.Wrong(key, absl::StrCat(Quoted(pattern), " has ", pattern.size(),
                                            " bytes; at most ", kMaxPatternBytes));
    }
    const std::string whole = absl::StrCat("^(?:.*\\.)?(?:", pattern, ")$");
    int error = 0;
    PCRE2_SIZE offset = 0;
    Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(whole.data()), whole.size(),
                            PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY, &error, &offset,
                            nullptr));
    if (code == nullptr) {
      return object.Wrong(key, absl::StrCat(Quoted(pattern), " is no expression"));
    }
    return code;
  }

  std::string key_;
  std::vector<Pattern> patterns_;
};

class PeftConfigImpl : public PeftConfig {
 public:
  absl::Status Read(const HfObject& object) {
    SWAA_ASSIGN_OR_RETURN(rank_, object.Size("r", kMaxLoraRank, 8));
    SWAA_ASSIGN_OR_RETURN(alpha_, object.Number("lora_alpha", 8.0));
    if (!(alpha_ > 0) || alpha_ > kMaxAlpha) {
      return object.Wrong("lora_alpha",
                          absl::StrCat(alpha_, " is not above 0, at most ", kMaxAlpha));
    }
    SWAA_ASSIGN_OR_RETURN(root_, object.Bool("use_rslora", false));
    SWAA_RETURN_IF_ERROR(ranks_.Read(object, "rank_pattern", kMaxLoraRank));
    return alphas_.Read(object, "alpha_pattern", kMaxAlpha);
  }

  absl::StatusOr<LoraScale> ScaleOf(const std::string& module) const override {
    SWAA_ASSIGN_OR_RETURN(const std::optional<double> rank, ranks_.Find(module));
    SWAA_ASSIGN_OR_RETURN(const std::optional<double> alpha, alphas_.Find(module));
    LoraScale scale{.rank = static_cast<int32_t>(rank.value_or(rank_))};
    if (scale.rank < 1 || (rank.has_value() && *rank != scale.rank)) {
      return absl::InvalidArgumentError(
          absl::StrCat("rank_pattern: ", *rank, " is no rank of ", module));
    }
    scale.scale = alpha.value_or(alpha_) / (root_ ? std::sqrt(scale.rank) : scale.rank);
    return scale;
  }

 private:
  int32_t rank_ = 0;
  double alpha_ = 0;
  bool root_ = false;  // rsLoRA: divided by the root of the rank
  Patterns ranks_;
  Patterns alphas_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<const PeftConfig>> ParsePeftConfig(std::string_view text,
                                                                  const std::string& place) {
  SWAA_ASSIGN_OR_RETURN(const Json json, ParseJsonObject(text, place));
  const HfObject object(json, place);
  const Json* type = object.Find("peft_type");
  if (type == nullptr) return object.Wrong("peft_type", "is missing: no adapter of PEFT");
  SWAA_RETURN_IF_ERROR(
      CheckWord(object, "peft_type", {"LORA"}, false, "this build computes LORA alone"));
  SWAA_RETURN_IF_ERROR(
      CheckWord(object, "task_type", {"CAUSAL_LM"}, false, "adapters of CAUSAL_LM are loaded"));
  SWAA_RETURN_IF_ERROR(
      CheckWord(object, "bias", {"none"}, false, "the base model's biases stay as they are"));
  SWAA_RETURN_IF_ERROR(CheckWord(object, "init_lora_weights", {"gaussian", "eva", "orthogonal"},
                                 true,
                                 "it changes the base model's weights; convert the adapter to "
                                 "plain LoRA when it is saved"));
  SWAA_RETURN_IF_ERROR(CheckOptions(object, json));
  SWAA_RETURN_IF_ERROR(CheckTargets(object));
  auto config = std::make_unique<PeftConfigImpl>();
  SWAA_RETURN_IF_ERROR(config->Read(object));
  return config;
}

}  // namespace swaa
