// The hashing device and its reference.

#include "tests/unit/testing/fake_device.h"

#include <utility>

#include "absl/time/clock.h"
#include "base/check.h"

namespace swaa::testing {
namespace {

uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t z = a * 0x9e3779b97f4a7c15u + b + 0x7f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

int32_t GreedyToken(uint64_t value) { return static_cast<int32_t>(value % kFakeVocab); }

// UTF-8 of a code point below 0x800, as GPT-2's byte alphabet needs it.
std::string Utf8(int32_t code) {
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

}  // namespace

std::unique_ptr<Tokenizer> MakeByteTokenizer() {
  TokenizerData data;
  int32_t next = 256;
  for (int32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    data.tokens.push_back(Utf8(printable ? byte : next++));
    data.kinds.push_back(TokenKind::kNormal);
  }
  data.tokens.push_back("<end>");
  data.kinds.push_back(TokenKind::kSpecial);
  data.eos_ids = {kFakeEos};
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(std::move(data));
  SWAA_CHECK(tokenizer.ok()) << tokenizer.status().message();
  return *std::move(tokenizer);
}

FakeDevice::FakeDevice(DeviceInfo info)
    : info_(std::move(info)),
      table_(static_cast<size_t>(info_.num_slots) * info_.num_layers * info_.max_pages_per_layer),
      cells_(static_cast<size_t>(info_.num_pages) * kernels::kPageTokens) {}

void FakeDevice::Submit(Step step) {
  SWAA_CHECK_LT(static_cast<int32_t>(submitted_.size()), info_.max_steps_in_flight);
  submitted_.push_back(std::move(step));
}

StepResult FakeDevice::Collect() {
  SWAA_CHECK(!submitted_.empty());
  last_step_ = std::move(submitted_.front());
  submitted_.pop_front();
  ++steps_;
  if (step_time_ > absl::ZeroDuration()) absl::SleepFor(step_time_);
  return Run(last_step_);
}

int64_t FakeDevice::table_entries() const {
  int64_t entries = 0;
  for (int32_t page : table_) entries += page != kernels::kZeroPage;
  return entries;
}

FakeDevice::Cell& FakeDevice::CellOf(int32_t slot, int32_t layer, int32_t position) {
  const int32_t block = position / kernels::kPageTokens;
  SWAA_CHECK_LT(block, info_.max_pages_per_layer);
  const int32_t page =
      table_[(static_cast<size_t>(slot) * info_.num_layers + layer) * info_.max_pages_per_layer +
             block];
  SWAA_CHECK_NE(page, kernels::kZeroPage)
      << "slot " << slot << " layer " << layer << " position " << position << " has no page";
  return cells_[static_cast<size_t>(page) * kernels::kPageTokens + position % kernels::kPageTokens];
}

StepResult FakeDevice::Run(const Step& step) {
  StepResult result{.id = step.id, .status = failure_};
  for (const PageTableUpdate& update : step.page_table_updates) {
    SWAA_CHECK(update.page >= 0 && update.page < info_.num_pages) << update.page;
    table_[(static_cast<size_t>(update.slot) * info_.num_layers + update.layer) *
               info_.max_pages_per_layer +
           update.block] = update.page;
  }
  if (!failure_.ok()) return result;
  SWAA_CHECK_LE(static_cast<int32_t>(step.tokens.size()), info_.max_step_tokens);
  std::vector<uint64_t> x(step.tokens.begin(), step.tokens.end());
  for (const kernels::SequenceRows& rows : step.sequences) {
    Slot& slot = slots_[rows.slot];
    if (rows.first_position == 0) slot = {.first_token = step.tokens[rows.first_row]};
    if (slot.computed != rows.first_position) {
      // Another request, whose first blocks were computed by others.
      SWAA_CHECK_EQ(rows.first_position % kernels::kPageTokens, 0) << "slot " << rows.slot;
      slot = {.computed = rows.first_position};
    }
    slot.computed += rows.query_count;
  }
  for (int32_t layer = 0; layer < info_.num_layers; ++layer) {
    for (const kernels::SequenceRows& rows : step.sequences) {
      for (int32_t r = 0; r < rows.query_count; ++r) {
        const int32_t position = rows.first_position + r;
        CellOf(rows.slot, layer, position) = {layer, position, x[rows.first_row + r]};
      }
    }
    std::vector<uint64_t> next(x.size());
    for (size_t s = 0; s < step.sequences.size(); ++s) {
      const kernels::SequenceRows& rows = step.sequences[s];
      const kernels::KeySpan span = step.spans[s * info_.num_layers + layer];
      for (int32_t r = 0; r < rows.query_count; ++r) {
        const int32_t i = rows.first_position + r;
        uint64_t sum = 0;
        for (int32_t j = 0; j <= i; ++j) {
          if (!span.full() && i - j >= span.window && j >= span.sinks) continue;
          const Cell& cell = CellOf(rows.slot, layer, j);
          SWAA_CHECK_EQ(cell.layer, layer) << "slot " << rows.slot << " position " << j;
          SWAA_CHECK_EQ(cell.position, j) << "slot " << rows.slot << " layer " << layer;
          sum += Mix(cell.value, j);
        }
        next[rows.first_row + r] = Mix(x[rows.first_row + r], sum);
      }
    }
    x = std::move(next);
  }
  for (const LogitsRow& row : step.logits) {
    ScoredToken token;
    token.token = row.known_token.value_or(GreedyToken(x[row.row]));
    token.logprob = FakeLogprob(x[row.row], token.token);
    result.tokens.push_back(std::move(token));
  }
  return result;
}

float FakeLogprob(uint64_t value, int32_t token) {
  return -static_cast<float>(Mix(value, token) % 1000) / 100;
}

std::vector<uint64_t> ReferenceValues(const std::vector<int32_t>& tokens, int32_t prompt_tokens,
                                      const Recipe& recipe) {
  std::vector<uint64_t> x(tokens.begin(), tokens.end());
  for (int32_t l = 0; l < recipe.num_layers(); ++l) {
    std::vector<uint64_t> next(x.size());
    for (int64_t i = 0; i < static_cast<int64_t>(x.size()); ++i) {
      uint64_t sum = 0;
      for (int64_t j = 0; j <= i; ++j) {
        const bool visible = !recipe.window.has_value() || recipe.layer_full[l] ||
                             i - j < int64_t{*recipe.window} || j < int64_t{recipe.sinks} ||
                             (recipe.decode_full[l] && i >= prompt_tokens);
        if (visible) sum += Mix(x[j], j);
      }
      next[i] = Mix(x[i], sum);
    }
    x = std::move(next);
  }
  return x;
}

std::vector<int32_t> ReferenceOutput(const std::vector<int32_t>& prompt,
                                     const std::vector<int32_t>& forced, const Recipe& recipe,
                                     int32_t max_tokens, bool ignore_eos) {
  std::vector<int32_t> tokens = prompt;
  tokens.insert(tokens.end(), forced.begin(), forced.end());
  std::vector<int32_t> output = forced;
  while (static_cast<int32_t>(output.size()) < max_tokens) {
    const int32_t token =
        GreedyToken(ReferenceValues(tokens, static_cast<int32_t>(prompt.size()), recipe).back());
    tokens.push_back(token);
    output.push_back(token);
    if (token == kFakeEos && !ignore_eos) break;
  }
  return output;
}

}  // namespace swaa::testing
