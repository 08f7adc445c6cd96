// The CPU backend: every operator over rows in OpenMP threads.

#include "kernels/cpu/cpu_operators.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/parallel_ranges.h"
#include "kernels/cpu/threads.h"

namespace swaa::kernels::cpu {
namespace {

class RowEmbedding : public Embedding {
 public:
  RowEmbedding(int64_t vocab, int64_t hidden, RowReader read_rows)
      : vocab_(vocab), hidden_(hidden), read_rows_(std::move(read_rows)) {}
  int64_t bytes() const override { return 0; }  // the rows stay where the reader has them
  int64_t vocab() const { return vocab_; }
  int64_t hidden() const { return hidden_; }
  void Read(int64_t row, float* out) const { read_rows_(row, 1, out); }

 private:
  int64_t vocab_;
  int64_t hidden_;
  RowReader read_rows_;
};

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "x86-64 processor";
}

class CpuOperators : public Operators {
 public:
  CpuOperators(InstructionSet set, const AttentionKernels& attention, const Precision& precision,
               int threads)
      : set_(set),
        attention_(attention),
        precision_(precision),
        threads_(threads),
        elementwise_(ElementwiseFor(set)),
        linear_(CpuLinear::Create(precision.weights,
                                  set >= InstructionSet::kAvx512 && HasBf16Products(), threads)) {}

  std::string_view backend() const override { return "cpu"; }
  std::string device_name() const override {
    return absl::StrCat(ProcessorName(), ", ", std::string(Name(set_)), " (attention: prefill ",
                        attention_.prefill->name, ", decode ", attention_.decode->name, "), ",
                        threads_, threads_ == 1 ? " thread" : " threads");
  }
  const Precision& precision() const override { return precision_; }
  int64_t KvPageBytes(int32_t kv_heads, int32_t head_dim) const override {
    return cpu::KvPageBytes(precision_.kv, kv_heads, head_dim);
  }
  int64_t PaddedRows(int64_t rows) const override { return CpuLinear::PaddedRows(rows); }
  int64_t AvailableBytes() const override { return AvailableMemoryBytes(); }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override {
    return AllocateBuffer(bytes);
  }

  absl::StatusOr<std::unique_ptr<Weight>> PackWeight(int64_t out_features, int64_t in_features,
                                                     const RowReader& read_rows) override {
    return linear_->Pack(out_features, in_features, read_rows);
  }

  absl::StatusOr<std::unique_ptr<Embedding>> MakeEmbedding(int64_t vocab, int64_t hidden,
                                                           RowReader read_rows) override {
    return std::make_unique<RowEmbedding>(vocab, hidden, std::move(read_rows));
  }

  void Embed(const Embedding& table, std::span<const int32_t> ids, float* out) override {
    const auto& rows = static_cast<const RowEmbedding&>(table);
    const int64_t hidden = rows.hidden();
    // The same rounding as a weight packed for many rows: tied embeddings then are one matrix
    // there.
    const bool round = precision_.weights == DataType::kBf16;
    ForRows(ids.size(), hidden, [&](int64_t r) {
      SWAA_CHECK(ids[r] >= 0 && ids[r] < rows.vocab()) << "token " << ids[r];
      rows.Read(ids[r], out + r * hidden);
      if (round) elementwise_.round_to_bf16(out + r * hidden, hidden);
    });
  }

  void RopeTable(std::span<const int32_t> positions, std::span<const float> inverse_frequencies,
                 float attention_factor, float* cos_sin) override {
    const auto half = static_cast<int64_t>(inverse_frequencies.size());
    ForRows(positions.size(), 16 * half, [&](int64_t r) {
      float* row = cos_sin + r * 2 * half;
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(positions[r]) * inverse_frequencies[i];
        row[i] = std::cos(angle) * attention_factor;
        row[half + i] = std::sin(angle) * attention_factor;
      }
    });
  }

  void RmsNorm(const RmsNormParams& p) override {
    const bool bf16 = precision_.activations == DataType::kBf16;
    const int64_t out_bytes = p.hidden * SizeOf(precision_.activations);
    ForRows(p.rows, p.hidden, [&](int64_t r) {
      elementwise_.rms_norm(p.x + r * p.hidden, p.weight, p.hidden, p.epsilon,
                            static_cast<std::byte*>(p.out) + r * out_bytes, bf16);
    });
  }

  void Linear(const LinearParams& p) override { linear_->Run(p); }

  void RopeAndStore(const RopeAndStoreParams& p) override {
    int64_t rows = 0;
    for (const SequenceRows& sequence : p.sequences) rows += sequence.query_count;
    const int64_t width = (p.heads + 2 * p.kv_heads) * static_cast<int64_t>(p.head_dim);
    ForRanges(threads_, rows, width,
              [&](int64_t first, int64_t last) { RopeAndStoreRange(p, first, last); });
  }

  void Attention(const AttentionParams& p) override {
    PrepareOpenMpThreads(threads_);
    cpu::Attention(p, attention_options());
  }

  void SiluMul(const void* gate_up, int64_t rows, int64_t width, void* out) override {
    const bool bf16 = precision_.activations == DataType::kBf16;
    const int64_t bytes = width * SizeOf(precision_.activations);
    ForRows(rows, 4 * width, [&](int64_t r) {
      const auto* gate = static_cast<const std::byte*>(gate_up) + r * 2 * bytes;
      elementwise_.silu_mul(gate, gate + bytes, width, static_cast<std::byte*>(out) + r * bytes,
                            bf16);
    });
  }

  void GatherRows(const float* x, std::span<const int32_t> rows, int64_t width,
                  float* out) override {
    ForRows(rows.size(), width, [&](int64_t r) {
      std::copy_n(x + static_cast<int64_t>(rows[r]) * width, width, out + r * width);
    });
  }

  void Finish() override {}

 private:
  CpuAttentionOptions attention_options() const {
    return {.instruction_set = set_,
            .kv = precision_.kv,
            .out = precision_.activations,
            .threads = threads_,
            .kernels = attention_};
  }

  template <typename Body>
  void ForRows(int64_t count, int64_t elements_per_row, const Body& body) {
    ForRanges(threads_, count, elements_per_row, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) body(r);
    });
  }

  // Rows first .. last - 1, counted over all sequences.
  void RopeAndStoreRange(const RopeAndStoreParams& p, int64_t first, int64_t last) {
    std::array<KeyValueRow, kPageTokens> pending;
    int64_t count = 0;
    int64_t before = 0;  // rows of the sequences that were passed
    for (const SequenceRows& sequence : p.sequences) {
      const int64_t begin = std::max<int64_t>(first - before, 0);
      const int64_t end = std::min<int64_t>(last - before, sequence.query_count);
      const int32_t* pages = p.page_table.Pages(sequence.slot, p.layer);
      for (int64_t r = begin; r < end; ++r) {
        pending[count++] = RotateRow(p, sequence.first_row + r, sequence.first_position + r, pages);
        if (count == kPageTokens) {
          StoreKeyValue(pending.data(), count, p.kv_heads, p.head_dim, attention_options());
          count = 0;
        }
      }
      before += sequence.query_count;
      if (before >= last) break;
    }
    if (count > 0) {
      StoreKeyValue(pending.data(), count, p.kv_heads, p.head_dim, attention_options());
    }
  }

  KeyValueRow RotateRow(const RopeAndStoreParams& p, int64_t row, int64_t position,
                        const int32_t* pages) {
    const int64_t head_dim = p.head_dim;
    float* q = p.qkv + row * (p.heads + 2 * p.kv_heads) * head_dim;
    float* k = q + p.heads * head_dim;
    const float* cos_sin = p.cos_sin + row * head_dim;
    if (p.rotate_queries) {
      for (int64_t h = 0; h < p.heads; ++h) {
        elementwise_.rope_head(q + h * head_dim, cos_sin, head_dim, p.q_norm, p.norm_epsilon);
      }
    }
    for (int64_t h = 0; h < p.kv_heads; ++h) {
      elementwise_.rope_head(k + h * head_dim, cos_sin, head_dim, p.k_norm, p.norm_epsilon);
    }
    const int32_t page = pages[position / kPageTokens];
    SWAA_CHECK_NE(page, kZeroPage)
        << "position " << position << " of layer " << p.layer << " has no page to be written to";
    return {.k = k,
            .v = k + p.kv_heads * head_dim,
            .page = p.pages.Page(page),
            .offset = static_cast<int32_t>(position % kPageTokens)};
  }

  InstructionSet set_;
  AttentionKernels attention_;
  Precision precision_;
  int threads_;
  const ElementwiseKernels& elementwise_;
  std::unique_ptr<CpuLinear> linear_;
};

absl::StatusOr<InstructionSet> ParseInstructionSet(const std::string& name) {
  if (name == "auto") return BestInstructionSet();
  std::string supported = "auto";
  for (InstructionSet set : SupportedInstructionSets()) {
    if (Name(set) == name) return set;
    absl::StrAppend(&supported, ", ", std::string(Name(set)));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("instruction set: this machine has no \"", name, "\"; it has ", supported));
}

absl::StatusOr<Precision> ParsePrecision(const std::string& dtype, InstructionSet set) {
  Precision precision;
  if (dtype == "f32") {
    precision = {DataType::kF32, DataType::kF32, DataType::kF32};
  } else if (dtype != "auto") {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype: unknown value \"", dtype, "\"; use auto or f32"));
  } else if (set < InstructionSet::kAvx512 || !HasBf16Products()) {
    precision = {DataType::kF32, DataType::kF32, DataType::kBf16};
  }
  return precision;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Operators>> CreateCpuOperators(const OperatorsOptions& options) {
  if (options.threads < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads: ", options.threads, " is negative; 0 takes all processors"));
  }
  SWAA_ASSIGN_OR_RETURN(const InstructionSet set, ParseInstructionSet(options.instruction_set));
  SWAA_ASSIGN_OR_RETURN(const Precision precision, ParsePrecision(options.dtype, set));
  const int threads = options.threads > 0 ? options.threads : AvailableProcessors();
  const AttentionKernels attention =
      MeasuredAttentionKernels(set, /*named=*/options.instruction_set != "auto", precision.kv);
  return std::make_unique<CpuOperators>(set, attention, precision, threads);
}

}  // namespace swaa::kernels::cpu
