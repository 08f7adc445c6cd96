// The prefix cache beside a model of it: a flat map from all that a page's contents depend on to
// the page.

#include "engine/cache/prefix_cache.h"

#include <map>
#include <memory>
#include <random>
#include <set>
#include <span>
#include <tuple>

#include <gtest/gtest.h>

#include "engine/recipe/visibility.h"
#include "tests/unit/testing/seed.h"

namespace swaa {
namespace {

constexpr int32_t kLayers = 3;
constexpr int64_t kBlock = 64;

// What the contents of a page depend on: scope, layer, all tokens up to its end, and the mask where
// it matters.
using Contents = std::tuple<std::string, int32_t, std::vector<int32_t>, std::string>;

struct Request {
  std::vector<int32_t> tokens;
  int64_t prompt_tokens = 0;
  Recipe recipe;
  std::string salt;
  PrefixKey key;
  int64_t computed = 0;
  SequencePages pages{kLayers};
  PrefixCache::Lookup lookup;
  PrefixCache::Cursor cursor;

  KnownTokens known_tokens() const {
    const std::span<const int32_t> all(tokens);
    return {all.first(prompt_tokens), all.subspan(prompt_tokens)};
  }
};

Contents ContentsOf(const Request& r, int32_t layer, int64_t block) {
  const bool matters = r.recipe.window.has_value() &&
                       (block + 1) * kBlock > int64_t{*r.recipe.window} + r.recipe.sinks;
  std::string mask;
  if (matters) {
    mask = std::to_string(*r.recipe.window) + " " + std::to_string(r.recipe.sinks);
    for (bool full : r.recipe.layer_full) mask += full ? " 1" : " 0";
    if (mask.ends_with(" 1 1 1")) mask.clear();  // every layer full
  }
  return {r.salt, layer,
          std::vector<int32_t>(r.tokens.begin(), r.tokens.begin() + (block + 1) * kBlock), mask};
}

class PrefixCacheModel : public ::testing::Test {
 protected:
  void RunRandomLife(int32_t num_pages, int rounds);

  void Arrive() {
    auto r = std::make_unique<Request>();
    r->recipe = recipes_[random_() % recipes_.size()];
    r->salt = random_() % 5 == 0 ? "salt" : "";
    r->key = MakePrefixKey(MakePrefixScope(r->salt, 0), r->recipe);
    const std::vector<int32_t>& document = documents_[random_() % documents_.size()];
    r->tokens.assign(document.begin(), document.begin() + 1 + random_() % document.size());
    for (int i = random_() % 3; i > 0; --i) r->tokens.push_back(1000 + random_() % 2);
    r->prompt_tokens = random_() % 3 == 0 ? 1 + random_() % r->tokens.size() : r->tokens.size();
    waiting_.push_back(std::move(r));
    Look(waiting_.back().get());
  }

  // A look-up that is kept finds what a new one would.
  void Look(Request* r) {
    const int64_t most = r->prompt_tokens - 1;
    int64_t blocks = random_() % 4;
    cache_->Walk(r->key, r->known_tokens(), most, &r->lookup, &blocks);
    ASSERT_GE(blocks, 0);
    cache_->Find(r->key, r->known_tokens(), r->recipe, most, &r->lookup);
    ASSERT_EQ(r->lookup.tokens(), LongestByModel(*r, most));
    int64_t pages = 0;
    int64_t evictable = 0;
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      const KeptPositions kept = Kept(r->recipe, layer, r->lookup.tokens());
      for (int64_t block = 0; block * kBlock < r->lookup.tokens(); ++block) {
        if (!KeepsPage(kept, block)) continue;
        ++pages;
        evictable += pool_->references(known_.at(ContentsOf(*r, layer, block))) == 0;
      }
    }
    ASSERT_EQ(r->lookup.pages(), pages);
    ASSERT_EQ(r->lookup.evictable_pages(), evictable);
  }

  void Admit(size_t index) {
    std::unique_ptr<Request> r = std::move(waiting_[index]);
    waiting_.erase(waiting_.begin() + static_cast<int64_t>(index));
    ASSERT_NO_FATAL_FAILURE(Look(r.get()));
    const int64_t tokens = r->lookup.tokens();
    const int64_t pages = r->lookup.pages();
    const int64_t evictable = r->lookup.evictable_pages();
    const int64_t before = pool_->available_pages();
    r->cursor = cache_->Adopt(&r->lookup, r->recipe, 0, &r->pages, &updates_);
    ASSERT_EQ(before - pool_->available_pages(), evictable);
    ASSERT_EQ(r->pages.held(), pages);
    ASSERT_EQ(r->cursor.blocks * kBlock, tokens);
    r->computed = tokens;
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      for (int64_t block = 0; block * kBlock < tokens; ++block) {
        const int32_t page = r->pages.Page(layer, block);
        ASSERT_EQ(page != 0, KeepsPage(Kept(r->recipe, layer, tokens), block));
        if (page != 0) {
          ASSERT_EQ(contents_.at(page), ContentsOf(*r, layer, block));
        }
      }
    }
    hits_ += tokens > 0;
    running_.push_back(std::move(r));
  }

  // The longest prefix of whole blocks whose kept pages the model has, by trying all.
  int64_t LongestByModel(const Request& r, int64_t most) const {
    int64_t longest = 0;
    for (int64_t blocks = 1; blocks * kBlock <= most; ++blocks) {
      bool whole = true;
      for (int32_t layer = 0; layer < kLayers && whole; ++layer) {
        const KeptPositions kept = Kept(r.recipe, layer, blocks * kBlock);
        for (int64_t block = 0; block < blocks && whole; ++block) {
          whole = !KeepsPage(kept, block) || known_.contains(ContentsOf(r, layer, block));
        }
      }
      if (whole) longest = blocks * kBlock;
    }
    return longest;
  }

  void Step(Request* r) {
    const int64_t target = std::min<int64_t>(r->tokens.size(), r->computed + 1 + random_() % 150);
    if (target <= r->computed || r->pages.Missing(target) > pool_->available_pages()) return;
    r->pages.Extend(target, 0, pool_.get(), &updates_);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      for (int64_t block = r->computed / kBlock; (block + 1) * kBlock <= target; ++block) {
        contents_[r->pages.Page(layer, block)] = ContentsOf(*r, layer, block);
      }
    }
    const int64_t old_blocks = r->cursor.blocks;
    r->computed = target;
    cache_->Register(r->key, r->known_tokens(), target, r->pages, &r->cursor);
    for (int64_t block = old_blocks; block < r->cursor.blocks; ++block) {
      ASSERT_TRUE(r->key.IsShareable(r->prompt_tokens, block));
      for (int32_t layer = 0; layer < kLayers; ++layer) {
        const int32_t page = r->pages.Page(layer, block);
        if (page == 0) continue;
        const bool registered = pool_->registered(page);
        const auto [it, is_new] = known_.try_emplace(ContentsOf(*r, layer, block), page);
        // The first one stays; another page with the same contents is not registered.
        ASSERT_EQ(registered, it->second == page) << "layer " << layer << " block " << block;
      }
    }
    r->pages.ReleaseInvisible(r->recipe, r->computed, 0, pool_.get(), &updates_);
  }

  void End(size_t index) {
    Request* r = running_[index].get();
    cache_->Forget(&r->cursor);
    while (r->pages.held() > 0) r->pages.ReleaseSome(pool_.get(), 1 + random_() % 100);
    running_.erase(running_.begin() + static_cast<int64_t>(index));
  }

  std::mt19937 random_;
  std::unique_ptr<PagePool> pool_;
  std::unique_ptr<PrefixCache> cache_;
  std::vector<std::vector<int32_t>> documents_;
  std::vector<Recipe> recipes_;
  std::vector<std::unique_ptr<Request>> waiting_;
  std::vector<std::unique_ptr<Request>> running_;
  std::map<int32_t, Contents> contents_;  // of every page
  std::map<Contents, int32_t> known_;     // registered
  std::vector<PageTableUpdate> updates_;
  int64_t hits_ = 0;
  int64_t evictions_ = 0;
};

void PrefixCacheModel::RunRandomLife(int32_t num_pages, int rounds) {
  const uint32_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  random_.seed(seed);
  pool_ = std::make_unique<PagePool>(
      num_pages,
      [this](int32_t page) {
        ASSERT_EQ(known_.at(contents_.at(page)), page);
        known_.erase(contents_.at(page));
        cache_->OnEvicted(page);
        ++evictions_;
      },
      [this](int32_t page, bool held) { cache_->OnHeld(page, held); });
  cache_ = std::make_unique<PrefixCache>(kLayers, pool_.get());
  std::multiset<std::pair<uint64_t, uint64_t>> observed;
  cache_->SetObserver([&](const BlockChange& change) {
    const std::pair key(change.hash.high, change.hash.low);
    ASSERT_EQ(change.tokens.size(), 64u);
    if (change.kind == BlockChange::Kind::kAdded) {
      ASSERT_FALSE(observed.contains(key));
      observed.insert(key);
    } else {
      ASSERT_EQ(observed.erase(key), 1u);
    }
  });
  for (int i = 0; i < 3; ++i) {
    std::vector<int32_t> document(500);
    for (int32_t& token : document) token = static_cast<int32_t>(random_() % 3);
    documents_.push_back(document);
  }
  documents_[1].assign(documents_[0].begin(), documents_[0].begin() + 200);  // a common beginning
  for (int32_t token : documents_[2]) documents_[1].push_back(token);
  for (const auto& [window, sinks] :
       std::vector<std::pair<uint32_t, uint32_t>>{{0, 0}, {64, 0}, {100, 70}, {100, 70}, {2, 1}}) {
    Recipe recipe;
    recipe.layer_full = recipe.decode_full = std::vector<bool>(kLayers);
    if (window > 0) {
      recipe.window = window;
      recipe.sinks = sinks;
      for (int32_t layer = 0; layer < kLayers; ++layer) {
        recipe.layer_full[layer] = random_() % 3 == 0;
        recipe.decode_full[layer] = random_() % 3 == 0;
      }
    }
    recipes_.push_back(recipe);
  }
  for (int i = 0; i < rounds && !HasFatalFailure(); ++i) {
    updates_.clear();
    if (waiting_.size() < 4 && random_() % 8 == 0) {
      Arrive();
    } else if (!waiting_.empty() && random_() % 4 == 0) {
      Look(waiting_[random_() % waiting_.size()].get());
    } else if (!waiting_.empty() && random_() % 50 == 0) {
      const size_t index = random_() % waiting_.size();
      cache_->Forget(&waiting_[index]->lookup);
      waiting_.erase(waiting_.begin() + static_cast<int64_t>(index));
    } else if (!waiting_.empty() && running_.size() < 6 && random_() % 8 == 0) {
      Admit(random_() % waiting_.size());
    } else if (!running_.empty()) {
      const size_t index = random_() % running_.size();
      Request* r = running_[index].get();
      const bool done = r->computed == static_cast<int64_t>(r->tokens.size());
      if (done || random_() % 10 == 0) {
        End(index);
      } else {
        Step(r);
      }
    }
    int64_t held = 0;
    for (const auto& r : running_) held += r->pages.held();
    ASSERT_LE(pool_->used_pages(), held);
    ASSERT_GE(static_cast<int64_t>(known_.size()), pool_->evictable_pages());
    ASSERT_EQ(static_cast<int64_t>(observed.size()), cache_->blocks());
  }
  for (const auto& r : waiting_) cache_->Forget(&r->lookup);
  while (!running_.empty()) End(0);
  EXPECT_EQ(pool_->used_pages(), 0);
  EXPECT_EQ(pool_->evictable_pages(), static_cast<int64_t>(known_.size()));
  EXPECT_GT(hits_, rounds / 200);
  // Every page taken for another use: no block may stay behind.
  const PagePool::Holder holder = pool_->AddHolder();
  while (pool_->available_pages() > 0) pool_->Take(holder);
  EXPECT_EQ(cache_->blocks(), 0);
  EXPECT_EQ(cache_->nodes(), 0u);
  EXPECT_TRUE(observed.empty());
}

TEST_F(PrefixCacheModel, WithRoom) { RunRandomLife(2000, 20000); }

TEST_F(PrefixCacheModel, ShortOfPages) {
  RunRandomLife(60, 100000);
  EXPECT_GT(evictions_, 1000);
}

// Two waiting requests of one prefix look it up once while others compute and register elsewhere.
TEST(PrefixCache, AKeptLookupIsUpToDateUntilItsOwnPathChanges) {
  PagePool pool(100);
  PrefixCache cache(1, &pool);
  Recipe recipe{.layer_full = {true}, .decode_full = {true}};
  const PrefixKey key = MakePrefixKey(MakePrefixScope("", 0), recipe);
  std::vector<PageTableUpdate> updates;
  auto compute = [&](const std::vector<int32_t>& tokens, PrefixCache::Cursor* cursor,
                     SequencePages* pages) {
    pages->Extend(static_cast<int64_t>(tokens.size()), 0, &pool, &updates);
    cache.Register(key, {tokens, {}}, static_cast<int64_t>(tokens.size()), *pages, cursor);
  };
  std::vector<int32_t> tokens(256, 1);
  PrefixCache::Cursor cursor;
  SequencePages pages(1);
  compute(tokens, &cursor, &pages);
  PrefixCache::Lookup lookup;
  tokens.resize(400, 1);
  cache.Find(key, {tokens, {}}, recipe, 399, &lookup);
  EXPECT_EQ(lookup.tokens(), 256);
  PrefixCache::Cursor other_cursor;
  SequencePages other_pages(1);
  std::vector<int32_t> other(64, 2);
  compute(other, &other_cursor, &other_pages);  // its first block might have been anyone's
  cache.Find(key, {tokens, {}}, recipe, 399, &lookup);
  const uint64_t version = cache.version();
  other.resize(320, 2);
  compute(other, &other_cursor, &other_pages);
  EXPECT_EQ(cache.version(), version);
  compute(std::vector<int32_t>(320, 1), &cursor, &pages);
  EXPECT_NE(cache.version(), version);
  cache.Find(key, {tokens, {}}, recipe, 399, &lookup);
  EXPECT_EQ(lookup.tokens(), 320);
}

}  // namespace
}  // namespace swaa
