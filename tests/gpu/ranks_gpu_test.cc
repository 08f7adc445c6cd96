// GPUs that share a model: sums and columns against the host's, and that whoever gives up lets the
// others go. Skipped where there is one GPU.

#include <barrier>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/cuda/ranks/gpu_communicator.h"
#include "kernels/cuda/ranks/sum_norm.h"
#include "tests/gpu/device_array.h"
#include "tests/unit/testing/seed.h"

namespace swaa::kernels::cuda {
namespace {

using swaa::testing::DeviceArray;
using swaa::testing::TestStream;

class RanksGpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
    if (count < 2) GTEST_SKIP() << "one GPU";
    for (int ordinal = 0; ordinal < (count >= 4 ? 4 : 2); ++ordinal) ordinals_.push_back(ordinal);
    auto ranks = MakeGpuCommunicators(ordinals_);
    ASSERT_TRUE(ranks.ok()) << ranks.status();
    ranks_ = *std::move(ranks);
  }

  int32_t size() const { return static_cast<int32_t>(ranks_.size()); }

  // Calls `body` with each rank's end, bound to a stream, in a thread of its own.
  void OnEachRank(const std::function<void(GpuCommunicator*, cudaStream_t)>& body) {
    std::barrier done(size());
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < ranks_.size(); ++i) {
      threads.emplace_back([&, i] {
        ASSERT_EQ(cudaSetDevice(ordinals_[i]), cudaSuccess);
        const TestStream stream;
        DeviceArray<uint32_t> signals(SumSignals::Bytes(size()) / 4, 0);
        DeviceArray<float> gathered(1 << 20);
        ranks_[i]->Bind(stream);
        ranks_[i]->UseMemory(reinterpret_cast<std::byte*>(gathered.data()),
                             reinterpret_cast<std::byte*>(signals.data()));
        body(ranks_[i].get(), stream);
        ranks_[i]->Leave();  // nobody frees what another one may still reach
        done.arrive_and_wait();
      });
    }
  }

  std::vector<Bf16> RandomDelta(int64_t count, uint32_t salt) const {
    std::mt19937 random(seed_ + salt);
    std::normal_distribution<float> normal;
    std::vector<Bf16> values(count);
    for (Bf16& value : values) value = ToBf16(normal(random));
    return values;
  }

  const uint32_t seed_ = swaa::testing::Seed();
  std::vector<int> ordinals_;
  std::vector<std::unique_ptr<GpuCommunicator>> ranks_;
};

TEST_F(RanksGpuTest, SumsAndColumnsAreTheHosts) {
  SCOPED_TRACE(seed_);
  constexpr int64_t kCount = 10007, kRows = 3, kColumns = 1003;
  std::vector<std::vector<Bf16>> sums(size());
  std::vector<std::vector<float>> columns(size());
  OnEachRank([&](GpuCommunicator* end, cudaStream_t stream) {
    const Shard shard = end->shard();
    const DeviceArray<Bf16> values(RandomDelta(kCount, shard.rank));
    end->AllReduce(values.data(), kCount, DataType::kBf16);
    const Slice slice = ColumnsOf(shard, kColumns);
    std::vector<float> mine(kRows * MostColumns(kColumns, shard.size));
    for (int64_t i = 0; i < kRows * slice.count; ++i) {
      mine[i] = static_cast<float>(10000 * (i / slice.count) + slice.first + i % slice.count);
    }
    const DeviceArray<float> part(mine), all(kRows * kColumns);
    end->GatherColumns(
        {.mine = part.data(), .all = all.data(), .rows = kRows, .columns = kColumns});
    sums[shard.rank] = values.Get();
    columns[shard.rank] = all.Get();
  });
  std::vector<double> expected(kCount);
  for (int32_t rank = 0; rank < size(); ++rank) {
    const std::vector<Bf16> delta = RandomDelta(kCount, rank);
    for (int64_t i = 0; i < kCount; ++i) expected[i] += ToFloat(delta[i]);
  }
  for (int32_t rank = 0; rank < size(); ++rank) {
    for (int64_t i = 0; i < kCount; ++i) {
      ASSERT_NEAR(ToFloat(sums[rank][i]), expected[i], 0.02 * std::fabs(expected[i]) + 0.02) << i;
      ASSERT_EQ(sums[rank][i].bits, sums[0][i].bits) << i;
    }
    for (int64_t i = 0; i < kRows * kColumns; ++i) {
      ASSERT_EQ(columns[rank][i], 10000 * (i / kColumns) + i % kColumns) << rank;
    }
  }
}

// Many in a row, of two buffers in turn, as layers have them; more rows than run at once, too.
TEST_F(RanksGpuTest, SumNormIsTheHostsOnAllRanks) {
  SCOPED_TRACE(seed_);
  constexpr int kSums = 12;
  for (const auto& [rows, hidden] :
       {std::pair<int64_t, int64_t>{1, 2560}, {7, 64}, {100, 4096}, {4000, 256}, {3, 12288}}) {
    const int64_t count = rows * hidden;
    std::vector<std::vector<float>> residuals(size());
    std::vector<std::vector<Bf16>> outs(size());
    bool reached = true;
    OnEachRank([&](GpuCommunicator* end, cudaStream_t stream) {
      const int32_t rank = end->shard().rank;
      const DeviceArray<float> residual(std::vector<float>(count, 0.5f)),
          weight(std::vector<float>(hidden, 2.0f));
      const DeviceArray<Bf16> out(count),
          buffers[2] = {DeviceArray<Bf16>(count), DeviceArray<Bf16>(count)};
      std::vector<DeviceArray<Bf16>> deltas;
      for (int i = 0; i < kSums; ++i) deltas.emplace_back(RandomDelta(count, 100 * i + rank));
      for (int i = 0; i < kSums; ++i) {
        const DeviceArray<Bf16>& buffer = buffers[i % 2];
        ASSERT_EQ(cudaMemcpyAsync(buffer.data(), deltas[i].data(), 2 * count,
                                  cudaMemcpyDeviceToDevice, stream),
                  cudaSuccess);
        const RankBuffers* const peers = end->Peers(buffer.data());
        if (peers == nullptr) {
          reached = false;
          return;
        }
        SumNorm({.deltas = *peers,
                 .residual = residual.data(),
                 .weight = weight.data(),
                 .out = out.data(),
                 .rows = rows,
                 .hidden = hidden,
                 .epsilon = 1e-6f},
                {.stream = stream, .programmatic = false});
      }
      ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      residuals[rank] = residual.Get();
      outs[rank] = out.Get();
      end->Agree(0).IgnoreError();  // as above: these buffers are freed now
    });
    if (!reached) GTEST_SKIP() << "the GPUs do not reach each other's memory";
    std::vector<double> expected(count, 0.5);
    for (int i = 0; i < kSums; ++i) {
      for (int32_t rank = 0; rank < size(); ++rank) {
        const std::vector<Bf16> delta = RandomDelta(count, 100 * i + rank);
        for (int64_t j = 0; j < count; ++j) expected[j] += ToFloat(delta[j]);
      }
    }
    for (int64_t row = 0; row < rows; ++row) {
      double squares = 0;
      for (int64_t j = 0; j < hidden; ++j) {
        squares += expected[row * hidden + j] * expected[row * hidden + j];
      }
      const double scale = 2 / std::sqrt(squares / static_cast<double>(hidden) + 1e-6);
      for (int64_t j = row * hidden; j < (row + 1) * hidden; ++j) {
        ASSERT_NEAR(residuals[0][j], expected[j], 1e-4) << rows << " rows, " << j;
        const double out = expected[j] * scale;
        ASSERT_NEAR(ToFloat(outs[0][j]), out, 0.01 * std::fabs(out) + 1e-3);
      }
    }
    for (int32_t rank = 1; rank < size(); ++rank) {
      ASSERT_EQ(residuals[rank], residuals[0]);
      ASSERT_EQ(std::memcmp(outs[rank].data(), outs[0].data(), 2 * count), 0);
    }
    // Another round has buffers of its own.
    ranks_.clear();
    auto again = MakeGpuCommunicators(ordinals_);
    ASSERT_TRUE(again.ok()) << again.status();
    ranks_ = *std::move(again);
  }
}

TEST_F(RanksGpuTest, ARankThatGivesUpLetsTheOthersGo) {
  SCOPED_TRACE(seed_);
  std::vector<absl::Status> agreed(size());
  std::barrier done(size());  // its memory stays until the last one is free
  OnEachRank([&](GpuCommunicator* end, cudaStream_t stream) {
    const int32_t rank = end->shard().rank;
    const DeviceArray<Bf16> delta(4096, 0), out(4096), values(4096, 0);
    const DeviceArray<float> residual(4096, 0), weight(4096, 0);
    end->AllReduce(values.data(), 4096, DataType::kBf16);
    const RankBuffers* const peers = end->Peers(delta.data());
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    agreed[rank] = end->Agree(0).status();
    if (rank == 0) {
      end->Abort(absl::InternalError("rank 0 is broken"));
    } else {
      // Kernels that wait for rank 0 for ever.
      if (peers != nullptr) {
        SumNorm({.deltas = *peers,
                 .residual = residual.data(),
                 .weight = weight.data(),
                 .out = out.data(),
                 .rows = 1,
                 .hidden = 4096},
                {.stream = stream, .programmatic = false});
      }
      try {
        end->AllReduce(values.data(), 4096, DataType::kBf16);
      } catch (const std::exception& error) {
        EXPECT_NE(std::string(error.what()).find("rank 0 is broken"), std::string::npos);
      }
    }
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    done.arrive_and_wait();
    EXPECT_EQ(end->status(), absl::InternalError("rank 0 is broken"));
  });
  for (const absl::Status& status : agreed) EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace swaa::kernels::cuda
