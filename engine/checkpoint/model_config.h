// The numbers that describe a decoder-only transformer, whichever file they came from.

#ifndef SWAA_ENGINE_CHECKPOINT_MODEL_CONFIG_H_
#define SWAA_ENGINE_CHECKPOINT_MODEL_CONFIG_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace swaa {

// Changes of rotary frequencies for contexts longer than the trained one.

// Positions divided by `factor`.
struct LinearRopeScaling {
  double factor = 1;
};

// Llama 3: long waves stretched, short ones kept, those between blended.
struct Llama3RopeScaling {
  double factor = 8;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  double original_context = 8192;
};

// YaRN (arXiv 2309.00071), the same at every length: waves that turn less than beta_slow times in
// the original context stretched, those that turn more than beta_fast times kept, a ramp over the
// dimensions between; and attention sharpened.
struct YarnRopeScaling {
  double factor = 1;
  double original_context = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  bool truncate = true;         // the ramp's ends are whole dimensions
  double attention_factor = 1;  // times cosine and sine, of queries and of keys
};

using RopeScaling =
    std::variant<std::monostate, LinearRopeScaling, Llama3RopeScaling, YarnRopeScaling>;

// Mixtures of experts in place of feed-forward networks.
struct ExpertsConfig {
  int32_t count = 0;       // experts of a layer
  int32_t per_token = 0;   // of them, the ones with the largest router probabilities
  int32_t ffn_width = 0;   // of one expert
  bool normalize = false;  // the chosen ones' probabilities are divided by their sum
  // Layers with one feed-forward network of ModelConfig::ffn_width; rising, not all.
  std::vector<int32_t> dense_layers;
};

struct ModelConfig {
  std::string architecture;  // as its file names it, "llama"
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
  RopeScaling rope_scaling;
  // Llama 3's change as GGUF files store it, ready made: dimension d turns with the frequency
  // rope_theta^(-2d / head_dim) / rope_frequency_factors[d]. Empty, or [head_dim / 2], each above
  // zero.
  std::vector<float> rope_frequency_factors;
  bool tied_embeddings = false;
  bool qkv_bias = false;     // Qwen2
  bool output_bias = false;  // of attention's output projection
  bool qk_norm = false;      // Qwen3
  std::optional<ExpertsConfig> experts;

  // Whether a layer's feed-forward is a mixture of experts.
  bool is_mixture(int32_t layer) const {
    return experts.has_value() &&
           !std::binary_search(experts->dense_layers.begin(), experts->dense_layers.end(), layer);
  }
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
