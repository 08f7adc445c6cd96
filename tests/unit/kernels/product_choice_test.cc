// From the times of a weight's forms to the form for each row count.

#include "kernels/cpu/product_choice.h"

#include <array>
#include <limits>

#include <gtest/gtest.h>

namespace swaa::kernels::cpu {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();
constexpr FormSeconds kLacking = {kNone, kNone, kNone, kNone, kNone, kNone};

using Seconds = std::array<FormSeconds, kProductForms>;

TEST(ChooseFormsTest, EachFormServesTheRowsThatItIsFastestFor) {
  struct Case {
    const char* what;
    Seconds seconds;
    int64_t affine_rows, bf16_rows;
  };
  // At 1, 2, 4, 8, 16 and 32 rows.
  const Case cases[] = {
      {"levels cost arithmetic",
       {{{3.2, 4.2, 6.9, 12.9, 25.8, 51.6},
         {5.5, 5.6, 6.0, 12.0, 24.0, 48.0},
         {9.7, 9.7, 9.7, 9.7, 10.0, 14.0}}},
       3,
       6},
      {"levels are cheap",
       {{{2, 2, 2.5, 5, 10, 20}, {5, 5, 5, 10, 20, 40}, {8, 8, 8, 8, 8, 8}}},
       13,
       0},
      {"tiles always win", {{{5, 5, 5, 5, 5, 5}, {4, 4, 4, 4, 4, 4}, {1, 1, 1, 1, 1, 1}}}, 0, 0},
      {"no levels", {{kLacking, {5, 5, 5, 10, 20, 40}, {8, 8, 8, 8, 8, 8}}}, 0, 6},
      {"one form", {{kLacking, kLacking, {8, 8, 8, 8, 8, 8}}}, 0, 0},
      {"what is slower by less than noise serves all the same",
       {{{1, 1, 1, 2, 4, 8.2}, {2, 2, 2, 3, 5, 8}, {3, 3, 3, 4, 6, 8.1}}},
       kMaxSkinnyRows,
       0},
      {"exactness decides between equals",
       {{{1, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1}}},
       kMaxSkinnyRows,
       0},
  };
  for (const Case& c : cases) {
    const ProductChoice choice = ChooseForms(c.seconds);
    EXPECT_EQ(choice.affine_rows, c.affine_rows) << c.what;
    for (int64_t rows = 1; rows <= kMaxSkinnyRows + 1; ++rows) {
      const ProductForm expected = rows <= c.affine_rows ? ProductForm::kAffine
                                   : rows <= c.bf16_rows ? ProductForm::kBf16
                                                         : ProductForm::kOneDnn;
      EXPECT_EQ(choice.FormOf(rows), expected) << c.what << ", " << rows << " rows";
    }
    // One row more never lowers the rows computed in a second, but for what padding computes.
    for (int64_t rows = 1; rows < kMaxSkinnyRows; ++rows) {
      const auto rate = [&](int64_t n) {
        const ProductForm form = choice.FormOf(n);
        return static_cast<double>(n) / SecondsFor(form, c.seconds[static_cast<int>(form)], n);
      };
      EXPECT_GE(rate(rows + 1), 0.95 * rate(rows)) << c.what << ", from " << rows << " rows";
    }
  }
}

TEST(SecondsForTest, LieOnTheLineBetweenMeasuredRows) {
  const FormSeconds seconds = {1, 2, 6, 8, 16, 48};
  EXPECT_EQ(SecondsFor(ProductForm::kBf16, seconds, 1), 1);
  EXPECT_EQ(SecondsFor(ProductForm::kBf16, seconds, 3), 4);
  EXPECT_EQ(SecondsFor(ProductForm::kBf16, seconds, 5), 6.5);
  EXPECT_EQ(SecondsFor(ProductForm::kBf16, seconds, 16), 16);
  EXPECT_EQ(SecondsFor(ProductForm::kOneDnn, seconds, 3), 6) << "padded to 4";
  EXPECT_EQ(SecondsFor(ProductForm::kOneDnn, seconds, 9), 12) << "padded to 12";
  EXPECT_EQ(SecondsFor(ProductForm::kOneDnn, seconds, 13), 16) << "padded to 16";
  EXPECT_EQ(SecondsFor(ProductForm::kOneDnn, seconds, 17), 24) << "padded to 20";
  EXPECT_EQ(SecondsFor(ProductForm::kAffine, kLacking, 3), kNone);
}

TEST(PaddedProductRowsTest, FewRowsComputeAtMostThreeMore) {
  for (int64_t rows = 1; rows <= 32; ++rows) {
    EXPECT_GE(PaddedProductRows(rows), rows);
    EXPECT_LE(PaddedProductRows(rows), rows + 3);
  }
}

}  // namespace
}  // namespace swaa::kernels::cpu
