// A family is one row of kFamilies.

#include "engine/checkpoint/family.h"

#include "absl/strings/str_cat.h"

namespace swaa {
namespace {

constexpr Family kFamilies[] = {
    // Llama 3, and all that have its shape (SmolLM2, ...).
    {.hf_name = "llama",
     .gguf_arch = "llama",
     .gguf_rope_rows = RopeRows::kInterleaved,
     .qkv_bias = Bias::kAsStated,
     .output_bias = Bias::kAsStated,
     .qk_norm = false,
     .moe = false,
     .hf_head_dim = 0},
    // Qwen 2 and 2.5.
    {.hf_name = "qwen2",
     .gguf_arch = "qwen2",
     .gguf_rope_rows = RopeRows::kHalves,
     .qkv_bias = Bias::kAlways,
     .output_bias = Bias::kNever,
     .qk_norm = false,
     .moe = false,
     .hf_head_dim = 0},
    {.hf_name = "qwen3",
     .gguf_arch = "qwen3",
     .gguf_rope_rows = RopeRows::kHalves,
     .qkv_bias = Bias::kAsStated,
     .output_bias = Bias::kAsStated,
     .qk_norm = true,
     .moe = false,
     .hf_head_dim = 128},
    {.hf_name = "qwen3_moe",
     .gguf_arch = "qwen3moe",
     .gguf_rope_rows = RopeRows::kHalves,
     .qkv_bias = Bias::kAsStated,
     .output_bias = Bias::kAsStated,
     .qk_norm = true,
     .moe = true,
     .hf_head_dim = 0},
};

const Family* FindBy(std::string_view Family::*name, std::string_view wanted) {
  for (const Family& family : kFamilies) {
    if (family.*name == wanted) return &family;
  }
  return nullptr;
}

std::string Names(std::string_view Family::*name) {
  std::string names;
  for (const Family& family : kFamilies) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", std::string(family.*name));
  }
  return names;
}

}  // namespace

std::span<const Family> AllFamilies() { return kFamilies; }

const Family* FindHfFamily(std::string_view model_type) {
  return FindBy(&Family::hf_name, model_type);
}
const Family* FindGgufFamily(std::string_view architecture) {
  return FindBy(&Family::gguf_arch, architecture);
}

std::string HfFamilyNames() { return Names(&Family::hf_name); }
std::string GgufFamilyNames() { return Names(&Family::gguf_arch); }

}  // namespace swaa
