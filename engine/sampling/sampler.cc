// From a row of logits to a token. A draw walks the tokens in descending
// order of probability (ties by id) until a uniform number of (seed, t) is used up, so every
// backend that computes the same probabilities draws the same token. The row is never sorted whole:
// only its head is put in order, as far as the walk gets.

#include "engine/sampling/sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cfloat>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace swaa {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();
// Independent partial results of a reduction, for the compiler to keep in vector registers.
constexpr size_t kLanes = 16;

// A finite logit: NaN counts as the lowest there is.
inline float Finite(float logit) {
  logit = logit > -FLT_MAX ? logit : -FLT_MAX;
  return logit < FLT_MAX ? logit : FLT_MAX;
}

// e^x for x <= 0, within 3e-7 of it relatively and exactly 1 at 0; below kLowest it stays at
// e^kLowest, which no sum beside 1 notices. Without branches, so that loops over it vectorise.
constexpr float kLowest = -87;
inline float Exp(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  x = x > kLowest ? x : kLowest;
  const float n = (x * 1.44269504f + kRound) - kRound;
  const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;  // ln 2 in two parts
  float p = 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

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
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) sum[lane] += Exp(Finite(values[i + lane]) - max);
  }
  for (; i < values.size(); ++i) sum[0] += Exp(Finite(values[i]) - max);
  double total = 0;
  for (const double part : sum) total += part;
  return total;
}

// A number in [0, 1): output t of the splitmix64 stream that begins at the scrambled seed.
double Uniform(uint64_t seed, uint64_t t) {
  const auto mix = [](uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  };
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;
  const uint64_t bits = mix(mix(seed + kGolden) + (t + 1) * kGolden);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

float& At(std::span<float> logits, int32_t token) {
  SWAA_CHECK(token >= 0 && static_cast<size_t>(token) < logits.size())
      << "token " << token << " of a vocabulary of " << logits.size();
  return logits[token];
}

void ApplyPenalties(const SamplingParams& params, const DrawContext& context,
                    std::span<float> logits) {
  thread_local std::vector<uint32_t> count;  // all zero between calls
  if (count.size() < logits.size()) count.resize(logits.size(), 0);
  const float repetition = params.repetition_penalty;
  const auto repeat = [&](float& logit) {
    logit = Finite(logit > 0 ? logit / repetition : logit * repetition);
  };
  for (const int32_t token : context.output) {
    float& logit = At(logits, token);
    if (count[token]++ == 0) repeat(logit);
  }
  // Each token once, when its count is taken back to zero; those of the prompt alone are marked on
  // the way.
  for (const int32_t token : context.output) {
    if (count[token] == 0) continue;
    logits[token] -= params.frequency_penalty * static_cast<float>(count[token]);
    logits[token] -= params.presence_penalty;
    count[token] = 0;
  }
  if (repetition == 1) return;
  for (const int32_t token : context.output) count[token] = 1;
  for (const int32_t token : context.prompt) {
    float& logit = At(logits, token);
    if (count[token]++ == 0) repeat(logit);
  }
  for (const int32_t token : context.output) count[token] = 0;
  for (const int32_t token : context.prompt) count[token] = 0;
}

// The row after bias, penalties and what is forbidden, in this thread's buffer.
std::span<float> Adjust(std::span<const float> logits, const SamplingParams& params,
                        const DrawContext& context) {
  thread_local std::vector<float> buffer;
  buffer.resize(logits.size());
  std::transform(logits.begin(), logits.end(), buffer.begin(), Finite);
  const std::span<float> row(buffer);
  for (const auto& [token, bias] : params.logit_bias) At(row, static_cast<int32_t>(token)) += bias;
  if (params.needs_history()) ApplyPenalties(params, context, row);
  for (const int32_t token : context.forbidden) At(row, token) = kForbidden;
  return row;
}

// A row's tokens from the largest value down, ties by id, put in order no further than one looks.
// Tokens of value minus infinity are not in it. Values are at most 0, and the largest is 0.
class DescendingOrder {
 public:
  struct Entry {
    float value;
    int32_t token;
  };

  explicit DescendingOrder(std::span<const float> row) : row_(row) {}

  // The entry of rank `i`, or null past the last.
  const Entry* Get(size_t i) {
    while (i >= ordered_) {
      if (ordered_ == entries_.size()) {
        if (band_ == kBands.size()) return nullptr;
        GatherBand();
      } else {
        OrderMore();
      }
    }
    return &entries_[i];
  }

 private:
  // Whatever lies above a bound precedes all below it, so the row is taken in bands of values.
  static constexpr std::array<float, 4> kBands = {-3, -6, -12, kForbidden};

  void GatherBand() {
    const float above = band_ == 0 ? 1 : kBands[band_ - 1];
    const float low = kBands[band_++];
    int32_t count = 0;
    for (const float value : row_) count += value > low && value <= above;
    // Each is written and then kept or not: a branch would be guessed wrong too often.
    size_t end = entries_.size();
    entries_.resize(end + count + 1);
    for (size_t i = 0; i < row_.size(); ++i) {
      entries_[end] = {row_[i], static_cast<int32_t>(i)};
      end += row_[i] > low && row_[i] <= above;
    }
    entries_.pop_back();
  }

  void OrderMore() {
    const auto before = [](const Entry& a, const Entry& b) {
      return a.value != b.value ? a.value > b.value : a.token < b.token;
    };
    const size_t end = std::min(entries_.size(), std::max<size_t>(64, 4 * ordered_));
    const auto first = entries_.begin() + ordered_;
    if (end < entries_.size()) {
      std::nth_element(first, entries_.begin() + end, entries_.end(), before);
    }
    std::sort(first, entries_.begin() + end, before);
    ordered_ = end;
  }

  std::span<const float> row_;
  std::vector<Entry> entries_;  // the first ordered_ in final order, the rest not
  size_t ordered_ = 0;
  size_t band_ = 0;
};

// How many tokens of the order top-k, top-p and min-p keep, and their weight. At least one is kept.
struct Kept {
  size_t count = std::numeric_limits<size_t>::max();
  double weight = 0;
};

Kept Filter(const SamplingParams& params, std::span<const float> row, DescendingOrder& order) {
  Kept kept;
  if (params.top_k == 0) {
    kept.weight = SumOfExp(row, 0);
  } else {
    kept.count = 0;
    while (kept.count < params.top_k) {
      const DescendingOrder::Entry* entry = order.Get(kept.count);
      if (entry == nullptr) break;
      kept.weight += Exp(entry->value);
      ++kept.count;
    }
  }
  if (params.top_p >= 1 && params.min_p <= 0) return kept;
  const double enough = params.top_p >= 1 ? std::numeric_limits<double>::infinity()
                                          : double{params.top_p} * kept.weight;
  Kept head{.count = 0};
  while (head.count < kept.count && head.weight < enough) {
    const DescendingOrder::Entry* entry = order.Get(head.count);
    if (entry == nullptr) break;
    const float weight = Exp(entry->value);
    if (weight < params.min_p) break;  // relative to the largest, whose weight is 1
    head.weight += weight;
    ++head.count;
  }
  return head;
}

}  // namespace

int32_t DrawToken(std::span<const float> logits, const SamplingParams& params,
                  const DrawContext& context) {
  SWAA_CHECK(!logits.empty());
  const bool plain =
      params.logit_bias.empty() && !params.needs_history() && context.forbidden.empty();
  if (params.temperature == 0 && plain) return ArgMax(logits);

  const std::span<float> row = Adjust(logits, params, context);
  const float max = MaxOf(row);
  if (max == kForbidden) {  // all are forbidden: then none is
    DrawContext permissive = context;
    permissive.forbidden = {};
    return DrawToken(logits, params, permissive);
  }
  if (params.temperature == 0) return ArgMax(row);
  // The difference first: a tiny temperature must not overflow the largest.
  for (float& value : row) value = (value - max) / params.temperature;

  DescendingOrder order(row);
  const Kept kept = Filter(params, row, order);
  const double target = Uniform(params.seed, context.output_index) * kept.weight;
  int32_t token = order.Get(0)->token;
  double passed = 0;
  for (size_t i = 0; i < kept.count; ++i) {
    const DescendingOrder::Entry* entry = order.Get(i);
    if (entry == nullptr) break;
    const float weight = Exp(entry->value);
    if (entry->value <= kLowest) break;  // rounding left a rest: the last that has weight takes it
    token = entry->token;
    passed += weight;
    if (passed > target) break;
  }
  return token;
}

ScoredToken ScoreToken(std::span<const float> logits, int32_t token, int32_t alternatives) {
  SWAA_CHECK(token >= 0 && static_cast<size_t>(token) < logits.size())
      << "token " << token << " of a vocabulary of " << logits.size();
  const float max = Finite(MaxOf(logits));
  const double log_total = std::log(SumOfExp(logits, max));
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(double{Finite(logits[id])} - max - log_total);
  };
  ScoredToken scored{.token = token, .logprob = logprob(token)};
  if (alternatives <= 0) return scored;

  const size_t wanted = std::min<size_t>(alternatives, logits.size());
  std::vector<int32_t> best;  // most likely first
  best.reserve(wanted + 1);
  float floor = kForbidden;  // what a later token must exceed
  for (size_t i = 0; i < logits.size(); ++i) {
    const float logit = Finite(logits[i]);
    if (logit <= floor) continue;
    const auto place = std::upper_bound(best.begin(), best.end(), logit, [&](float l, int32_t id) {
      return l > Finite(logits[id]);
    });
    best.insert(place, static_cast<int32_t>(i));
    if (best.size() > wanted) best.pop_back();
    if (best.size() == wanted) floor = Finite(logits[best.back()]);
  }
  scored.top.reserve(best.size());
  for (const int32_t id : best) scored.top.emplace_back(id, logprob(id));
  return scored;
}

}  // namespace swaa
