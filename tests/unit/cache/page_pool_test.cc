// The page pool beside a model of it in maps and lists.

#include "engine/cache/page_pool.h"

#include <algorithm>
#include <list>
#include <map>
#include <random>
#include <set>

#include <gtest/gtest.h>

namespace swaa {
namespace {

TEST(PagePool, BehavesAsItsModel) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::vector<int32_t> evicted;
  PagePool pool(50, [&](int32_t page) { evicted.push_back(page); });
  EXPECT_EQ(pool.total_pages(), 49);
  std::map<int32_t, int32_t> held;  // page -> references
  std::set<int32_t> registered;
  std::list<int32_t> evictable;  // next to be evicted first
  auto any = [&](const auto& pages) { return *std::next(pages.begin(), random() % pages.size()); };
  for (int i = 0; i < 100000; ++i) {
    switch (random() % 5) {
      case 0: {
        if (held.size() == 49) break;
        const bool must_evict = held.size() + evictable.size() == 49;
        evicted.clear();
        const int32_t page = pool.Take();
        ASSERT_GT(page, 0);
        ASSERT_LT(page, 50);
        ASSERT_FALSE(held.contains(page)) << page;
        if (must_evict) {
          ASSERT_EQ(evicted, std::vector<int32_t>{evictable.front()});
          ASSERT_EQ(page, evictable.front());
          evictable.pop_front();
          registered.erase(page);
        } else {
          ASSERT_TRUE(evicted.empty());
        }
        held[page] = 1;
        break;
      }
      case 1: {
        if (held.empty()) break;
        const int32_t page = any(held).first;
        pool.Release(page);
        if (--held[page] > 0) break;
        held.erase(page);
        if (registered.contains(page)) evictable.push_back(page);
        break;
      }
      case 2: {
        if (held.empty()) break;
        const int32_t page = any(held).first;
        if (registered.insert(page).second) pool.Register(page);
        break;
      }
      case 3: {
        if (held.empty()) break;
        const int32_t page = any(held).first;
        pool.Share(page);
        ++held[page];
        break;
      }
      case 4: {
        if (evictable.empty()) break;
        const int32_t page = any(evictable);
        pool.Share(page);
        evictable.remove(page);
        held[page] = 1;
        break;
      }
    }
    ASSERT_EQ(pool.used_pages(), static_cast<int64_t>(held.size()));
    ASSERT_EQ(pool.evictable_pages(), static_cast<int64_t>(evictable.size()));
    ASSERT_EQ(pool.available_pages(), 49 - static_cast<int64_t>(held.size()));
  }
}

TEST(PagePoolDeathTest, BrokenInvariantsAbort) {
  PagePool pool(3);
  const int32_t page = pool.Take();
  pool.Release(page);
  EXPECT_DEATH(pool.Release(page), "released too often");
  EXPECT_DEATH(pool.Share(page), "nothing to share");
  EXPECT_DEATH(pool.Register(page), "nobody's");
  EXPECT_DEATH(pool.Release(0), "page 0");
  EXPECT_DEATH(pool.Release(3), "page 3");
  pool.Take();
  pool.Take();
  EXPECT_DEATH(pool.Take(), "more pages than there are");
}

}  // namespace
}  // namespace swaa
