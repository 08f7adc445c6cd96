// The numbers that describe a decoder-only transformer, whichever file they came from.

#ifndef SWAA_ENGINE_CHECKPOINT_MODEL_CONFIG_H_
#define SWAA_ENGINE_CHECKPOINT_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace swaa {

// Llama 3's change of rotary frequencies for contexts longer than the trained one.
struct Llama3RopeScaling {
  double factor = 8;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  double original_context = 8192;
};

struct ModelConfig {
  std::string architecture;  // "llama"
  std::string name;          // for people; may be empty
  int32_t num_layers = 0;
  int32_t hidden = 0;
  int32_t ffn_width = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t vocab_size = 0;
  int32_t max_context_tokens = 0;
  float norm_epsilon = 1e-5f;
  double rope_theta = 10000;
  std::optional<Llama3RopeScaling> rope_scaling;
  // Llama 3's change as GGUF files store it, ready made: dimension d turns with the frequency
  // rope_theta^(-2d / head_dim) / rope_frequency_factors[d]. Empty, or [head_dim / 2], each above
  // zero; never together with rope_scaling.
  std::vector<float> rope_frequency_factors;
  bool tied_embeddings = false;
  bool qkv_bias = false;  // Qwen2
  bool qk_norm = false;   // Qwen3
};

// Sampling that the model's makers recommend (generation_config.json); absent fields: none.
struct GenerationDefaults {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<uint32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_MODEL_CONFIG_H_
