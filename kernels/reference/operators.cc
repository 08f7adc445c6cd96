// Naive double-precision operators.

#include "kernels/reference/operators.h"

#include <cmath>

namespace swaa::kernels::reference {

std::vector<double> RmsNorm(std::span<const double> x, std::span<const double> weight,
                            double epsilon) {
  const size_t hidden = weight.size();
  std::vector<double> out(x.size());
  for (size_t row = 0; row < x.size(); row += hidden) {
    double squares = 0;
    for (size_t i = 0; i < hidden; ++i) squares += x[row + i] * x[row + i];
    const double scale = 1 / std::sqrt(squares / static_cast<double>(hidden) + epsilon);
    for (size_t i = 0; i < hidden; ++i) out[row + i] = x[row + i] * scale * weight[i];
  }
  return out;
}

std::vector<double> Linear(std::span<const double> x, std::span<const double> weight,
                           std::span<const double> bias, int64_t in_features) {
  const auto rows = static_cast<int64_t>(x.size()) / in_features;
  const auto out_features = static_cast<int64_t>(weight.size()) / in_features;
  std::vector<double> out(rows * out_features);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < out_features; ++o) {
      double sum = bias.empty() ? 0 : bias[o];
      for (int64_t i = 0; i < in_features; ++i) {
        sum += x[r * in_features + i] * weight[o * in_features + i];
      }
      out[r * out_features + o] = sum;
    }
  }
  return out;
}

std::vector<double> LowRank(std::span<const double> x, std::span<const double> down,
                            std::span<const double> up) {
  const std::vector<double> sums = Linear(x, down, {}, static_cast<int64_t>(x.size()));
  return Linear(sums, up, {}, static_cast<int64_t>(sums.size()));
}

void Rope(std::span<double> heads, double position, std::span<const float> inverse_frequencies) {
  const size_t half = inverse_frequencies.size();
  for (size_t head = 0; head < heads.size(); head += 2 * half) {
    for (size_t d = 0; d < half; ++d) {
      const double angle = position * inverse_frequencies[d];
      const double a = heads[head + d], b = heads[head + half + d];
      heads[head + d] = a * std::cos(angle) - b * std::sin(angle);
      heads[head + half + d] = b * std::cos(angle) + a * std::sin(angle);
    }
  }
}

std::vector<double> SiluMul(std::span<const double> gate_up, int64_t width) {
  const auto rows = static_cast<int64_t>(gate_up.size()) / (2 * width);
  std::vector<double> out(rows * width);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < width; ++c) {
      const double gate = gate_up[r * 2 * width + c];
      out[r * width + c] = gate / (1 + std::exp(-gate)) * gate_up[r * 2 * width + width + c];
    }
  }
  return out;
}

std::vector<double> ExpertShares(std::span<const double> logits, int64_t experts,
                                 int64_t experts_per_row, bool normalize) {
  std::vector<double> shares(logits.size());
  for (size_t row = 0; row < logits.size(); row += experts) {
    const auto of_row = logits.subspan(row, experts);
    double all = 0;
    for (const double logit : of_row) all += std::exp(logit);
    std::vector<bool> chosen(experts);
    double kept = 0;
    for (int64_t i = 0; i < experts_per_row; ++i) {
      int64_t best = -1;
      for (int64_t e = 0; e < experts; ++e) {
        if (!chosen[e] && (best < 0 || of_row[e] > of_row[best])) best = e;
      }
      chosen[best] = true;
      shares[row + best] = std::exp(of_row[best]) / all;
      kept += shares[row + best];
    }
    for (int64_t e = 0; normalize && e < experts; ++e) shares[row + e] /= kept;
  }
  return shares;
}

std::vector<double> Experts(std::span<const double> x, std::span<const double> shares,
                            std::span<const Expert> experts, int64_t hidden) {
  const auto rows = static_cast<int64_t>(x.size()) / hidden;
  const auto count = static_cast<int64_t>(experts.size());
  std::vector<double> out(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t e = 0; e < count; ++e) {
      const double share = shares[r * count + e];
      if (share == 0) continue;
      const auto width = static_cast<int64_t>(experts[e].down.size()) / hidden;
      const auto gate_up = Linear(x.subspan(r * hidden, hidden), experts[e].gate_up, {}, hidden);
      const auto y = Linear(SiluMul(gate_up, width), experts[e].down, {}, width);
      for (int64_t i = 0; i < hidden; ++i) out[r * hidden + i] += share * y[i];
    }
  }
  return out;
}

}  // namespace swaa::kernels::reference
