// Ranks in threads: what they add up and gather, what they agree on, and that whoever gives up lets
// the others go.

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/ranks/memory_communicator.h"
#include "tests/unit/testing/seed.h"

namespace swaa::kernels {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Calls `body` with each rank's end, in a thread of its own.
void OnEachRank(int32_t size, const std::function<void(Communicator*)>& body) {
  const auto ranks = MakeMemoryCommunicators(size);
  std::vector<std::jthread> threads;
  for (const auto& rank : ranks) threads.emplace_back([&body, end = rank.get()] { body(end); });
}

TEST(RanksTest, ColumnsAreSharedOutInMultiplesOfEight) {
  for (const auto& [columns, expected] :
       {std::pair<int64_t, std::vector<int64_t>>{131, {40, 40, 40, 11}},
        {128, {32, 32, 32, 32}},
        {6, {6, 0, 0, 0}},
        {151936, {37984, 37984, 37984, 37984}}}) {
    int64_t first = 0;
    for (int32_t rank = 0; rank < 4; ++rank) {
      const Slice slice = ColumnsOf({rank, 4}, columns);
      EXPECT_EQ(slice.first, first) << columns;
      EXPECT_EQ(slice.count, expected[rank]) << columns;
      EXPECT_LE(slice.count, MostColumns(columns, 4));
      first += slice.count;
    }
    EXPECT_EQ(first, columns);
  }
  EXPECT_EQ(ColumnsOf({0, 1}, 131).count, 131);
}

TEST(RanksTest, SumsAndColumnsAreTheSameOnAll) {
  const uint32_t seed = swaa::testing::Seed();
  SCOPED_TRACE(seed);
  for (const int32_t size : {2, 3, 4}) {
    constexpr int64_t kRows = 5, kColumns = 83;
    for (const int64_t count : {1, 7, 1000}) {
      std::vector<std::vector<float>> sums(size), gathered(size);
      OnEachRank(size, [&](Communicator* end) {
        const Shard shard = end->shard();
        std::mt19937 random(seed + shard.rank);
        std::vector<float>& values = sums[shard.rank];
        for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<float>(random() % 1000));
        end->AllReduce(values.data(), count, DataType::kF32);
        const Slice slice = ColumnsOf(shard, kColumns);
        std::vector<float> mine;
        for (int64_t row = 0; row < kRows; ++row) {
          for (int64_t c = 0; c < slice.count; ++c) {
            mine.push_back(static_cast<float>(1000 * row + slice.first + c));
          }
        }
        gathered[shard.rank].resize(kRows * kColumns);
        end->GatherColumns({.mine = mine.data(),
                            .all = gathered[shard.rank].data(),
                            .rows = kRows,
                            .columns = kColumns});
      });
      std::vector<float> expected(count);
      for (int32_t rank = 0; rank < size; ++rank) {
        std::mt19937 random(seed + rank);
        for (float& sum : expected) sum += static_cast<float>(random() % 1000);
      }
      for (int32_t rank = 0; rank < size; ++rank) {
        EXPECT_EQ(sums[rank], expected) << size << " ranks, rank " << rank;
        for (int64_t i = 0; i < kRows * kColumns; ++i) {
          ASSERT_EQ(gathered[rank][i], 1000 * (i / kColumns) + i % kColumns);
        }
      }
    }
  }
}

TEST(RanksTest, AllAgreeOnTheLeastAndOnTheFirstError) {
  std::vector<absl::StatusOr<int64_t>> least(3, absl::UnknownError("")), error = least;
  OnEachRank(3, [&](Communicator* end) {
    const int32_t rank = end->shard().rank;
    least[rank] = end->Agree(100 - rank);
    error[rank] = end->Agree(rank == 0 ? absl::StatusOr<int64_t>(5)
                                       : absl::ResourceExhaustedError(std::to_string(rank)));
    // An error is an answer: they can go on.
    EXPECT_EQ(*end->Agree(rank), 0);
  });
  for (int32_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(*least[rank], 98);
    EXPECT_EQ(error[rank].status(), absl::ResourceExhaustedError("1"));
  }
}

TEST(RanksTest, WhoeverGivesUpLetsTheOthersGo) {
  std::vector<std::string> reasons(3);
  OnEachRank(3, [&](Communicator* end) {
    const int32_t rank = end->shard().rank;
    std::vector<float> values(10);
    end->AllReduce(values.data(), 10, DataType::kF32);
    if (rank == 1) {
      end->Abort(absl::InternalError("rank 1 is broken"));
      end->Abort(absl::InternalError("a later reason"));
    }
    try {
      end->AllReduce(values.data(), 10, DataType::kF32);
    } catch (const std::exception& error) {
      reasons[rank] = error.what();
    }
    EXPECT_EQ(end->Agree(1).status(), absl::InternalError("rank 1 is broken"));
  });
  const auto said = HasSubstr("rank 1 is broken");
  EXPECT_THAT(reasons, ElementsAre(said, said, said));
}

}  // namespace
}  // namespace swaa::kernels
