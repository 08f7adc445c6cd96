// Writes GGUF files, sound ones and others.

#ifndef SWAA_TESTS_UNIT_CHECKPOINT_GGUF_BUILDER_H_
#define SWAA_TESTS_UNIT_CHECKPOINT_GGUF_BUILDER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace swaa {

template <typename T>
std::string Raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

inline std::string RawString(const std::string& text) { return Raw<uint64_t>(text.size()) + text; }

// Values with their type in front, as metadata hold them.
inline std::string GgufU32(uint32_t value) { return Raw<uint32_t>(4) + Raw(value); }
inline std::string GgufF32(float value) { return Raw<uint32_t>(6) + Raw(value); }
inline std::string GgufBool(uint8_t value) { return Raw<uint32_t>(7) + Raw(value); }
inline std::string GgufString(const std::string& text) {
  return Raw<uint32_t>(8) + RawString(text);
}
inline std::string GgufStrings(const std::vector<std::string>& texts) {
  std::string out = Raw<uint32_t>(9) + Raw<uint32_t>(8) + Raw<uint64_t>(texts.size());
  for (const std::string& text : texts) out += RawString(text);
  return out;
}
inline std::string GgufInts(const std::vector<int32_t>& numbers) {
  std::string out = Raw<uint32_t>(9) + Raw<uint32_t>(5) + Raw<uint64_t>(numbers.size());
  for (const int32_t number : numbers) out += Raw(number);
  return out;
}

struct GgufTensorSpec {
  std::string name;
  std::vector<uint64_t> dimensions;  // as the file has them: columns first
  uint32_t type = 0;
  std::string data;
  std::optional<uint64_t> offset;  // absent: behind the tensor before, aligned
};

struct GgufSpec {
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;
  std::vector<std::pair<std::string, std::string>> keys;
  std::vector<GgufTensorSpec> tensors;
  std::optional<uint64_t> num_tensors;
  std::optional<uint64_t> num_keys;

  std::string* Key(const std::string& name) {
    for (auto& [key, value] : keys) {
      if (key == name) return &value;
    }
    return &keys.emplace_back(name, "").second;
  }
  void Drop(const std::string& name) {
    std::erase_if(keys, [&](const auto& item) { return item.first == name; });
  }
  GgufTensorSpec* Tensor(const std::string& name) {
    for (GgufTensorSpec& tensor : tensors) {
      if (tensor.name == name) return &tensor;
    }
    return nullptr;
  }

  // The last tensor's last byte is the file's: nothing can be cut off unnoticed.
  std::string Build() const {
    std::string out = magic + Raw(version) + Raw<uint64_t>(num_tensors.value_or(tensors.size())) +
                      Raw<uint64_t>(num_keys.value_or(keys.size()));
    for (const auto& [key, value] : keys) out += RawString(key) + value;
    std::string data;
    for (const GgufTensorSpec& tensor : tensors) {
      data.resize((data.size() + alignment - 1) / alignment * alignment);
      out += RawString(tensor.name) + Raw<uint32_t>(tensor.dimensions.size());
      for (const uint64_t size : tensor.dimensions) out += Raw(size);
      out += Raw(tensor.type) + Raw<uint64_t>(tensor.offset.value_or(data.size()));
      data += tensor.data;
    }
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data;
  }
};

// A whole model: 1 layer, hidden 8, 2 heads of 4, 1 KV head, feed-forward width 8, 4 tokens, tied
// embeddings, all F32. Element e of a tensor is its number in the file times 1000 plus e.
inline GgufSpec TinyGguf() {
  GgufSpec spec;
  spec.keys = {
      {"general.architecture", GgufString("llama")},
      {"general.name", GgufString("tiny")},
      {"llama.block_count", GgufU32(1)},
      {"llama.context_length", GgufU32(128)},
      {"llama.embedding_length", GgufU32(8)},
      {"llama.feed_forward_length", GgufU32(8)},
      {"llama.attention.head_count", GgufU32(2)},
      {"llama.attention.head_count_kv", GgufU32(1)},
      {"llama.attention.layer_norm_rms_epsilon", GgufF32(1e-5f)},
      {"llama.rope.freq_base", GgufF32(50000)},
      {"tokenizer.ggml.model", GgufString("gpt2")},
      {"tokenizer.ggml.pre", GgufString("smollm")},
      {"tokenizer.ggml.tokens", GgufStrings({"<|end|>", "a", "b", "ab"})},
      {"tokenizer.ggml.token_type", GgufInts({3, 1, 1, 1})},
      {"tokenizer.ggml.merges", GgufStrings({"a b"})},
      {"tokenizer.ggml.eos_token_id", GgufU32(0)},
      {"tokenizer.chat_template", GgufString("{{ messages }}")},
  };
  const std::vector<std::pair<std::string, std::vector<uint64_t>>> shapes = {
      {"token_embd.weight", {8, 4}},        {"output_norm.weight", {8}},
      {"blk.0.attn_norm.weight", {8}},      {"blk.0.attn_q.weight", {8, 8}},
      {"blk.0.attn_k.weight", {8, 4}},      {"blk.0.attn_v.weight", {8, 4}},
      {"blk.0.attn_output.weight", {8, 8}}, {"blk.0.ffn_norm.weight", {8}},
      {"blk.0.ffn_gate.weight", {8, 8}},    {"blk.0.ffn_up.weight", {8, 8}},
      {"blk.0.ffn_down.weight", {8, 8}},
  };
  for (const auto& [name, dimensions] : shapes) {
    GgufTensorSpec tensor{name, dimensions, 0, "", {}};
    uint64_t count = 1;
    for (const uint64_t size : dimensions) count *= size;
    for (uint64_t e = 0; e < count; ++e) {
      tensor.data += Raw(static_cast<float>(spec.tensors.size() * 1000 + e));
    }
    spec.tensors.push_back(tensor);
  }
  return spec;
}

}  // namespace swaa

#endif  // SWAA_TESTS_UNIT_CHECKPOINT_GGUF_BUILDER_H_
