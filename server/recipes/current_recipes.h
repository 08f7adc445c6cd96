// The recipes in force, which a reload replaces.

#ifndef SWAA_SERVER_RECIPES_CURRENT_RECIPES_H_
#define SWAA_SERVER_RECIPES_CURRENT_RECIPES_H_

#include <memory>
#include <mutex>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "server/recipes/recipe_catalog.h"

namespace swaa::server {

// Thread-safe. Who holds a catalogue keeps it, whatever is set afterwards.
class CurrentRecipes {
 public:
  // Set once before the first Get.
  void Set(RecipeCatalog catalog) {
    auto next = std::make_shared<const RecipeCatalog>(std::move(catalog));
    std::lock_guard lock(mutex_);
    catalog_.swap(next);
  }
  std::shared_ptr<const RecipeCatalog> Get() const {
    std::lock_guard lock(mutex_);
    return catalog_;
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const RecipeCatalog> catalog_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_RECIPES_CURRENT_RECIPES_H_
