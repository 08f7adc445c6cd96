// The prefix cache beside a model of it: a flat map from all that a page's contents depend on to
// the page.

#include "engine/cache/prefix_cache.h"

#include <map>
#include <memory>
#include <random>
#include <tuple>

#include <gtest/gtest.h>

#include "engine/recipe/visibility.h"

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
  PrefixScope scope;
  int64_t computed = 0;
  SequencePages pages{kLayers};
  PrefixCache::Cursor cursor;

  PrefixCache::TokenAt token_at() const {
    return [this](int64_t p) { return tokens.at(p); };
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
  return {r.scope.salt, layer,
          std::vector<int32_t>(r.tokens.begin(), r.tokens.begin() + (block + 1) * kBlock), mask};
}

class PrefixCacheModel : public ::testing::Test {
 protected:
  void RunRandomLife(int32_t num_pages, int rounds);

  void Admit() {
    auto r = std::make_unique<Request>();
    r->recipe = recipes_[random_() % recipes_.size()];
    r->scope.salt = random_() % 5 == 0 ? "salt" : "";
    const std::vector<int32_t>& document = documents_[random_() % documents_.size()];
    r->tokens.assign(document.begin(), document.begin() + 1 + random_() % document.size());
    for (int i = random_() % 3; i > 0; --i) r->tokens.push_back(1000 + random_() % 2);
    r->prompt_tokens = random_() % 3 == 0 ? 1 + random_() % r->tokens.size() : r->tokens.size();
    const int64_t most = r->prompt_tokens - 1;
    const PrefixCache::Hit hit =
        cache_->Find(r->scope, r->token_at(), r->recipe, r->prompt_tokens, most);
    ASSERT_EQ(hit.tokens, LongestByModel(*r, most));
    ASSERT_EQ(static_cast<int64_t>(hit.path.size()) * kBlock, hit.tokens);
    const int64_t before = pool_->available_pages();
    cache_->Adopt(hit, r->recipe, 0, &r->pages, &updates_);
    ASSERT_EQ(before - pool_->available_pages(), hit.evictable_pages);
    ASSERT_EQ(r->pages.held(), hit.pages);
    r->cursor = cache_->Follow(hit);
    r->computed = hit.tokens;
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      for (int64_t block = 0; block * kBlock < hit.tokens; ++block) {
        const int32_t page = r->pages.Page(layer, block);
        ASSERT_EQ(page != 0, KeepsPage(Kept(r->recipe, layer, hit.tokens), block));
        if (page != 0) {
          ASSERT_EQ(contents_.at(page), ContentsOf(*r, layer, block));
        }
      }
    }
    hits_ += hit.tokens > 0;
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
    cache_->Register(r->scope, r->token_at(), r->recipe, r->prompt_tokens, target, r->pages,
                     &r->cursor);
    for (int64_t block = old_blocks; block < r->cursor.blocks; ++block) {
      ASSERT_TRUE(IsShareable(r->recipe, r->prompt_tokens, block));
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
    r->pages.ReleaseAll(0, pool_.get(), &updates_);
    running_.erase(running_.begin() + static_cast<int64_t>(index));
  }

  std::mt19937 random_;
  std::unique_ptr<PagePool> pool_;
  std::unique_ptr<PrefixCache> cache_;
  std::vector<std::vector<int32_t>> documents_;
  std::vector<Recipe> recipes_;
  std::vector<std::unique_ptr<Request>> running_;
  std::map<int32_t, Contents> contents_;  // of every page
  std::map<Contents, int32_t> known_;     // registered
  std::vector<PageTableUpdate> updates_;
  int64_t hits_ = 0;
  int64_t evictions_ = 0;
};

void PrefixCacheModel::RunRandomLife(int32_t num_pages, int rounds) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  random_.seed(seed);
  pool_ = std::make_unique<PagePool>(num_pages, [this](int32_t page) {
    ASSERT_EQ(known_.at(contents_.at(page)), page);
    known_.erase(contents_.at(page));
    cache_->OnEvicted(page);
    ++evictions_;
  });
  cache_ = std::make_unique<PrefixCache>(kLayers, pool_.get());
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
    if (running_.size() < 6 && random_() % 8 == 0) {
      Admit();
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
  }
  while (!running_.empty()) End(0);
  EXPECT_EQ(pool_->used_pages(), 0);
  EXPECT_EQ(pool_->evictable_pages(), static_cast<int64_t>(known_.size()));
  EXPECT_GT(hits_, rounds / 200);
  // Every page taken for another use: no block may stay behind.
  while (pool_->available_pages() > 0) pool_->Take();
  EXPECT_EQ(cache_->blocks(), 0);
}

TEST_F(PrefixCacheModel, WithRoom) { RunRandomLife(2000, 20000); }

TEST_F(PrefixCacheModel, ShortOfPages) {
  RunRandomLife(60, 100000);
  EXPECT_GT(evictions_, 1000);
}

TEST(IsShareable, GeneratedPositionsUnderDecodeMasksAreNot) {
  Recipe recipe;
  recipe.window = 64;
  recipe.layer_full = {true, false};
  recipe.decode_full = {true, false};
  EXPECT_TRUE(IsShareable(recipe, 10, 5)) << "D is within F";
  recipe.decode_full = {true, true};
  EXPECT_TRUE(IsShareable(recipe, 10, 0)) << "sees everything anyway";
  EXPECT_FALSE(IsShareable(recipe, 10, 1));
  EXPECT_FALSE(IsShareable(recipe, 127, 1)) << "one generated position is enough";
  EXPECT_TRUE(IsShareable(recipe, 128, 1));
}

}  // namespace
}  // namespace swaa
