// The families of models that the transformer can be, and what the file formats leave unsaid about
// each.

#ifndef SWAA_ENGINE_CHECKPOINT_FAMILY_H_
#define SWAA_ENGINE_CHECKPOINT_FAMILY_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace swaa {

// How the rows of Q and K that rotate together lie in a GGUF file's heads.
enum class RopeRows {
  kHalves,       // (i, i + head_dim / 2), as in Hugging Face's files
  kInterleaved,  // (2 i, 2 i + 1)
};

enum class Bias {
  kNever,
  kAlways,
  kAsStated,  // by config.json's attention_bias; by a GGUF file's tensors
};

struct Family {
  std::string_view hf_name;    // config.json's model_type
  std::string_view gguf_arch;  // a GGUF file's general.architecture
  RopeRows gguf_rope_rows;
  Bias qkv_bias;
  Bias output_bias;     // of attention's output projection
  bool qk_norm;         // RMS norm of each head of Q and K before it is rotated
  bool moe;             // feed-forward layers may be mixtures of experts
  int32_t hf_head_dim;  // where config.json names none; 0: hidden_size / num_attention_heads
};

std::span<const Family> AllFamilies();

// Null: no such family.
const Family* FindHfFamily(std::string_view model_type);
const Family* FindGgufFamily(std::string_view architecture);

// All names of one kind, separated by commas, for messages.
std::string HfFamilyNames();
std::string GgufFamilyNames();

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_FAMILY_H_
