// The page pool beside a model of it in maps and lists.

#include "engine/cache/page_pool.h"

#include <algorithm>
#include <list>
#include <map>
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

TEST(PagePool, BehavesAsItsModel) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::vector<int32_t> evicted;
  std::vector<std::pair<int32_t, bool>> held_changes;
  PagePool pool(
      50, [&](int32_t page) { evicted.push_back(page); },
      [&](int32_t page, bool held) { held_changes.emplace_back(page, held); });
  EXPECT_EQ(pool.total_pages(), 49);
  std::vector<PagePool::Holder> holders;
  for (int i = 0; i < 5; ++i) holders.push_back(pool.AddHolder());
  std::map<int32_t, std::set<PagePool::Holder>> held;  // page -> holders
  std::set<int32_t> registered;
  std::list<int32_t> evictable;  // next to be evicted first
  auto any = [&](const auto& pages) { return *std::next(pages.begin(), random() % pages.size()); };
  using HeldChanges = std::vector<std::pair<int32_t, bool>>;
  for (int i = 0; i < 100000; ++i) {
    const PagePool::Holder holder = any(holders);
    HeldChanges expected_changes;
    held_changes.clear();
    switch (random() % 5) {
      case 0: {
        if (held.size() == 49) break;
        const bool must_evict = held.size() + evictable.size() == 49;
        evicted.clear();
        const int32_t page = pool.Take(holder);
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
        held[page] = {holder};
        break;
      }
      case 1: {
        if (held.empty()) break;
        const int32_t page = any(held).first;
        const PagePool::Holder of_page = any(held[page]);
        pool.Release(page, of_page);
        held[page].erase(of_page);
        if (!held[page].empty()) break;
        held.erase(page);
        if (!registered.contains(page)) break;
        evictable.push_back(page);
        expected_changes = {{page, false}};
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
        if (held[page].insert(holder).second) pool.Share(page, holder);
        break;
      }
      case 4: {
        if (evictable.empty()) break;
        const int32_t page = any(evictable);
        pool.Share(page, holder);
        evictable.remove(page);
        held[page] = {holder};
        expected_changes = {{page, true}};
        break;
      }
    }
    ASSERT_EQ(held_changes, expected_changes);
    ASSERT_EQ(pool.used_pages(), static_cast<int64_t>(held.size()));
    ASSERT_EQ(pool.evictable_pages(), static_cast<int64_t>(evictable.size()));
    ASSERT_EQ(pool.available_pages(), 49 - static_cast<int64_t>(held.size()));
    for (const PagePool::Holder one : holders) {
      ASSERT_EQ(pool.exclusive(one), std::count_if(held.begin(), held.end(), [&](const auto& page) {
                  return page.second == std::set{one};
                }));
    }
  }
}

TEST(PagePoolDeathTest, BrokenInvariantsAbort) {
  PagePool pool(3);
  const PagePool::Holder holder = pool.AddHolder();
  const PagePool::Holder other = pool.AddHolder();
  const int32_t page = pool.Take(holder);
  EXPECT_DEATH(pool.RemoveHolder(holder), "still holds pages");
  EXPECT_DEATH(pool.Release(page, other), "is not holder");
  pool.Release(page, holder);
  EXPECT_DEATH(pool.Release(page, holder), "released too often");
  EXPECT_DEATH(pool.Share(page, holder), "nothing to share");
  EXPECT_DEATH(pool.Register(page), "nobody's");
  EXPECT_DEATH(pool.Release(0, holder), "page 0");
  EXPECT_DEATH(pool.Release(3, holder), "page 3");
  pool.Take(holder);
  pool.Take(holder);
  EXPECT_DEATH(pool.Take(holder), "more pages than there are");
}

}  // namespace
}  // namespace swaa
