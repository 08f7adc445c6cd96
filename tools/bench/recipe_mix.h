// Bench: which recipe each request asks for.

#ifndef SWAA_TOOLS_BENCH_RECIPE_MIX_H_
#define SWAA_TOOLS_BENCH_RECIPE_MIX_H_

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "swaa/v1/generation.pb.h"
#include "swaa/v1/recipe.pb.h"

namespace swaa::tools::bench {

// A recipe of the mix, by name or in full.
struct RecipeArm {
  std::string label;  // the name; of a recipe in full a short form such as w512-k16-f1:2-dall
  bool in_full = false;
  v1::Recipe recipe;  // in full
  double weight = 1;

  // Whether it is full attention: the recipe that the others are compared with.
  bool IsFullAttention() const;
  void SetOn(v1::GenerateRequest* request) const;
};

// Parses NAME[=WEIGHT],{JSON}[=WEIGHT],...: names as the server lists them, or a swaa.v1.Recipe as
// protobuf JSON. INVALID_ARGUMENT for no recipe, one that is no JSON of a recipe, one given twice,
// or a weight that is no number above 0; the message names no flag.
absl::StatusOr<std::vector<RecipeArm>> ParseRecipeMix(const std::string& text);

// Deals the arms out in proportion to their weights, never far from their shares: in rounds of as
// many draws as there are arms, shuffled within each. A fixed order would let one arm always queue
// behind the same other one.
class RecipeDealer {
 public:
  RecipeDealer(const std::vector<RecipeArm>& arms, uint64_t seed);
  size_t Next();

 private:
  size_t NextInOrder();

  std::mt19937_64 generator_;
  std::vector<size_t> round_;  // what is left of it, the next one last
  std::vector<double> weights_;
  std::vector<double> credits_;
  double total_ = 0;
};

}  // namespace swaa::tools::bench

#endif  // SWAA_TOOLS_BENCH_RECIPE_MIX_H_
