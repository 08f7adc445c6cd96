// Classes of layers.

#include "engine/schedule/span_classes.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/check.h"

namespace swaa {

bool SpanClasses::Entry::SeesAs(const Entry& other) const {
  for (int phase = 0; phase < 2; ++phase) {
    if (layers[phase].slides != other.layers[phase].slides) return false;
  }
  return window == other.window;
}

int32_t SpanClasses::Add(const Recipe& recipe) {
  Entry entry{.users = 1};
  for (const Phase phase : {Phase::kPrefill, Phase::kDecode}) {
    Layers& layers = entry.layers[static_cast<int>(phase)];
    layers.slides.resize(num_layers_);
    for (int32_t layer = 0; layer < num_layers_; ++layer) {
      const kernels::KeySpan span = SpanOf(recipe, layer, phase);
      if (span.full()) continue;
      entry.window = span;
      layers.slides[layer] = 1;
      ++layers.sliding;
    }
  }
  size_t unused = entries_.size();
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].users > 0 && entries_[i].SeesAs(entry)) {
      ++entries_[i].users;
      return static_cast<int32_t>(i);
    }
    if (entries_[i].users == 0) unused = i;
  }
  if (unused == entries_.size()) entries_.emplace_back();
  entries_[unused] = std::move(entry);
  distinct_.clear();  // the number may have meant another recipe
  return static_cast<int32_t>(unused);
}

void SpanClasses::Remove(int32_t recipe) {
  SWAA_CHECK_GT(entries_[recipe].users, 0) << "recipe " << recipe;
  --entries_[recipe].users;
}

int64_t SpanClasses::AttendedKeys(int32_t recipe, Phase phase, int64_t first, int64_t last) const {
  const Layers& layers = LayersOf({recipe, phase});
  return (num_layers_ - layers.sliding) * SumVisibleKeys({}, first, last) +
         layers.sliding * SumVisibleKeys(entries_[recipe].window, first, last);
}

// By number: the order of the sequences, which changes from step to step, does not matter.
std::vector<SpanClasses::Column> SpanClasses::Distinct(const std::vector<Column>& columns) const {
  std::vector<uint8_t> seen(entries_.size() * 2);
  std::vector<Column> distinct;
  for (const Column& column : columns) {
    seen[column.recipe * 2 + static_cast<int>(column.phase)] = 1;
  }
  for (size_t i = 0; i < seen.size(); ++i) {
    if (seen[i]) distinct.push_back({static_cast<int32_t>(i / 2), static_cast<Phase>(i % 2)});
  }
  return distinct;
}

// Divides the layers by one distinct column after the other.
void SpanClasses::Divide(const std::vector<Column>& distinct) {
  layer_class_.assign(num_layers_, 0);
  representative_.assign(1, 0);
  for (const Column& column : distinct) {
    const std::vector<uint8_t>& slides = LayersOf(column).slides;
    std::map<std::pair<uint8_t, uint8_t>, uint8_t> divided;
    representative_.clear();
    for (int32_t layer = 0; layer < num_layers_; ++layer) {
      const auto [it, is_new] =
          divided.try_emplace({layer_class_[layer], slides[layer]}, divided.size());
      if (is_new) representative_.push_back(layer);
      layer_class_[layer] = it->second;
    }
    SWAA_CHECK_LE(representative_.size(), 256u) << num_layers_ << " layers";
  }
}

void SpanClasses::Fill(const std::vector<Column>& columns, Step* step) {
  std::vector<Column> distinct = Distinct(columns);
  if (distinct != distinct_ || layer_class_.empty()) {
    distinct_.clear();  // none, if memory runs out while they divide
    Divide(distinct);
    distinct_ = std::move(distinct);
  }
  step->layer_class = layer_class_;
  step->spans.reserve(representative_.size() * columns.size());
  for (const int32_t layer : representative_) {
    for (const Column& column : columns) {
      const bool slides = LayersOf(column).slides[layer] != 0;
      step->spans.push_back(slides ? entries_[column.recipe].window : kernels::KeySpan{});
    }
  }
}

}  // namespace swaa
