// Which keys each layer of each sequence of a step sees, told in classes: layers in which every
// sequence of the step sees the same keys share one.

#ifndef SWAA_ENGINE_SCHEDULE_SPAN_CLASSES_H_
#define SWAA_ENGINE_SCHEDULE_SPAN_CLASSES_H_

#include <cstdint>
#include <vector>

#include "engine/device/step.h"
#include "engine/recipe/recipe.h"
#include "engine/recipe/visibility.h"

namespace swaa {

// Recipes of running requests by small numbers, so that a step compares numbers and not layers. Not
// thread-safe: the engine thread's.
class SpanClasses {
 public:
  explicit SpanClasses(int32_t num_layers) : num_layers_(num_layers) {}

  // A number for a recipe's spans; equal for recipes that see the same. Each Add needs its Remove.
  int32_t Add(const Recipe& recipe);
  void Remove(int32_t recipe);

  // Visible (query, key) pairs over all layers of positions first .. last - 1, all of one phase.
  int64_t AttendedKeys(int32_t recipe, Phase phase, int64_t first, int64_t last) const;

  // Fills layer_class and spans of a step. `columns`: recipe and phase of its sequences, in order.
  // Time: layers x distinct columns, where these are not those of the step before, and classes x
  // sequences.
  struct Column {
    int32_t recipe = 0;
    Phase phase = Phase::kPrefill;
    bool operator==(const Column&) const = default;
  };
  void Fill(const std::vector<Column>& columns, Step* step);

 private:
  // What a recipe's layers see in one phase: all, or `window`.
  struct Layers {
    std::vector<uint8_t> slides;  // [layers]
    int32_t sliding = 0;          // how many
  };
  struct Entry {
    int32_t users = 0;
    kernels::KeySpan window;
    Layers layers[2];  // [phase]

    bool SeesAs(const Entry& other) const;
  };

  const Layers& LayersOf(const Column& column) const {
    return entries_[column.recipe].layers[static_cast<int>(column.phase)];
  }
  std::vector<Column> Distinct(const std::vector<Column>& columns) const;
  void Divide(const std::vector<Column>& distinct);

  const int32_t num_layers_;
  std::vector<Entry> entries_;  // [recipe]
  // The classes of the last step's distinct columns.
  std::vector<Column> distinct_;
  std::vector<uint8_t> layer_class_;     // [layers]
  std::vector<int32_t> representative_;  // [classes] a layer
};

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_SPAN_CLASSES_H_
