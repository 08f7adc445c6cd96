// Whoever follows the log knows what the cache has, however far he fell behind.

#include "server/vllm_engine/kv_event_log.h"

#include <map>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/testing/seed.h"

namespace swaa::server {
namespace {

constexpr size_t kKept = 8;
constexpr size_t kBatch = 4;

class Subscriber {
 public:
  Subscriber(KvEventLog* log, uint64_t start) : log_(log), cursor_(log->Begin(start)) {}

  void Read(int batches) {
    for (; batches > 0; --batches) {
      const auto batch = log_->Next(&cursor_);
      if (!batch.has_value()) return;
      if (batch->has_snapshot()) {
        ASSERT_LE(batch->snapshot().index(), batch->snapshot().count() - 1);
        ASSERT_TRUE(batch->snapshot().index() > 0 || batch->events(0).has_cleared());
      } else {
        ASSERT_EQ(batch->sequence_number(), last_ + 1) << "no batch is left out or comes twice";
      }
      last_ = batch->sequence_number();
      ASSERT_LE(batch->events_size(), static_cast<int>(kBatch) + 1);
      for (const auto& event : batch->events()) Take(event);
    }
  }

  const std::map<int64_t, uint32_t>& blocks() const { return blocks_; }

 private:
  void Take(const ::smg::grpc::common::KvCacheEvent& event) {
    if (event.has_cleared()) blocks_.clear();
    for (const auto& block : event.stored().blocks()) {
      ASSERT_TRUE(blocks_.emplace(block.block_hash(), block.token_ids(0)).second);
    }
    for (const int64_t hash : event.removed().block_hashes()) ASSERT_EQ(blocks_.erase(hash), 1u);
  }

  KvEventLog* const log_;
  KvEventLog::Cursor cursor_;
  uint64_t last_ = 0;
  std::map<int64_t, uint32_t> blocks_;
};

TEST(KvEventLogTest, EverySubscriberKnowsWhatIsThere) {
  const uint64_t seed = testing::Seed();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  KvEventLog log(kKept, kBatch);
  int woken = 0;
  log.Add(&log, [&woken] { ++woken; });
  const PrefixScope own = MakePrefixScope("", 0);
  const PrefixScope salted = MakePrefixScope("salt", 0);
  std::map<int64_t, uint32_t> there;
  std::vector<Subscriber> subscribers;
  int told = 0;
  for (int step = 0; step < 3000; ++step) {
    const uint64_t hash = random() % 40;
    const std::vector<int32_t> tokens(64, static_cast<int32_t>(hash));
    const bool is_there = there.contains(static_cast<int64_t>(hash));
    BlockChange change{.kind = is_there ? BlockChange::Kind::kRemoved : BlockChange::Kind::kAdded,
                       .hash = {.high = 1, .low = hash},
                       .parent = nullptr,
                       .scope = random() % 8 == 0 ? salted : own,
                       .tokens = tokens};
    log.OnBlock(change);
    if (change.scope == own) {
      ++told;
      if (is_there) {
        there.erase(static_cast<int64_t>(hash));
      } else {
        there.emplace(static_cast<int64_t>(hash), static_cast<uint32_t>(hash));
      }
    }
    if (step % 500 == 0) subscribers.emplace_back(&log, random() % 3);
    for (Subscriber& one : subscribers) {
      if (random() % 6 == 0) one.Read(static_cast<int>(random() % 9));
    }
  }
  EXPECT_EQ(woken, told);
  for (Subscriber& one : subscribers) {
    one.Read(100000);
    EXPECT_EQ(one.blocks(), there);
  }
}

TEST(KvEventLogTest, GoesOnFromANumberThatItStillHas) {
  KvEventLog log(kKept, kBatch);
  const std::vector<int32_t> tokens(64, 7);
  const auto add = [&](uint64_t hash) {
    log.OnBlock({.kind = BlockChange::Kind::kAdded,
                 .hash = {.high = 1, .low = hash},
                 .parent = nullptr,
                 .scope = MakePrefixScope("", 0),
                 .tokens = tokens});
  };
  KvEventLog::Cursor cursor = log.Begin(0);
  const uint64_t start = log.Next(&cursor)->sequence_number();
  add(1);
  EXPECT_EQ(log.Next(&cursor)->sequence_number(), start + 1);
  add(2);
  EXPECT_EQ(log.Next(&cursor)->sequence_number(), start + 2);
  EXPECT_FALSE(log.Next(&cursor).has_value());
  cursor = log.Begin(start + 2);
  EXPECT_TRUE(cursor.snapshot.empty());
  EXPECT_EQ(log.Next(&cursor)->events(0).stored().blocks(0).block_hash(), 2);
  // From another life of the server.
  EXPECT_EQ(log.Begin(start + 100).snapshot.size(), 1u);
  EXPECT_EQ(log.Begin(start - 100).snapshot.size(), 1u);
}

}  // namespace
}  // namespace swaa::server
