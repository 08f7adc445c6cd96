// What the engine holds and does, for those who watch it.

#ifndef SWAA_ENGINE_SCHEDULE_ENGINE_LOAD_H_
#define SWAA_ENGINE_SCHEDULE_ENGINE_LOAD_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace swaa {

// Requests and memory of one recipe label.
struct RecipeLoad {
  int32_t running = 0;
  int32_t queued = 0;
  int64_t kv_bytes = 0;
  int64_t full_attention_kv_bytes = 0;  // what its running requests would hold under full attention
};

struct EngineLoad {
  int32_t running = 0;
  int32_t queued = 0;
  int64_t used_pages = 0;   // by running requests
  int64_t total_pages = 0;  // without the zero page
  int64_t evictable_pages = 0;
  int64_t preemptions = 0;    // since the start
  int64_t cached_blocks = 0;  // of 64 tokens, that the prefix cache has
  std::map<std::string, RecipeLoad> recipes;
  std::map<std::string, RecipeLoad> adapters;  // by name; their requests alone
};

// The loads of the labels in use, kept up to date by small changes. Not thread-safe: the engine
// thread's; what Snapshot returns is a value.
class RecipeLoads {
 public:
  // The load of a label; it stays where it is until Release. Each Use needs its Release, but one
  // that throws bad_alloc.
  RecipeLoad* Use(std::string_view label);
  void Release(std::string_view label);

  struct Labelled {
    std::shared_ptr<const std::string> label;
    RecipeLoad load;
  };
  // No string is copied.
  std::vector<Labelled> Snapshot() const;

 private:
  struct Entry {
    Labelled labelled;
    int64_t users = 0;
  };
  std::map<std::string, Entry, std::less<>> entries_;
};

// EngineLoad as the engine thread hands it to others.
struct LoadSnapshot {
  EngineLoad totals;  // without recipes
  std::vector<RecipeLoads::Labelled> recipes;
  std::vector<RecipeLoads::Labelled> adapters;

  EngineLoad ToLoad() const;
};

}  // namespace swaa

#endif  // SWAA_ENGINE_SCHEDULE_ENGINE_LOAD_H_
