// What attention on CUDA serves, and the memory that it asks for. Needs no GPU.

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cuda/attention/attention.h"
#include "kernels/cuda/attention/attention_limits.h"

namespace swaa::kernels::cuda {
namespace {

using testing::HasSubstr;

TEST(SupportsAttentionTest, ServesHeadDimensionsAndGroups) {
  for (const int32_t head_dim : {64, 96, 128}) {
    for (const int32_t group : {1, 3, 4, 7, 8, 16}) {
      for (const int32_t capability : {80, 86, 89, 90}) {
        EXPECT_TRUE(SupportsAttention(head_dim, 2 * group, 2, capability).ok());
      }
    }
  }
}

TEST(SupportsAttentionTest, NamesWhatIsLacking) {
  const auto message = [](const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    return std::string(status.message());
  };
  EXPECT_THAT(message(SupportsAttention(256, 8, 4, 90)), HasSubstr("head_dim 256"));
  EXPECT_THAT(message(SupportsAttention(128, 9, 4, 90)), HasSubstr("9 query heads"));
  EXPECT_THAT(message(SupportsAttention(128, 0, 4, 90)), HasSubstr("0 query heads"));
  EXPECT_THAT(message(SupportsAttention(128, 32, 1, 90)), HasSubstr("are 32 each"));
  EXPECT_THAT(message(SupportsAttention(128, 8, 4, 75)), HasSubstr("7.5"));
  EXPECT_THAT(message(SupportsAttention(128, 8, 4, 80, AttentionKernels::kHopper)),
              HasSubstr("need compute capability 9.0, not 8.0"));
  EXPECT_TRUE(SupportsAttention(128, 8, 4, 90, AttentionKernels::kPortable).ok());
}

TEST(WorkspaceTest, PartsDoNotOverlapAndAreAligned) {
  for (const int32_t head_dim : {64, 96, 128}) {
    const AttentionShape shape{.heads = 32, .kv_heads = 8, .head_dim = head_dim, .scale = 1};
    const WorkspaceLayout layout = LayoutWorkspace(shape, 132);
    const int64_t results = MaxPrefillResults(132);
    EXPECT_GE(layout.prefill_arrivals, layout.counter + 4);
    EXPECT_GE(layout.decode_partials, layout.prefill_arrivals + results / 2 * 3 * 4);
    EXPECT_GE(layout.prefill_partials,
              layout.decode_partials + 132 * static_cast<int64_t>(sizeof(DecodePartial)));
    for (const PrefillGeometry& geometry :
         {HopperPrefillGeometry(head_dim), PortablePrefillGeometry(head_dim)}) {
      EXPECT_GE(layout.bytes, layout.prefill_partials + results * geometry.result_floats * 4);
      EXPECT_LE(geometry.arrival_counts, 3);
    }
    for (const int64_t offset :
         {layout.prefill_arrivals, layout.decode_partials, layout.prefill_partials}) {
      EXPECT_EQ(offset % 256, 0);
    }
    EXPECT_EQ(layout.bytes, AttentionWorkspaceBytes(shape, 132));
    EXPECT_LT(layout.bytes, 80 << 20);
  }
}

}  // namespace
}  // namespace swaa::kernels::cuda
