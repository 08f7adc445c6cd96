// Loads by label.

#include "engine/schedule/engine_load.h"

#include <utility>

#include "base/check.h"

namespace swaa {

RecipeLoad* RecipeLoads::Use(std::string_view label) {
  auto it = entries_.find(label);
  if (it == entries_.end()) {
    auto shared = std::make_shared<const std::string>(label);  // first: it may lack the memory
    it = entries_.try_emplace(std::string(label)).first;
    it->second.labelled.label = std::move(shared);
  }
  ++it->second.users;
  return &it->second.labelled.load;
}

void RecipeLoads::Release(std::string_view label) {
  const auto it = entries_.find(label);
  SWAA_CHECK(it != entries_.end()) << label;
  if (--it->second.users == 0) entries_.erase(it);
}

std::vector<RecipeLoads::Labelled> RecipeLoads::Snapshot() const {
  std::vector<Labelled> snapshot;
  snapshot.reserve(entries_.size());
  for (const auto& [label, entry] : entries_) snapshot.push_back(entry.labelled);
  return snapshot;
}

EngineLoad LoadSnapshot::ToLoad() const {
  EngineLoad load = totals;
  for (const RecipeLoads::Labelled& one : recipes) load.recipes.emplace(*one.label, one.load);
  for (const RecipeLoads::Labelled& one : adapters) load.adapters.emplace(*one.label, one.load);
  return load;
}

}  // namespace swaa
