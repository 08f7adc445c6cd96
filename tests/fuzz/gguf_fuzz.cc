// Fuzz target: a GGUF file, from its bytes to weights, tokenizer and chat format.

#include <vector>

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/weight_table.h"
#include "engine/tokenizer/chat_format.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_input.h"

namespace swaa::fuzz {
namespace {

// The first and the last row of every weight: a wrong extent shows at the ends.
void ReadWeights(const Checkpoint& checkpoint) {
  std::vector<float> row;
  for (const WeightSpec& spec : WeightSpecs()) {
    for (const WeightKey& key : WeightKeys(spec, checkpoint.config)) {
      const absl::StatusOr<WeightView> view = checkpoint.weights->Find(key);
      if (!view.ok()) {
        CheckRefusal(view.status());
        continue;
      }
      row.resize(static_cast<size_t>(view->columns));
      view->read_rows(0, 1, row.data());
      view->read_rows(view->rows - 1, 1, row.data());
    }
  }
}

void UseTokenizer(TokenizerData data) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(std::move(data));
  if (!tokenizer.ok()) return CheckRefusal(tokenizer.status());
  (*tokenizer)->Encode("ab <|end|>\n12 \xC3\xA9", Tokenizer::SpecialTokens::kParse);
  const absl::StatusOr<std::unique_ptr<ChatFormat>> format = ChatFormat::Create(**tokenizer);
  if (!format.ok()) CheckRefusal(format.status());
}

}  // namespace

void FuzzGguf(std::string_view input) {
  if (input.empty()) return;
  const MemoryFile file(input);
  absl::StatusOr<Checkpoint> checkpoint = LoadCheckpoint(file.path(), LoadFormat::kAuto);
  if (!checkpoint.ok()) return CheckRefusal(checkpoint.status());
  ReadWeights(*checkpoint);
  UseTokenizer(std::move(checkpoint->tokenizer));
}

}  // namespace swaa::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  swaa::fuzz::FuzzGguf(swaa::fuzz::AsText(data, size));
  return 0;
}
