// Writes sound GGUF files, each with something that the others lack, as seeds.

#include <fstream>
#include <iostream>
#include <string>

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/dequantize.h"
#include "engine/checkpoint/gguf_model.h"
#include "tests/unit/checkpoint/gguf_builder.h"

namespace swaa {
namespace {

// Whether the file was written and is sound.
bool Write(const std::string& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << content;
  file.close();
  if (!file) std::cerr << path << ": cannot be written\n";
  const absl::Status status = LoadCheckpoint(path, LoadFormat::kAuto).status();
  if (!status.ok()) std::cerr << status << "\n";
  return file && status.ok();
}

// The same model with its matrices stored as `type`, whose rows hold a block of 32 values.
GgufSpec Quantized(TensorType type) {
  const TensorTypeInfo& info = InfoOf(type);
  GgufSpec spec = TinyGguf();
  *spec.Key("llama.embedding_length") = GgufU32(32);
  *spec.Key("llama.feed_forward_length") = GgufU32(32);
  for (GgufTensorSpec& tensor : spec.tensors) {
    for (uint64_t& size : tensor.dimensions) {
      // Four are the rows of K and V, and tokens, which stay four.
      if (size == 8 || tensor.name != "token_embd.weight") size *= 4;
    }
    const bool matrix = tensor.dimensions.size() == 2;
    const uint64_t rows = matrix ? tensor.dimensions[1] : 1;
    tensor.type = matrix ? info.gguf_id : 0;
    tensor.data.assign(matrix ? rows * 32 / info.block_elements * info.block_bytes : 32 * 4,
                       '\x11');
  }
  return spec;
}

GgufSpec WithRopeFactors() {
  GgufSpec spec = TinyGguf();
  spec.tensors.push_back(
      {std::string(kGgufRopeFactors), {2}, 0, Raw(1.0f) + Raw(2.0f), std::nullopt});
  *spec.Key("tokenizer.ggml.pre") = GgufString("llama-bpe");
  *spec.Key("tokenizer.ggml.bos_token_id") = GgufU32(0);
  *spec.Key("tokenizer.ggml.add_bos_token") = GgufBool(1);
  *spec.Key("general.alignment") = GgufU32(32);
  return spec;
}

GgufSpec Version2WithQwenTokenizer() {
  GgufSpec spec = TinyGguf();
  spec.version = 2;
  *spec.Key("tokenizer.ggml.pre") = GgufString("qwen2");
  spec.Drop("tokenizer.chat_template");
  return spec;
}

}  // namespace
}  // namespace swaa

int main(int argc, char** argv) {
  using namespace swaa;
  if (argc != 2) {
    std::cerr << "usage: swaa_gguf_seeds FOLDER\n";
    return 2;
  }
  const std::string folder = argv[1];
  bool ok = Write(folder + "/tiny.gguf", TinyGguf().Build()) &&
            Write(folder + "/rope_factors.gguf", WithRopeFactors().Build()) &&
            Write(folder + "/version2_qwen2.gguf", Version2WithQwenTokenizer().Build());
  for (const TensorType type : {TensorType::kF16, TensorType::kQ8_0, TensorType::kQ4_0,
                                TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1}) {
    const std::string name(InfoOf(type).name);
    ok = ok && Write(folder + "/" + name + ".gguf", Quantized(type).Build());
  }
  return ok ? 0 : 1;
}
