// The arithmetic of a draw, the same bits on every backend: how history changes a logit, how much a
// token weighs in top-p, what its score is. See kernels/sampling.h for what is computed.

#ifndef SWAA_KERNELS_SAMPLING_MATH_H_
#define SWAA_KERNELS_SAMPLING_MATH_H_

#include <cfloat>
#include <cstdint>

#include "kernels/exact_float.h"
#include "kernels/gumbel_noise.h"

namespace swaa::kernels {

// A finite logit: NaN counts as the lowest there is.
SWAA_HOST_DEVICE float FiniteLogit(float logit) {
  logit = logit > -FLT_MAX ? logit : -FLT_MAX;
  return logit < FLT_MAX ? logit : FLT_MAX;
}

// What a slot remembers of a token: how often it was output, and whether the prompt has it.
inline constexpr uint32_t kInPrompt = 0x80000000u;

struct Penalties {
  float repetition = 1;
  float frequency = 0;
  float presence = 0;
};

// The logit of a token with this history; 0 is a token never seen.
SWAA_HOST_DEVICE float PenalisedLogit(float logit, uint32_t history, const Penalties& penalties) {
  if (history == 0) return logit;
  logit = FiniteLogit(logit > 0 ? exact::Div(logit, penalties.repetition)
                                : exact::Mul(logit, penalties.repetition));
  const uint32_t count = history & ~kInPrompt;
  if (count == 0) return logit;
  logit = exact::Add(logit, -exact::Mul(penalties.frequency, static_cast<float>(count)));
  return exact::Add(logit, -penalties.presence);
}

// (logit - max) / temperature. In double, so that no temperature overflows it.
SWAA_HOST_DEVICE double ScaledLogit(float logit, float max, double inverse_temperature) {
  return exact::Mul(exact::Add(static_cast<double>(logit), -static_cast<double>(max)),
                    inverse_temperature);
}

// e^scaled of a ScaledLogit in whole units of 2^-34: sums of up to 2^19 of them are exact in a
// double, so a backend may add them in any order. At kWeightless and below it is 0.
inline constexpr double kWeightless = -24.5;
SWAA_HOST_DEVICE double FixedPointWeight(double scaled) {
  constexpr double kUnits = 0x1.0p34;
  constexpr double kRound = 0x1.8p52;  // adding it rounds to a whole number
  const float weight = exact::Exp(static_cast<float>(scaled));
  return exact::Add(exact::Add(exact::Mul(static_cast<double>(weight), kUnits), kRound), -kRound);
}

// What a draw compares: the largest wins, of equal ones the smaller id.
SWAA_HOST_DEVICE double DrawScore(float logit, double inverse_temperature, GumbelKey key,
                                  int32_t token) {
  const float noise = GumbelNoise(GumbelBits(key, static_cast<uint32_t>(token)));
  return exact::Add(exact::Mul(static_cast<double>(logit), inverse_temperature),
                    static_cast<double>(noise));
}

}  // namespace swaa::kernels

#endif  // SWAA_KERNELS_SAMPLING_MATH_H_
