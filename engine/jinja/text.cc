// Text that knows which of its bytes came from a template's input.

#include "engine/jinja/text.h"

#include <algorithm>
#include <utility>

namespace swaa::jinja {
namespace {

// The run that holds byte `at`, or the end.
std::vector<Text::Run>::const_iterator RunAt(const std::vector<Text::Run>& runs, size_t at) {
  return std::upper_bound(runs.begin(), runs.end(), at,
                          [](size_t offset, const Text::Run& run) { return offset < run.end; });
}

}  // namespace

Text::Text(std::string bytes, bool is_input) : bytes_(std::move(bytes)) {
  if (!bytes_.empty()) runs_.push_back({bytes_.size(), is_input});
}

bool Text::HasInput(size_t begin, size_t end) const {
  size_t run_begin = begin;
  for (auto run = RunAt(runs_, begin); run != runs_.end() && run_begin < end; ++run) {
    if (run->is_input) return true;
    run_begin = run->end;
  }
  return false;
}

Text Text::Substr(size_t begin, size_t length) const {
  Text out;
  out.is_markup = is_markup;
  out.Append(*this, begin, length);
  return out;
}

void Text::Append(std::string_view bytes, bool is_input) {
  if (bytes.empty()) return;
  bytes_.append(bytes);
  if (!runs_.empty() && runs_.back().is_input == is_input) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), is_input});
  }
}

void Text::Append(const Text& other, size_t begin, size_t length) {
  begin = std::min(begin, other.size());
  const size_t end = begin + std::min(length, other.size() - begin);
  const std::string_view bytes = other.bytes_;
  for (auto run = RunAt(other.runs_, begin); begin < end; ++run) {
    const size_t stop = std::min(run->end, end);
    Append(bytes.substr(begin, stop - begin), run->is_input);
    begin = stop;
  }
}

}  // namespace swaa::jinja
