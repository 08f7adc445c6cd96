// From a row of logits to a token.

#include "kernels/cpu/draw_token.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "base/check.h"
#include "kernels/cpu/descending_order.h"
#include "kernels/sampling_math.h"

namespace swaa::kernels::cpu {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();
// Independent partial results of a reduction, for the compiler to keep in vector registers.
constexpr size_t kLanes = 16;
// Tokens that are passed over together when none of them can win.
constexpr size_t kBlock = 64;

float MaxOf(std::span<const float> values) {
  std::array<float, kLanes> best;
  best.fill(kForbidden);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      best[lane] = values[i + lane] > best[lane] ? values[i + lane] : best[lane];
    }
  }
  for (; i < values.size(); ++i) best[0] = values[i] > best[0] ? values[i] : best[0];
  return *std::max_element(best.begin(), best.end());
}

// The smallest id of the largest logit; 0 if all are NaN.
int32_t ArgMax(std::span<const float> logits) {
  const auto found = std::find(logits.begin(), logits.end(), MaxOf(logits));
  return found == logits.end() ? 0 : static_cast<int32_t>(found - logits.begin());
}

// Sum of e^(value - max), in double.
double SumOfExp(std::span<const float> values, float max) {
  std::array<double, kLanes> sum{};
  const auto add = [&](size_t lane, float value) {
    sum[lane] += exact::Exp(FiniteLogit(value) - max);
  };
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) add(lane, values[i + lane]);
  }
  for (; i < values.size(); ++i) add(0, values[i]);
  double total = 0;
  for (const double part : sum) total += part;
  return total;
}

float& At(std::span<float> logits, int64_t token) {
  SWAA_CHECK(token >= 0 && token < static_cast<int64_t>(logits.size()))
      << "token " << token << " of a vocabulary of " << logits.size();
  return logits[token];
}

// The row after bias, penalties and what is forbidden, in this thread's buffer.
std::span<const float> Adjust(std::span<const float> logits, const SamplingParams& params,
                              const DrawContext& context) {
  thread_local std::vector<float> buffer;
  buffer.resize(logits.size());
  std::transform(logits.begin(), logits.end(), buffer.begin(), FiniteLogit);
  const std::span<float> row(buffer);
  for (const auto& [token, bias] : params.logit_bias) At(row, token) += bias;
  if (params.needs_history() && context.history != nullptr) {
    SWAA_CHECK_EQ(context.history->vocab_size(), static_cast<int64_t>(row.size()));
    const Penalties penalties{params.repetition_penalty, params.frequency_penalty,
                              params.presence_penalty};
    for (const int32_t token : context.history->distinct()) {
      row[token] = PenalisedLogit(row[token], context.history->of(token), penalties);
    }
  }
  for (const int32_t token : context.forbidden) At(row, token) = kForbidden;
  return row;
}

// A row about to be drawn from.
struct Row {
  std::span<const float> logits;
  std::span<const float> block_max;  // of every kBlock tokens
  float max;
  double inverse_temperature;
  double min_scaled;  // min-p as a bound on ScaledLogit
  GumbelKey key;

  bool Passes(float logit) const {
    return ScaledLogit(logit, max, inverse_temperature) >= min_scaled;
  }
};

// The best token so far.
class Winner {
 public:
  explicit Winner(const Row& row) : row_(row) {}

  void Offer(float logit, int32_t token) {
    const double score = DrawScore(logit, row_.inverse_temperature, row_.key, token);
    if (score > score_ || (score == score_ && token < token_)) {
      score_ = score;
      token_ = token;
    }
  }

  // What a token of this logit needs of the noise to win.
  double NeededNoise(float logit) const {
    return score_ - static_cast<double>(logit) * row_.inverse_temperature;
  }

  int32_t token() const { return token_; }

 private:
  const Row& row_;
  double score_ = -std::numeric_limits<double>::infinity();
  int32_t token_ = std::numeric_limits<int32_t>::max();
};

// GumbelBits above this give less noise than `needed`. -log(-log(1 - w)) < -log(w), so a token
// needs w <= e^-needed; 1e-4 is more than all rounding.
uint32_t BitsBound(double needed) {
  if (needed <= 0) return std::numeric_limits<uint32_t>::max();
  const double bound = std::exp(-needed) * (1 + 1e-4) * 0x1.0p32;
  return bound >= 0x1.0p32 - 1 ? std::numeric_limits<uint32_t>::max()
                               : static_cast<uint32_t>(bound);
}

bool AnyBitsWithin(GumbelKey key, uint32_t first_token, size_t count, uint32_t bound) {
  uint32_t any = 0;
  for (uint32_t i = 0; i < count; ++i) any |= GumbelBits(key, first_token + i) <= bound;
  return any != 0;
}

// The draw from all tokens that min-p leaves.
int32_t DrawFromRow(const Row& row) {
  Winner winner(row);
  const auto visit = [&](size_t block) {
    const float most = row.block_max[block];
    if (most == kForbidden || !row.Passes(most)) return;
    const double needed = winner.NeededNoise(most);
    if (needed > double{kMaxGumbelNoise}) return;
    const uint32_t bound = BitsBound(needed);
    const size_t first = block * kBlock;
    const size_t count = std::min(kBlock, row.logits.size() - first);
    if (!AnyBitsWithin(row.key, static_cast<uint32_t>(first), count, bound)) return;
    for (size_t i = first; i < first + count; ++i) {
      const auto token = static_cast<int32_t>(i);
      if (GumbelBits(row.key, static_cast<uint32_t>(i)) > bound) continue;
      if (row.logits[i] == kForbidden || !row.Passes(row.logits[i])) continue;
      winner.Offer(row.logits[i], token);
    }
  };
  // The block of the largest first: few others can beat what it gives.
  const auto best = std::max_element(row.block_max.begin(), row.block_max.end());
  visit(best - row.block_max.begin());
  for (size_t block = 0; block < row.block_max.size(); ++block) visit(block);
  return winner.token();
}

// FixedPointWeight of all tokens together.
double SumOfWeights(const Row& row) {
  std::array<double, kLanes> sum{};
  for (size_t block = 0; block < row.block_max.size(); ++block) {
    const double most = ScaledLogit(row.block_max[block], row.max, row.inverse_temperature);
    if (most <= kWeightless) continue;
    const size_t first = block * kBlock;
    const std::span<const float> logits =
        row.logits.subspan(first, std::min(kBlock, row.logits.size() - first));
    for (size_t i = 0; i < logits.size(); ++i) {
      sum[i % kLanes] += FixedPointWeight(ScaledLogit(logits[i], row.max, row.inverse_temperature));
    }
  }
  double total = 0;
  for (const double part : sum) total += part;
  return total;
}

// How many tokens of the order top-k and top-p keep. At least one.
size_t CountKept(const SamplingParams& params, const Row& row, DescendingOrder& order) {
  const size_t most = params.top_k == 0 ? row.logits.size() : params.top_k;
  if (params.top_p >= 1) return most;
  const auto weight = [&](const DescendingOrder::Entry& entry) {
    return FixedPointWeight(ScaledLogit(entry.logit, row.max, row.inverse_temperature));
  };
  double total = 0;
  if (most >= row.logits.size()) {
    total = SumOfWeights(row);
  } else {
    for (size_t i = 0; i < most; ++i) {
      const DescendingOrder::Entry* entry = order.Get(i);
      if (entry == nullptr) break;
      total += weight(*entry);
    }
  }
  const double enough = double{params.top_p} * total;
  double passed = 0;
  size_t kept = 0;
  do {
    const DescendingOrder::Entry* entry = order.Get(kept);
    if (entry == nullptr) break;
    passed += weight(*entry);
    ++kept;
  } while (kept < most && passed < enough);
  return kept;
}

// The draw from the head of the order that top-k, top-p and min-p leave.
int32_t DrawFromHead(const SamplingParams& params, const Row& row) {
  DescendingOrder order(row.logits, row.max, params.temperature);
  const size_t kept = CountKept(params, row, order);
  Winner winner(row);
  for (size_t i = 0; i < kept; ++i) {
    const DescendingOrder::Entry* entry = order.Get(i);
    if (entry == nullptr || !row.Passes(entry->logit)) break;
    if (winner.NeededNoise(entry->logit) > double{kMaxGumbelNoise}) break;
    winner.Offer(entry->logit, entry->token);
  }
  return winner.token();
}

std::span<const float> BlockMaxima(std::span<const float> logits) {
  thread_local std::vector<float> maxima;
  maxima.resize((logits.size() + kBlock - 1) / kBlock);
  for (size_t block = 0; block < maxima.size(); ++block) {
    const size_t first = block * kBlock;
    maxima[block] = MaxOf(logits.subspan(first, std::min(kBlock, logits.size() - first)));
  }
  return maxima;
}

}  // namespace

int32_t DrawToken(std::span<const float> logits, const SamplingParams& params,
                  const DrawContext& context) {
  SWAA_CHECK(!logits.empty());
  const bool plain =
      params.logit_bias.empty() && !params.needs_history() && context.forbidden.empty();
  if (params.temperature == 0 && plain) return ArgMax(logits);

  const std::span<const float> adjusted = Adjust(logits, params, context);
  const std::span<const float> block_max = BlockMaxima(adjusted);
  const float max = MaxOf(block_max);
  if (max == kForbidden) {  // all are forbidden: then none is
    DrawContext permissive = context;
    permissive.forbidden = {};
    return DrawToken(logits, params, permissive);
  }
  if (params.temperature == 0) return ArgMax(adjusted);

  const Row row{.logits = adjusted,
                .block_max = block_max,
                .max = max,
                .inverse_temperature = 1 / double{params.temperature},
                .min_scaled = std::log(double{params.min_p}),
                .key = MakeGumbelKey(params.seed, context.output_index)};
  const bool cut_by_rank = params.top_k != 0 && params.top_k < logits.size();
  if (cut_by_rank || params.top_p < 1) return DrawFromHead(params, row);
  return DrawFromRow(row);
}

ScoredToken ScoreToken(std::span<const float> logits, int32_t token, int32_t alternatives) {
  SWAA_CHECK(token >= 0 && static_cast<size_t>(token) < logits.size())
      << "token " << token << " of a vocabulary of " << logits.size();
  const float max = FiniteLogit(MaxOf(logits));
  const double log_total = std::log(SumOfExp(logits, max));
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(double{FiniteLogit(logits[id])} - max - log_total);
  };
  ScoredToken scored{.token = token, .logprob = logprob(token)};
  if (alternatives <= 0) return scored;

  const size_t wanted = std::min<size_t>(alternatives, logits.size());
  std::vector<int32_t> best;  // most likely first
  best.reserve(wanted + 1);
  float floor = kForbidden;  // what a later token must exceed
  for (size_t i = 0; i < logits.size(); ++i) {
    const float logit = FiniteLogit(logits[i]);
    if (logit <= floor) continue;
    const auto place = std::upper_bound(best.begin(), best.end(), logit, [&](float l, int32_t id) {
      return l > FiniteLogit(logits[id]);
    });
    best.insert(place, static_cast<int32_t>(i));
    if (best.size() > wanted) best.pop_back();
    if (best.size() == wanted) floor = FiniteLogit(logits[best.back()]);
  }
  scored.top.reserve(best.size());
  for (const int32_t id : best) scored.top.emplace_back(id, logprob(id));
  return scored;
}

}  // namespace swaa::kernels::cpu
