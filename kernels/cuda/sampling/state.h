// What the sampler keeps on the device, and the kernels that work on it.
//
// A row of the vocabulary is worked on by many blocks, one a tile of tokens. Each leaves a partial
// result; the last of a row's blocks to arrive puts them together in a fixed order, so that results
// do not depend on timing. Counters and histograms are left as they were found: zero.

#ifndef SWAA_KERNELS_CUDA_SAMPLING_STATE_H_
#define SWAA_KERNELS_CUDA_SAMPLING_STATE_H_

#include <cstdint>

#include "kernels/cuda/elementwise/launch.h"
#include "kernels/cuda/sampling/sampler.h"
#include "kernels/sampling_math.h"

namespace swaa::kernels::cuda {

inline constexpr int kTileThreads = 256;
inline constexpr int kTileTokens = 4096;  // a block's share of a row: 16 a thread
inline constexpr int kBins = 2048;        // of a histogram over differences to the largest logit
inline constexpr int kMaxCandidates = 4096;

// What a slot's draws need, but for the lists. All bytes come from the host.
struct SlotState {
  double inverse_temperature;
  double min_scaled;  // min-p as a bound on ScaledLogit
  uint64_t seed;
  Penalties penalties;
  float temperature;
  float top_p;
  uint32_t top_k;
  int32_t bias_count;
  bool has_history;

  // Draws by the head of the falling order; vocab bounds top_k.
  __host__ __device__ bool cuts(int32_t vocab) const {
    return temperature > 0 && ((top_k != 0 && top_k < static_cast<uint32_t>(vocab)) || top_p < 1);
  }
  __host__ __device__ bool filters(int32_t vocab) const {
    return cuts(vocab) || (temperature > 0 && min_scaled > -1e300);
  }
};

// A tile's part of a draw: the best (score, token), and the largest logit of all.
struct DrawPartial {
  double score;
  int32_t token;
  float max;
};

// A tile's part of a log-softmax, and its most likely tokens as codes (row_codes.cuh).
struct ScorePartial {
  double sum;  // of e^(logit - max)
  float max;
  uint64_t codes[kMaxAlternatives];
};

// What the kernels of one launch tell each other of a row that is filtered.
struct RowState {
  float max;          // of the row after bias and penalties
  bool forbid;        // the slot's forbidden tokens are
  uint32_t cut_key;   // the last token kept: its key, and
  int32_t cut_token;  // its id (of equal keys, greater ids are cut)
  int32_t first_bin;  // the bins among whose tokens the cut is looked for
  int32_t last_bin;
  uint32_t above_count;  // tokens in bins before first_bin, and their weight
  uint64_t above_mass;
  double enough_mass;  // that top-p wants; negative: a share of what top-k keeps
};

// Device pointers, by value to every kernel.
struct SamplerState {
  int32_t vocab;
  int32_t words;  // 32-bit words of a bitmap of the vocabulary
  int32_t tiles;  // of a row
  // Slots.
  SlotState* slots;      // [num_slots]
  uint32_t** history;    // one cell: [num_slots, vocab] as sampling_math.h reads it, or null
  uint32_t* biased;      // [num_slots, words]
  uint32_t* forbidden;   // [num_slots, words]
  int32_t* bias_tokens;  // [num_slots, kMaxLogitBiases], rising
  float* bias_values;
  int32_t* drawn;  // [num_slots]
  // Rows of a launch.
  RowState* rows;                // [max_rows]
  DrawPartial* draw_partials;    // [max_rows, tiles]
  ScorePartial* score_partials;  // [max_rows, tiles]
  uint32_t* arrivals;            // [max_rows], zero between kernels, as the next three
  uint32_t* bin_counts;          // [max_rows, kBins]
  uint64_t* bin_masses;          // [max_rows, kBins]
  uint32_t* candidate_counts;    // [max_rows]
  uint64_t* candidates;          // [max_rows, kMaxCandidates] codes
};

// A slot's setup as it is sent: lists are words of the same upload, by offset.
struct SetupRecord {
  SlotState state;
  int32_t slot;
  int32_t forbidden_count;
  int32_t prompt_count;
  int32_t output_count;
  int64_t biases;  // bias_count tokens, then as many values
  int64_t forbidden;
  int64_t prompt;
  int64_t output;
};

void LaunchSetUp(const SamplerState& state, const SetupRecord* records, int32_t count,
                 const uint32_t* words, const Launch& launch);
// Known tokens, and draws that no filter touches; of the others the largest logit.
void LaunchDraw(const SamplerState& state, const SampleParams& params, const Launch& launch);
// Top-k and top-p become a cut: two kernels.
void LaunchFindCuts(const SamplerState& state, const SampleParams& params, const Launch& launch);
// Draws from what the filters leave.
void LaunchDrawFiltered(const SamplerState& state, const SampleParams& params,
                        const Launch& launch);
// Log-probabilities and alternatives.
void LaunchScore(const SamplerState& state, const SampleParams& params, const Launch& launch);

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_SAMPLING_STATE_H_
