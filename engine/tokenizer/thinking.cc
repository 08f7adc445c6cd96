// Thinking sections of an output.

#include "engine/tokenizer/thinking.h"

#include <algorithm>

namespace swaa {
namespace {

struct KnownMarks {
  const char* open;
  const char* close;
};

// Of Qwen3, DeepSeek-R1 and those after them, of Magistral, of Command A Reasoning.
constexpr KnownMarks kKnownMarks[] = {
    {"<think>", "</think>"},
    {"[THINK]", "[/THINK]"},
    {"<|START_THINKING|>", "<|END_THINKING|>"},
};

// How many bytes at the end of `text` may begin `mark`, without being all of it.
size_t BegunBytes(std::string_view text, std::string_view mark) {
  for (size_t count = std::min(text.size(), mark.size() - 1); count > 0; --count) {
    if (text.ends_with(mark.substr(0, count))) return count;
  }
  return 0;
}

}  // namespace

std::optional<ThinkingMarks> FindThinkingMarks(const Tokenizer& tokenizer) {
  for (const KnownMarks& known : kKnownMarks) {
    const std::optional<int32_t> open = tokenizer.SpecialTokenId(known.open);
    const std::optional<int32_t> close = tokenizer.SpecialTokenId(known.close);
    if (open.has_value() && close.has_value()) {
      return ThinkingMarks{known.open, known.close, ThinkingMarks::Ids{*open, *close}};
    }
  }
  for (const KnownMarks& known : kKnownMarks) {
    if (tokenizer.chat_template().find(known.close) != std::string::npos) {
      return ThinkingMarks{known.open, known.close, std::nullopt};
    }
  }
  return std::nullopt;
}

bool EndsInThinking(const ThinkingMarks& marks, const Tokenizer& tokenizer,
                    std::span<const int32_t> prompt) {
  size_t turn = prompt.size();
  for (; turn > 0; --turn) {
    const int32_t token = prompt[turn - 1];
    if (marks.ids.has_value() && token == marks.ids->open) return true;
    if (marks.ids.has_value() && token == marks.ids->close) return false;
    if (tokenizer.IsSpecial(token)) break;
  }
  if (marks.ids.has_value()) return false;
  std::string text;
  for (const int32_t token : prompt.subspan(turn)) text += tokenizer.TokenBytes(token);
  const size_t open = text.rfind(marks.open);
  if (open == std::string::npos) return false;
  const size_t close = text.rfind(marks.close);
  return close == std::string::npos || close < open;
}

std::optional<bool> ThinkingSections::Append(int32_t token, std::string_view bytes) {
  const uint64_t begin = bytes_;
  if (marks_ == nullptr) {
    bytes_ += bytes.size();
    return false;
  }
  if (marks_->ids.has_value()) {
    const bool opens = token == marks_->ids->open;
    const bool closes = token == marks_->ids->close;
    const bool thinking = inside_ || opens;
    bytes_ += bytes.size();
    if (opens && !inside_) FlipAt(begin);
    if (closes && inside_) FlipAt(bytes_);
    return thinking;
  }
  if (bytes.empty()) {
    // Whatever stands here that is not shown, no mark goes on behind it.
    mark_.clear();
    return inside_;
  }
  FindMarks(bytes);
  if (decided_bytes() <= begin) return std::nullopt;
  return IsThinking(begin);
}

void ThinkingSections::FindMarks(std::string_view bytes) {
  uint64_t begin = bytes_ - mark_.size();
  mark_.append(bytes);
  bytes_ += bytes.size();
  std::string_view text = mark_;
  for (;;) {
    const std::string_view mark = inside_ ? marks_->close : marks_->open;
    const size_t found = text.find(mark);
    if (found == std::string_view::npos) break;
    const size_t end = found + mark.size();
    FlipAt(begin + (inside_ ? end : found));
    text.remove_prefix(end);
    begin += end;
  }
  mark_.erase(0, mark_.size() - BegunBytes(text, inside_ ? marks_->close : marks_->open));
}

void ThinkingSections::FlipAt(uint64_t at) {
  inside_ = !inside_;
  if (!flips_.empty() && flips_.back() == at) {
    flips_.pop_back();  // there and back
  } else {
    flips_.push_back(at);
  }
}

bool ThinkingSections::IsThinking(uint64_t at) const {
  const auto behind = std::upper_bound(flips_.begin(), flips_.end(), at);
  return piece_inside_ != ((behind - flips_.begin()) % 2 == 1);
}

ThinkingSections::Piece ThinkingSections::PieceAt(uint64_t at) {
  while (!flips_.empty() && flips_.front() <= at) {
    piece_inside_ = !piece_inside_;
    flips_.pop_front();
  }
  return {piece_inside_, flips_.empty() ? decided_bytes() : flips_.front()};
}

}  // namespace swaa
