// The host's side of the device's sampler: memory, setups, launches.

#include "kernels/cuda/sampling/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <cuda_runtime_api.h>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/sampling/state.h"

namespace swaa::kernels::cuda {
namespace {

// Sums of weights are exact up to so many tokens (FixedPointWeight).
constexpr int32_t kMaxVocab = 1 << 19;

// Memory of the device, zeroed when it is made.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() { cudaFree(data_); }

  // Forgets what it held.
  absl::Status Resize(int64_t bytes, const char* what) {
    cudaFree(data_);
    data_ = nullptr;
    bytes_ = 0;
    SWAA_RETURN_IF_ERROR(CudaStatus(cudaMalloc(&data_, bytes),
                                    absl::StrCat("allocating ", bytes, " bytes for ", what)));
    bytes_ = bytes;
    SWAA_RETURN_IF_ERROR(CudaStatus(cudaMemset(data_, 0, bytes), absl::StrCat("clearing ", what)));
    // Other streams do not wait for it.
    return CudaStatus(cudaStreamSynchronize(nullptr), absl::StrCat("clearing ", what));
  }

  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

// Memory of the host that the device copies from, and when it has done so.
class Staging {
 public:
  Staging() = default;
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging() {
    cudaFreeHost(data_);
    if (copied_ != nullptr) cudaEventDestroy(copied_);
  }

  // Room for `bytes`, which no copy under way reads any more.
  absl::StatusOr<std::byte*> Take(int64_t bytes) {
    if (copied_ == nullptr) {
      SWAA_RETURN_IF_ERROR(CudaStatus(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming),
                                      "creating an event"));
    }
    SWAA_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(copied_), "waiting for a copy"));
    if (bytes > bytes_) {
      cudaFreeHost(data_);
      data_ = nullptr;
      bytes_ = 0;
      SWAA_RETURN_IF_ERROR(CudaStatus(
          cudaMallocHost(&data_, bytes),
          absl::StrCat("allocating ", bytes, " bytes of the host for the setups of slots")));
      bytes_ = bytes;
    }
    return static_cast<std::byte*>(data_);
  }

  // After the copy was enqueued.
  absl::Status MarkCopied(cudaStream_t stream) {
    return CudaStatus(cudaEventRecord(copied_, stream), "recording an event");
  }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  cudaEvent_t copied_ = nullptr;
};

int64_t HistoryBytes(int32_t num_slots, int32_t vocab) { return int64_t{4} * num_slots * vocab; }

SamplerState StateFor(int32_t vocab) {
  SamplerState state{};
  state.vocab = vocab;
  state.words = (vocab + 31) / 32;
  state.tiles = (vocab + kTileTokens - 1) / kTileTokens;
  return state;
}

// Lays the arrays one after another from `base` on; returns their bytes.
int64_t PlaceArrays(std::byte* base, int64_t slots, int64_t rows, SamplerState* state) {
  int64_t offset = 0;
  const auto place = [&](auto** array, int64_t count) {
    *array = reinterpret_cast<std::remove_reference_t<decltype(*array)>>(base + offset);
    offset += (count * static_cast<int64_t>(sizeof(**array)) + 255) / 256 * 256;
  };
  place(&state->slots, slots);
  place(&state->history, 1);
  place(&state->biased, slots * state->words);
  place(&state->forbidden, slots * state->words);
  place(&state->bias_tokens, slots * kMaxLogitBiases);
  place(&state->bias_values, slots * kMaxLogitBiases);
  place(&state->drawn, slots);
  place(&state->rows, rows);
  place(&state->draw_partials, rows * state->tiles);
  place(&state->score_partials, rows * state->tiles);
  place(&state->arrivals, rows);
  place(&state->bin_counts, rows * kBins);
  place(&state->bin_masses, rows * kBins);
  place(&state->candidate_counts, rows);
  place(&state->candidates, rows * kMaxCandidates);
  return offset;
}

SlotState StateOf(const SamplingParams& params) {
  return {
      .inverse_temperature = params.temperature > 0 ? 1 / double{params.temperature} : 0,
      .min_scaled = std::log(double{params.min_p}),
      .seed = params.seed,
      .penalties = {params.repetition_penalty, params.frequency_penalty, params.presence_penalty},
      .temperature = params.temperature,
      .top_p = params.top_p,
      .top_k = params.top_k,
      .bias_count = static_cast<int32_t>(params.logit_bias.size()),
      .has_history = params.needs_history()};
}

// Records, and behind them the lists that they name.
struct SetupUpload {
  std::vector<SetupRecord> records;
  std::vector<uint32_t> words;

  void Add(const SlotSetup& setup, int32_t vocab) {
    const SamplingParams& params = *setup.sampling;
    SWAA_CHECK_LE(static_cast<int32_t>(params.logit_bias.size()), kMaxLogitBiases);
    SetupRecord record{.state = StateOf(params), .slot = setup.slot};
    record.biases = static_cast<int64_t>(words.size());
    for (const auto& [token, bias] : params.logit_bias)
      AddToken(static_cast<int32_t>(token), vocab);
    for (const auto& [token, bias] : params.logit_bias) words.push_back(exact::ToBits(bias));
    std::tie(record.forbidden, record.forbidden_count) = AddTokens(setup.forbidden, vocab);
    if (params.needs_history()) {
      SWAA_CHECK(setup.prompt != nullptr) << "slot " << setup.slot << " needs its history";
      std::tie(record.prompt, record.prompt_count) = AddTokens(*setup.prompt, vocab);
      std::tie(record.output, record.output_count) = AddTokens(setup.output, vocab);
    }
    records.push_back(record);
  }

  int64_t record_bytes() const {
    return static_cast<int64_t>(records.size() * sizeof(SetupRecord));
  }
  int64_t word_bytes() const { return static_cast<int64_t>(words.size() * 4); }

 private:
  void AddToken(int32_t token, int32_t vocab) {
    SWAA_CHECK(token >= 0 && token < vocab) << "token " << token << " of a vocabulary of " << vocab;
    words.push_back(static_cast<uint32_t>(token));
  }
  std::pair<int64_t, int32_t> AddTokens(const std::vector<int32_t>& tokens, int32_t vocab) {
    const auto first = static_cast<int64_t>(words.size());
    for (const int32_t token : tokens) AddToken(token, vocab);
    return {first, static_cast<int32_t>(tokens.size())};
  }
};

class CudaSamplerImpl final : public CudaSampler {
 public:
  CudaSamplerImpl(int32_t num_slots, int32_t vocab, int32_t max_rows)
      : num_slots_(num_slots), max_rows_(max_rows), state_(StateFor(vocab)) {}

  absl::Status Allocate() {
    SWAA_RETURN_IF_ERROR(
        memory_.Resize(PlaceArrays(nullptr, num_slots_, max_rows_, &state_), "the sampler"));
    PlaceArrays(static_cast<std::byte*>(memory_.data()), num_slots_, max_rows_, &state_);
    SWAA_RETURN_IF_ERROR(
        CudaStatus(cudaMemset(state_.drawn, 0xff, num_slots_ * 4), "clearing the sampler"));
    return CudaStatus(cudaStreamSynchronize(nullptr), "clearing the sampler");
  }

  absl::Status SetUp(std::span<const SlotSetup> setups, cudaStream_t stream) override {
    if (setups.empty()) return absl::OkStatus();
    SetupUpload upload;
    bool any_history = false;
    for (size_t i = 0; i < setups.size(); ++i) {
      const SlotSetup& setup = setups[i];
      SWAA_CHECK(setup.slot >= 0 && setup.slot < num_slots_) << setup.slot;
      SWAA_CHECK(setup.sampling != nullptr) << "slot " << setup.slot;
      // The last of a slot counts: the device sets them up all at once.
      const bool again = std::any_of(setups.begin() + i + 1, setups.end(),
                                     [&](const SlotSetup& s) { return s.slot == setup.slot; });
      if (again) continue;
      upload.Add(setup, state_.vocab);
      any_history |= setup.sampling->needs_history();
    }
    if (any_history) SWAA_RETURN_IF_ERROR(AllocateHistory());
    return Send(upload, stream);
  }

  void Sample(const SampleParams& params, const Launch& launch) override {
    SWAA_CHECK_LE(params.max_rows, max_rows_);
    if (params.max_rows == 0) return;
    LaunchDraw(state_, params, launch);
    if (params.features.filters) {
      LaunchFindCuts(state_, params, launch);
      LaunchDrawFiltered(state_, params, launch);
    }
    if (params.features.logprobs || params.features.alternatives) {
      LaunchScore(state_, params, launch);
    }
  }

  const int32_t* drawn() const override { return state_.drawn; }

  int64_t bytes() const override { return memory_.bytes() + history_.bytes() + upload_.bytes(); }

 private:
  absl::Status AllocateHistory() {
    if (history_.data() != nullptr) return absl::OkStatus();
    SWAA_RETURN_IF_ERROR(
        history_.Resize(HistoryBytes(num_slots_, state_.vocab), "the token counts of penalties"));
    // Kernels read the address from its cell, so that graphs captured before remain right.
    void* address = history_.data();
    SWAA_RETURN_IF_ERROR(
        CudaStatus(cudaMemcpy(state_.history, &address, sizeof(address), cudaMemcpyHostToDevice),
                   "setting an address"));
    // Such a copy may return before it has arrived, and other streams do not wait for it.
    return CudaStatus(cudaStreamSynchronize(nullptr), "setting an address");
  }

  absl::Status Send(const SetupUpload& upload, cudaStream_t stream) {
    const int64_t records = upload.record_bytes(), bytes = records + upload.word_bytes();
    Staging& staging = staging_[next_staging_];
    next_staging_ = 1 - next_staging_;
    SWAA_ASSIGN_OR_RETURN(std::byte * host, staging.Take(bytes));
    std::memcpy(host, upload.records.data(), records);
    if (!upload.words.empty()) {
      std::memcpy(host + records, upload.words.data(), upload.word_bytes());
    }
    if (bytes > upload_.bytes()) {
      // Freed memory may still be read by setups under way: freeing waits for them.
      SWAA_RETURN_IF_ERROR(upload_.Resize(2 * bytes, "the setups of slots"));
    }
    auto* device = static_cast<std::byte*>(upload_.data());
    SWAA_RETURN_IF_ERROR(
        CudaStatus(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream),
                   "sending the setups of slots"));
    SWAA_RETURN_IF_ERROR(staging.MarkCopied(stream));
    LaunchSetUp(state_, reinterpret_cast<const SetupRecord*>(device),
                static_cast<int32_t>(upload.records.size()),
                reinterpret_cast<const uint32_t*>(device + records), {.stream = stream});
    return absl::OkStatus();
  }

  const int32_t num_slots_;
  const int32_t max_rows_;
  SamplerState state_;
  DeviceMemory memory_;
  DeviceMemory history_;
  DeviceMemory upload_;
  std::array<Staging, 2> staging_;
  int next_staging_ = 0;
};

}  // namespace

absl::Status CudaSampler::CheckVocab(int32_t vocab_size) {
  if (vocab_size <= kMaxVocab) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "vocab_size: ", vocab_size, " is beyond what the sampler takes on CUDA, ", kMaxVocab));
}

int64_t CudaSampler::Bytes(int32_t num_slots, int32_t vocab_size, int32_t max_rows) {
  SamplerState state = StateFor(vocab_size);
  return PlaceArrays(nullptr, num_slots, max_rows, &state) + HistoryBytes(num_slots, vocab_size);
}

absl::StatusOr<std::unique_ptr<CudaSampler>> CudaSampler::Create(int32_t num_slots,
                                                                 int32_t vocab_size,
                                                                 int32_t max_rows) {
  SWAA_CHECK(num_slots > 0 && max_rows > 0 && vocab_size > 0)
      << num_slots << " " << max_rows << " " << vocab_size;
  SWAA_RETURN_IF_ERROR(CheckVocab(vocab_size));
  auto sampler = std::make_unique<CudaSamplerImpl>(num_slots, vocab_size, max_rows);
  SWAA_RETURN_IF_ERROR(sampler->Allocate());
  return sampler;
}

}  // namespace swaa::kernels::cuda
