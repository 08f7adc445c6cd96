// The page pool beside a set of integers.

#include "engine/cache/page_pool.h"

#include <random>
#include <set>

#include <gtest/gtest.h>

namespace swaa {
namespace {

TEST(PagePool, NeverGivesTheZeroPageNorOnePageTwice) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  PagePool pool(50);
  EXPECT_EQ(pool.total_pages(), 49);
  std::set<int32_t> held;
  for (int i = 0; i < 100000; ++i) {
    if (pool.free_pages() > 0 && random() % 2 == 0) {
      const int32_t page = pool.Take();
      ASSERT_GT(page, 0);
      ASSERT_LT(page, 50);
      ASSERT_TRUE(held.insert(page).second) << page;
    } else if (!held.empty()) {
      const auto it = std::next(held.begin(), random() % held.size());
      pool.Release(*it);
      held.erase(it);
    }
    ASSERT_EQ(pool.used_pages(), static_cast<int64_t>(held.size()));
  }
}

TEST(PagePoolDeathTest, BrokenInvariantsAbort) {
  PagePool pool(3);
  const int32_t page = pool.Take();
  pool.Release(page);
  EXPECT_DEATH(pool.Release(page), "released twice");
  EXPECT_DEATH(pool.Release(0), "page 0");
  EXPECT_DEATH(pool.Release(3), "page 3");
  pool.Take();
  pool.Take();
  EXPECT_DEATH(pool.Take(), "no page is free");
}

}  // namespace
}  // namespace swaa
