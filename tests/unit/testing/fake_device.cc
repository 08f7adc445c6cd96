// The hashing device and its reference.

#include "tests/unit/testing/fake_device.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "base/check.h"
#include "base/split_mix64.h"

namespace swaa::testing {
namespace {

uint64_t Mix(uint64_t a, uint64_t b) {
  return SplitMix64Output(a * kSplitMix64Step + b + 0x7f4a7c15u);
}

// The token drawn behind a position whose last layer has `value`: with the history, any token of it
// that is missing or in another place changes the draw.
int32_t Draw(uint64_t value, bool history, const std::vector<int32_t>& prompt,
             const std::vector<int32_t>& output, const std::vector<int32_t>& forbidden) {
  if (history) {
    for (int32_t token : prompt) value = Mix(value, token);
    for (int32_t token : output) value = Mix(value, token);
  }
  auto token = static_cast<int32_t>(value % kFakeVocab);
  while (std::find(forbidden.begin(), forbidden.end(), token) != forbidden.end()) {
    token = (token + 1) % kFakeVocab;
  }
  return token;
}

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
      submitted_table_(table_),
      cells_(static_cast<size_t>(info_.num_pages) * kernels::kPageTokens),
      poisoned_(info_.num_pages) {}

size_t FakeDevice::EntryOf(int32_t slot, int32_t layer, int32_t block) const {
  SWAA_CHECK(slot >= 0 && slot < info_.num_slots) << slot;
  SWAA_CHECK_LT(block, info_.max_pages_per_layer);
  return (static_cast<size_t>(slot) * info_.num_layers + layer) * info_.max_pages_per_layer + block;
}

void FakeDevice::Submit(Step step) {
  SWAA_CHECK_LT(static_cast<int32_t>(submitted_.size()), info_.max_steps_in_flight);
  if (!submitted_.empty()) SWAA_CHECK_GT(step.id, last_submitted_);
  SWAA_CHECK_EQ(static_cast<int32_t>(step.layer_class.size()), info_.num_layers);
  last_submitted_ = step.id;
  for (const PageTableUpdate& update : step.page_table_updates) {
    SWAA_CHECK(update.page >= 0 && update.page < info_.num_pages) << update.page;
    submitted_table_[EntryOf(update.slot, update.layer, update.block)] = update.page;
  }
  NoteSlots(step);
  std::multimap<int32_t, Use> uses = UsesOf(step);
  submitted_.push_back({std::move(step), std::move(uses)});
}

void FakeDevice::NoteSlots(const Step& step) {
  for (const SlotSetup& setup : step.setups) {
    for (const Submitted& older : submitted_) {
      for (const kernels::SequenceRows& rows : older.step.sequences) {
        SWAA_CHECK_NE(rows.slot, setup.slot) << "step " << older.step.id << " still reads it";
      }
    }
    slots_[setup.slot] = {};
    ++slot_uses_[setup.slot];
  }
  for (const kernels::SequenceRows& rows : step.sequences) {
    Slot& slot = slots_[rows.slot];
    if (slot.submitted == 0) {
      // The blocks before its first rows were computed by others.
      SWAA_CHECK_EQ(rows.first_position % kernels::kPageTokens, 0) << "slot " << rows.slot;
      if (rows.first_position == 0) slot.first_token = step.tokens[rows.first_row];
      slot.submitted = slot.computed = rows.first_position;
    }
    SWAA_CHECK_EQ(rows.first_position, slot.submitted) << "slot " << rows.slot;
    slot.submitted += rows.query_count;
  }
}

// The pages that a step reads or writes. CHECKs that it writes none that an older uncollected step
// uses otherwise.
std::multimap<int32_t, FakeDevice::Use> FakeDevice::UsesOf(const Step& step) {
  std::multimap<int32_t, Use> uses;
  if (info_.max_steps_in_flight == 1) return uses;
  for (size_t s = 0; s < step.sequences.size(); ++s) {
    const kernels::SequenceRows& rows = step.sequences[s];
    const int32_t last = rows.first_position + rows.query_count - 1;
    for (int32_t layer = 0; layer < info_.num_layers; ++layer) {
      const kernels::KeySpan span = step.spans[step.layer_class[layer] * step.sequences.size() + s];
      for (int32_t block = 0; block <= last / kernels::kPageTokens; ++block) {
        const int64_t begin = int64_t{block} * kernels::kPageTokens;
        const int64_t end = begin + kernels::kPageTokens;
        const bool seen = span.full() || begin < span.sinks ||
                          end > int64_t{rows.first_position} - span.window + 1;
        if (!seen) continue;
        const int32_t page = submitted_table_[EntryOf(rows.slot, layer, block)];
        const Use use{rows.slot, slot_uses_[rows.slot], layer, block};
        uses.emplace(page, use);
        if (end <= rows.first_position) continue;  // only read
        for (const Submitted& older : submitted_) {
          const auto [from, to] = older.uses.equal_range(page);
          for (auto it = from; it != to; ++it) {
            SWAA_CHECK(it->second == use) << "step " << step.id << " writes page " << page
                                          << ", which step " << older.step.id << " still uses";
          }
        }
      }
    }
  }
  return uses;
}

StepResult FakeDevice::Collect() {
  SWAA_CHECK(!submitted_.empty());
  last_step_ = std::move(submitted_.front().step);
  submitted_.pop_front();
  ++steps_;
  if (const int64_t time = step_microseconds_; time > 0) absl::SleepFor(absl::Microseconds(time));
  return Run(last_step_);
}

void FakeDevice::Poison(int32_t page) {
  poisoned_[page] = last_submitted_;
  for (int32_t i = 0; i < kernels::kPageTokens; ++i) {
    cells_[static_cast<size_t>(page) * kernels::kPageTokens + i] = {};
  }
}

FakeDevice::Cell& FakeDevice::CellOf(int32_t slot, int32_t layer, int32_t position) {
  const int32_t page = table_[EntryOf(slot, layer, position / kernels::kPageTokens)];
  SWAA_CHECK_NE(page, kernels::kZeroPage)
      << "slot " << slot << " layer " << layer << " position " << position << " has no page";
  SWAA_CHECK_GT(last_step_.id, poisoned_[page])
      << "page " << page << " of slot " << slot << " was given back too early";
  return cells_[static_cast<size_t>(page) * kernels::kPageTokens + position % kernels::kPageTokens];
}

uint64_t FakeDevice::ValueOf(int32_t token, int32_t slot) const {
  if (token != kDrawnToken) return token;
  const int32_t drawn = sampling_.at(slot).drawn;
  SWAA_CHECK_GE(drawn, 0) << "slot " << slot << " has drawn nothing";
  return drawn;
}

std::vector<uint64_t> FakeDevice::RunLayer(const Step& step, int32_t layer,
                                           const std::vector<uint64_t>& x) {
  for (const kernels::SequenceRows& rows : step.sequences) {
    for (int32_t r = 0; r < rows.query_count; ++r) {
      const int32_t position = rows.first_position + r;
      CellOf(rows.slot, layer, position) = {layer, position, x[rows.first_row + r]};
    }
  }
  std::vector<uint64_t> next(x.size());
  for (size_t s = 0; s < step.sequences.size(); ++s) {
    const kernels::SequenceRows& rows = step.sequences[s];
    const kernels::KeySpan span = step.spans[step.layer_class[layer] * step.sequences.size() + s];
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
  return next;
}

ScoredToken FakeDevice::RunLogits(const LogitsRow& row, uint64_t value) {
  ScoredToken token{.token = row.known_token};
  if (row.known_token < 0) {
    SlotSampling& slot = sampling_.at(row.slot);
    const SlotSetup& setup = slot.setup;
    if (setup.sampling->needs_history()) {
      SWAA_CHECK(setup.prompt != nullptr) << "slot " << row.slot;
      SWAA_CHECK_EQ(row.output_index, setup.output.size()) << "slot " << row.slot;
    }
    token.token = Draw(value, setup.sampling->needs_history(),
                       setup.prompt != nullptr ? *setup.prompt : std::vector<int32_t>(),
                       setup.output, row.forbid ? setup.forbidden : std::vector<int32_t>());
    slot.drawn = token.token;
    if (setup.sampling->needs_history()) slot.setup.output.push_back(token.token);
  }
  token.logprob = FakeLogprob(value, token.token);
  return token;
}

void FakeDevice::FailWith(absl::Status status) {
  std::lock_guard lock(failure_mutex_);
  failure_ = std::move(status);
}

void FakeDevice::LoseWith(absl::Status status) {
  std::lock_guard lock(failure_mutex_);
  failure_ = std::move(status);
  lost_ = true;
}

StepResult FakeDevice::Run(const Step& step) {
  StepResult result{.id = step.id,
                    .seconds = row_seconds_ * static_cast<double>(step.tokens.size())};
  {
    std::lock_guard lock(failure_mutex_);
    result.status = failure_;
    result.device_lost = lost_;
  }
  for (const PageTableUpdate& update : step.page_table_updates) {
    table_[EntryOf(update.slot, update.layer, update.block)] = update.page;
  }
  for (const SlotSetup& setup : step.setups) sampling_[setup.slot] = {.setup = setup};
  if (!result.status.ok()) return result;
  SWAA_CHECK_LE(static_cast<int32_t>(step.tokens.size()), info_.max_step_tokens);
  std::vector<uint64_t> x;
  for (const kernels::SequenceRows& rows : step.sequences) {
    SWAA_CHECK_EQ(rows.first_row, static_cast<int32_t>(x.size()));
    for (int32_t r = 0; r < rows.query_count; ++r) {
      x.push_back(ValueOf(step.tokens[rows.first_row + r], rows.slot));
    }
    slots_[rows.slot].computed += rows.query_count;
  }
  SWAA_CHECK_EQ(x.size(), step.tokens.size());
  for (int32_t layer = 0; layer < info_.num_layers; ++layer) x = RunLayer(step, layer, x);
  for (const LogitsRow& row : step.logits) result.tokens.push_back(RunLogits(row, x[row.row]));
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
                                     int32_t max_tokens, bool ignore_eos,
                                     const ReferenceDraws& draws) {
  std::vector<int32_t> tokens = prompt;
  tokens.insert(tokens.end(), forced.begin(), forced.end());
  std::vector<int32_t> output = forced;
  while (static_cast<int32_t>(output.size()) < max_tokens) {
    const bool forbid = output.size() < draws.min_tokens;
    const int32_t token =
        Draw(ReferenceValues(tokens, static_cast<int32_t>(prompt.size()), recipe).back(),
             draws.history, prompt, output, forbid ? draws.forbidden : std::vector<int32_t>());
    tokens.push_back(token);
    output.push_back(token);
    if (token == kFakeEos && !ignore_eos) break;
  }
  return output;
}

}  // namespace swaa::testing
