// Decode attention that norms, rotates and stores by itself, against RopeAndStore before attention
// that does not.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention/attention_limits.h"
#include "kernels/cuda/elementwise/elementwise.h"
#include "tests/gpu/attention_test_support.h"
#include "tests/gpu/device_array.h"

namespace swaa::kernels::cuda {
namespace {

using testing::DeviceArray;

constexpr int32_t kLayers = 2, kLayer = 1, kMaxPages = 20;
constexpr float kEpsilon = 1e-6f;

// Beyond a million they come again.
std::vector<Bf16> Normal(std::mt19937_64& random, int64_t count) {
  constexpr int64_t kPeriod = 1000003;
  std::normal_distribution<float> normal;
  std::vector<Bf16> values(count);
  for (int64_t i = 0; i < count; ++i)
    values[i] = i < kPeriod ? ToBf16(normal(random)) : values[i - kPeriod];
  return values;
}

double Difference(const std::vector<Bf16>& got, const std::vector<Bf16>& want) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double x = ToFloat(got[i]), y = ToFloat(want[i]);
    error += (x - y) * (x - y);
    norm += y * y;
  }
  return std::sqrt(error / norm);
}

struct Case {
  int32_t heads, kv_heads, head_dim;
  bool norms;
  int32_t rows;
};

// Sequences of random lengths, windows and sinks; some pages' last positions among them.
class Problem {
 public:
  Problem(const Case& c, std::mt19937_64& random)
      : c_(c),
        width_(int64_t{c.heads + 2 * c.kv_heads} * c.head_dim),
        page_elements_(int64_t{2} * c.kv_heads * kPageTokens * c.head_dim) {
    for (int32_t i = 0; i < c.rows; ++i) {
      const int32_t edges[] = {0, 15, 16, 63, 64, 127};
      const auto position = static_cast<int32_t>(
          i < 6 && c.rows > 6 ? edges[i] : random() % (kMaxPages * kPageTokens));
      sequences_.push_back(
          {.slot = c.rows - 1 - i, .first_row = i, .query_count = 1, .first_position = position});
      positions_.push_back(position);
      slots_.push_back(c.rows - 1 - i);
      spans_.push_back(i % 3 == 0 ? KeySpan{}
                                  : KeySpan{.window = 1 + static_cast<int32_t>(random() % 300),
                                            .sinks = static_cast<int32_t>(random() % 100)});
    }
    table_.resize(c.rows * kLayers * kMaxPages);
    for (size_t i = 0; i < table_.size(); ++i) table_[i] = static_cast<int32_t>(1 + i);
    std::shuffle(table_.begin(), table_.end(), random);
    qkv_ = Normal(random, c.rows * width_);
    pool_ = Normal(random, (table_.size() + 1) * page_elements_);
    cos_sin_.resize(c.rows * c.head_dim);
    norm_.resize(2 * c.head_dim);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (float& x : cos_sin_) x = uniform(random);
    for (float& x : norm_) x = 1 + uniform(random) / 2;
    for (int32_t row = 0; row < c.rows; ++row) PoisonOwnKeys(row);
  }

  // What `fused` or RopeAndStore and attention leave: output, then pool.
  std::pair<std::vector<Bf16>, std::vector<Bf16>> Run(bool fused) const {
    const DeviceArray<Bf16> qkv(qkv_), pool(pool_), out(int64_t{c_.rows} * c_.heads * c_.head_dim);
    const DeviceArray<int32_t> table(table_), positions(positions_), slots(slots_);
    const DeviceArray<float> cos_sin(cos_sin_), norm(norm_);
    const float* q_norm = c_.norms ? norm.data() : nullptr;
    const float* k_norm = c_.norms ? norm.data() + c_.head_dim : nullptr;
    const AttentionShape shape = {.heads = c_.heads,
                                  .kv_heads = c_.kv_heads,
                                  .head_dim = c_.head_dim,
                                  .scale = 1 / std::sqrt(static_cast<float>(c_.head_dim)),
                                  .num_layers = kLayers,
                                  .max_pages = kMaxPages};
    int multiprocessors = 0;
    SWAA_CUDA_CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
    const DeviceArray<std::byte> workspace(AttentionWorkspaceBytes(shape, multiprocessors), 0);
    auto attention = PagedAttention::Create({.shape = shape,
                                             .pool = pool.data(),
                                             .pages = static_cast<int64_t>(table_.size()) + 1,
                                             .page_table = table.data(),
                                             .workspace = workspace.data()});
    EXPECT_TRUE(attention.ok()) << attention.status();
    const int64_t bytes = AttentionPlanBytes(shape, multiprocessors, c_.rows, c_.rows, 1);
    std::vector<std::byte> host(bytes);
    const DeviceArray<std::byte> device(bytes);
    const DeviceArray<DecodePlan> decode(1);
    AttentionPlan plan(host.data(), device.data(), bytes, decode.data(), 1);
    const std::vector<uint8_t> classes(kLayers, 0);
    (*attention)->Write({sequences_, spans_, classes}, &plan);
    SWAA_CUDA_CHECK(cudaMemcpy(device.data(), host.data(), bytes, cudaMemcpyHostToDevice));
    (*attention)->PlanDecode(plan, nullptr);
    DecodeRope rope;
    if (fused) {
      rope = {cos_sin.data(), q_norm, k_norm, kEpsilon, pool.data()};
    } else {
      RopeAndStore({.qkv = qkv.data(),
                    .cos_sin = cos_sin.data(),
                    .q_norm = q_norm,
                    .k_norm = k_norm,
                    .norm_epsilon = kEpsilon,
                    .positions = positions.data(),
                    .slots = slots.data(),
                    .page_table = {table.data(), kLayers, kMaxPages},
                    .pages = {reinterpret_cast<std::byte*>(pool.data()), page_elements_ * 2},
                    .rows = c_.rows,
                    .layer = kLayer,
                    .heads = c_.heads,
                    .kv_heads = c_.kv_heads,
                    .head_dim = c_.head_dim},
                   {});
    }
    const auto queries = (*attention)->Queries(qkv.data(), c_.rows, width_);
    EXPECT_TRUE(queries.ok()) << queries.status();
    (*attention)->Decode(kLayer, plan, *queries, out.data(), {}, rope);
    return {out.Get(), pool.Get()};
  }

 private:
  // What no kernel may read before it is written.
  void PoisonOwnKeys(int32_t row) {
    const int32_t position = positions_[row];
    const int32_t page =
        table_[(slots_[row] * kLayers + kLayer) * kMaxPages + position / kPageTokens];
    for (int32_t head = 0; head < 2 * c_.kv_heads; ++head) {
      Bf16* at = pool_.data() + page * page_elements_ +
                 (int64_t{head} * kPageTokens + position % kPageTokens) * c_.head_dim;
      std::memset(at, 0xff, c_.head_dim * sizeof(Bf16));
    }
  }

  const Case c_;
  const int64_t width_, page_elements_;
  std::vector<SequenceRows> sequences_;
  std::vector<KeySpan> spans_;
  std::vector<int32_t> positions_, slots_, table_;
  std::vector<Bf16> qkv_, pool_;
  std::vector<float> cos_sin_, norm_;
};

void ExpectBothWaysEqual(const std::vector<Case>& cases) {
  const uint64_t seed = TestSeed();
  std::mt19937_64 random(seed);
  for (const Case& c : cases) {
    SCOPED_TRACE(absl::StrCat(c.heads, "/", c.kv_heads, " x ", c.head_dim, ", rows ", c.rows,
                              ", seed ", seed));
    const Problem problem(c, random);
    const auto [out, pool] = problem.Run(/*fused=*/true);
    const auto [expected_out, expected_pool] = problem.Run(/*fused=*/false);
    // The squares of a head are added up in another order: now and then one rounds otherwise.
    EXPECT_TRUE(Difference(out, expected_out) < 2e-3) << Difference(out, expected_out);
    EXPECT_TRUE(Difference(pool, expected_pool) < 1e-5) << Difference(pool, expected_pool);
    const auto [again, pool_again] = problem.Run(/*fused=*/true);
    EXPECT_TRUE(SameBits(again, out) && SameBits(pool_again, pool));
  }
}

TEST(DecodeRopeGpuTest, EqualsRopeAndStoreBeforeAttention) {
  if (!DeviceIsHopper()) GTEST_SKIP() << "only Hopper's kernel does both";
  ExpectBothWaysEqual({{32, 8, 128, true, 1},
                       {32, 8, 128, true, 13},
                       {32, 8, 128, false, 30},
                       {14, 2, 64, true, 9},
                       {9, 3, 64, false, 20},
                       {40, 4, 128, true, 7},
                       {32, 8, 96, true, 11},
                       {16, 1, 96, false, 8},
                       {4, 4, 64, true, 33},
                       {32, 2, 128, false, 24}});
}

// What compute-sanitizer can run in minutes: --gtest_filter=*Small*.
TEST(DecodeRopeGpuTest, Small) {
  if (!DeviceIsHopper()) GTEST_SKIP() << "only Hopper's kernel does both";
  ExpectBothWaysEqual({{4, 2, 128, true, 8}, {3, 1, 64, false, 3}, {2, 2, 96, true, 2}});
}

}  // namespace
}  // namespace swaa::kernels::cuda
