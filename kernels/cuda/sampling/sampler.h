// The sampler of the CUDA backend: keeps on the device what each slot's draws need, and turns rows
// of logits into tokens there. It draws what the processor's sampler draws from the same logits
// (kernels/sampling_math.h says what is computed, to the bit).

#ifndef SWAA_KERNELS_CUDA_SAMPLING_SAMPLER_H_
#define SWAA_KERNELS_CUDA_SAMPLING_SAMPLER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "kernels/cuda/elementwise/launch.h"
#include "kernels/sampling.h"

namespace swaa::kernels::cuda {

// Of a row; the log-probability only where the row asks for it.
struct SampledToken {
  int32_t token;
  float logprob;
};

// The most likely tokens of a row, as many as it asks for (all, if the vocabulary has no more),
// most likely first.
struct Alternatives {
  int32_t tokens[kMaxAlternatives];
  float logprobs[kMaxAlternatives];
};

// What the rows of one launch want, so that kernels that nobody needs are not launched. No row may
// want what is not set here; in a graph that is to serve any rows, all are set.
struct SamplingFeatures {
  bool filters = true;       // a row draws with top-k, top-p or min-p
  bool logprobs = true;      // a row asks for log-probabilities
  bool alternatives = true;  // a row asks for alternatives
};

// Arrays of one launch, on the device.
struct SampleParams {
  const float* logits = nullptr;         // [max_rows, vocab], 16-byte aligned; only read
  const LogitsRow* rows = nullptr;       // [max_rows]; rows[i] belongs to row i of logits
  const int32_t* live_rows = nullptr;    // how many there are; the others are not touched
  SampledToken* tokens = nullptr;        // [max_rows], results
  Alternatives* alternatives = nullptr;  // [max_rows], results; null where no row wants any
  int32_t max_rows = 0;                  // that are launched
  SamplingFeatures features;
};

// Belongs to one thread, and works on one stream at a time. The draws of a slot depend on what it
// was last set up with and on what it drew since, on nothing else. Memory: 40 KB a slot and 65 KB a
// row for bitmaps, biases and histograms at 152,000 tokens, and from the first slot that needs
// history on, 4 bytes a slot and token.
class CudaSampler {
 public:
  // INVALID_ARGUMENT for a vocabulary that is too large.
  static absl::Status CheckVocab(int32_t vocab_size);
  // The device memory of one, history included.
  static int64_t Bytes(int32_t num_slots, int32_t vocab_size, int32_t max_rows);
  // RESOURCE_EXHAUSTED where the device has not the memory. `max_rows` bounds SampleParams.
  static absl::StatusOr<std::unique_ptr<CudaSampler>> Create(int32_t num_slots, int32_t vocab_size,
                                                             int32_t max_rows);
  virtual ~CudaSampler() = default;

  // Each slot named forgets its former request: one copy to the device and two kernels on the
  // stream, before what Sample enqueues later. Not to be captured: it waits until the copy before
  // the last is done, and allocates (RESOURCE_EXHAUSTED) for the first slot that needs history and
  // for larger histories than it ever had. CHECKs slots and tokens to be in range.
  virtual absl::Status SetUp(std::span<const SlotSetup> setups, cudaStream_t stream) = 0;

  // Draws or scores rows[0 .. live_rows - 1]; a drawn token is counted in its slot's history and
  // becomes drawn()[slot]. Only enqueues kernels, so it may be captured, also before a slot needs
  // history. Throws CudaError where a launch fails.
  virtual void Sample(const SampleParams& params, const Launch& launch) = 0;

  // [num_slots], device memory: the token that each slot drew last, -1 before the first.
  virtual const int32_t* drawn() const = 0;

  // Device memory that this holds.
  virtual int64_t bytes() const = 0;
};

}  // namespace swaa::kernels::cuda

#endif  // SWAA_KERNELS_CUDA_SAMPLING_SAMPLER_H_
