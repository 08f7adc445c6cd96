// A row of logits in falling order, as far as one looks.

#ifndef SWAA_KERNELS_CPU_DESCENDING_ORDER_H_
#define SWAA_KERNELS_CPU_DESCENDING_ORDER_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace swaa::kernels::cpu {

// The row's tokens from the largest logit down, ties by id. Tokens of value minus infinity are not
// in it. The row is never sorted whole unless all of it is asked for.
class DescendingOrder {
 public:
  struct Entry {
    float logit;
    int32_t token;
  };

  // `max` is the row's largest value; `scale`, positive, a difference of logits that matters
  // little: it decides what is looked at together, not the order.
  DescendingOrder(std::span<const float> row, float max, float scale)
      : row_(row), max_(max), scale_(scale) {}

  // The entry of rank `i`, or null past the last.
  const Entry* Get(size_t i) {
    while (i >= ordered_) {
      if (ordered_ == entries_.size()) {
        if (band_ == kBands.size() + 1) return nullptr;
        GatherBand();
      } else {
        OrderMore();
      }
    }
    return &entries_[i];
  }

 private:
  // Whatever lies above a bound precedes all below it, so the row is taken in bands of values.
  static constexpr std::array<float, 3> kBands = {3, 6, 12};  // scales below the largest

  // Exclusive lower bound of a band.
  float Bound(size_t band) const {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    return band == kBands.size() ? -kInfinity : max_ - kBands[band] * scale_;
  }

  void GatherBand() {
    const float above = band_ == 0 ? max_ : Bound(band_ - 1);
    const float low = Bound(band_++);
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
      return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
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
  float max_;
  float scale_;
  std::vector<Entry> entries_;  // the first ordered_ in final order, the rest not
  size_t ordered_ = 0;
  size_t band_ = 0;
};

}  // namespace swaa::kernels::cpu

#endif  // SWAA_KERNELS_CPU_DESCENDING_ORDER_H_
