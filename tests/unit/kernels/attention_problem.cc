// Tests of kernels: random attention problems over pages.

#include "tests/unit/kernels/attention_problem.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <sstream>

#include "base/check.h"
#include "kernels/cpu/attention_plan.h"
#include "kernels/reference/attention.h"

namespace swaa::kernels {
namespace {

constexpr int32_t kLayers = 2;
constexpr int32_t kLayer = 1;
constexpr int32_t kSpareColumns = 24;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

int32_t PagesOf(const SequenceCase& sequence) {
  return (sequence.first_position + sequence.queries + kPageTokens - 1) / kPageTokens;
}

bool AnyVisible(const SequenceCase& sequence, int32_t page) {
  for (int32_t q = 0; q < sequence.queries; ++q) {
    for (int32_t key = page * kPageTokens; key < (page + 1) * kPageTokens; ++key) {
      if (reference::Visible(sequence.span, sequence.first_position + q, key)) return true;
    }
  }
  return false;
}

}  // namespace

AttentionProblem::AttentionProblem(const ProblemOptions& options,
                                   std::vector<SequenceCase> sequences, uint32_t seed)
    : options_(options), random_(seed), q_stride_(RowWidth() + kSpareColumns) {
  int32_t pages = 1;
  for (const SequenceCase& sequence : sequences) {
    pages += PagesOf(sequence);
    max_pages_ = std::max(max_pages_, PagesOf(sequence) + 2);
  }
  table_.assign(sequences.size() * kLayers * max_pages_, kZeroPage);
  free_pages_.resize(pages - 1);
  std::iota(free_pages_.begin(), free_pages_.end(), 1);
  std::shuffle(free_pages_.begin(), free_pages_.end(), random_);

  const HeadShape& shape = options_.shape;
  pool_.page_bytes = cpu::KvPageBytes(options_.kv, shape.kv_heads, shape.head_dim);
  pool_memory_.resize(pages * pool_.page_bytes + 64);
  const auto begin = reinterpret_cast<uintptr_t>(pool_memory_.data());
  pool_.base = pool_memory_.data() + (64 - begin % 64) % 64;
  FillPoolWithGarbage();
  for (const SequenceCase& sequence : sequences) AddSequence(sequence);
}

float AttentionProblem::Draw(bool round) {
  const float value = normal_(random_);
  return round ? ToFloat(ToBf16(value)) : value;
}

void AttentionProblem::FillPoolWithGarbage() {
  // Any bits whose exponent, in either type, is not that of infinity or NaN.
  auto* words = reinterpret_cast<uint32_t*>(pool_.base);
  const int64_t count = (pool_memory_.size() - 64) / 4;
  for (int64_t i = 0; i < count; ++i) words[i] = random_() & 0xbfffbfffu;
  // The page that invisible entries name is all NaN.
  std::fill_n(words, pool_.page_bytes / 4, 0xffffffffu);
}

void AttentionProblem::AddSequence(const SequenceCase& sequence_case) {
  const HeadShape& shape = options_.shape;
  Sequence sequence;
  sequence.what = sequence_case;
  sequence.slot = static_cast<int32_t>(sequences_.size());
  sequence.first_row = row_count_;
  row_count_ += sequence_case.queries;
  rows_.push_back({sequence.slot, static_cast<int32_t>(sequence.first_row), sequence_case.queries,
                   sequence_case.first_position});
  spans_.push_back(sequence_case.span);

  const int64_t keys = sequence_case.first_position + sequence_case.queries;
  const bool round = options_.kv == DataType::kBf16;
  sequence.k.resize(keys * shape.kv_heads * shape.head_dim);
  sequence.v.resize(sequence.k.size());
  for (float& x : sequence.k) x = Draw(round);
  for (float& x : sequence.v) x = Draw(round);
  q_.resize(row_count_ * q_stride_, kNan);
  for (int64_t row = sequence.first_row; row < row_count_; ++row) {
    for (int64_t c = 0; c < RowWidth(); ++c) {
      q_[row * q_stride_ + c] = options_.score_deviation * Draw(options_.round_queries);
    }
  }
  if (options_.score_slope != 0) {
    // Dimension 0 carries a constant query and a key that grows.
    for (int64_t row = sequence.first_row; row < row_count_; ++row) {
      for (int32_t h = 0; h < shape.heads; ++h) q_[row * q_stride_ + h * shape.head_dim] = 8;
    }
    const float step = options_.score_slope * std::sqrt(static_cast<float>(shape.head_dim)) / 8;
    for (int64_t key = 0; key < keys; ++key) {
      for (int32_t h = 0; h < shape.kv_heads; ++h) {
        sequence.k[(key * shape.kv_heads + h) * shape.head_dim] = ToFloat(ToBf16(step * key));
      }
    }
  }
  StorePages(sequence);
  ComputeExpected(sequence);
  sequences_.push_back(std::move(sequence));
}

void AttentionProblem::StorePages(const Sequence& sequence) {
  const HeadShape& shape = options_.shape;
  const int64_t keys = sequence.what.first_position + sequence.what.queries;
  const int64_t width = int64_t{shape.kv_heads} * shape.head_dim;
  int32_t* pages = table_.data() + (sequence.slot * kLayers + kLayer) * max_pages_;
  for (int32_t page = 0; page < PagesOf(sequence.what); ++page) {
    if (!AnyVisible(sequence.what, page)) continue;
    pages[page] = free_pages_.back();
    free_pages_.pop_back();
    std::vector<cpu::KeyValueRow> writes;
    for (int32_t offset = 0; offset < kPageTokens; ++offset) {
      const int64_t key = page * kPageTokens + offset;
      if (key >= keys) break;
      writes.push_back({sequence.k.data() + key * width, sequence.v.data() + key * width,
                        pool_.Page(pages[page]), offset});
    }
    cpu::StoreKeyValue(writes.data(), writes.size(), shape.kv_heads, shape.head_dim,
                       {.kv = options_.kv});
  }
}

void AttentionProblem::ComputeExpected(const Sequence& sequence) {
  const HeadShape& shape = options_.shape;
  std::vector<float> q;
  for (int64_t row = sequence.first_row; row < row_count_; ++row) {
    const float* begin = q_.data() + row * q_stride_;
    q.insert(q.end(), begin, begin + RowWidth());
  }
  const std::vector<double> out = reference::Attention(
      {q, sequence.k, sequence.v, sequence.what.first_position, sequence.what.span, shape.heads,
       shape.kv_heads, shape.head_dim, 1 / std::sqrt(static_cast<double>(shape.head_dim))});
  expected_.insert(expected_.end(), out.begin(), out.end());
}

std::vector<float> AttentionProblem::Run(const cpu::AttentionKernels& kernels,
                                         int32_t threads) const {
  const HeadShape& shape = options_.shape;
  const int64_t count = row_count_ * RowWidth();
  std::vector<float> out_f32(count, kNan);
  std::vector<Bf16> out_bf16(count, ToBf16(kNan));
  cpu::AttentionParams params;
  params.q = q_.data();
  params.out = options_.out == DataType::kF32 ? static_cast<void*>(out_f32.data())
                                              : static_cast<void*>(out_bf16.data());
  params.page_table = {table_.data(), kLayers, max_pages_};
  params.pages = pool_;
  params.layer = kLayer;
  const cpu::CpuAttentionOptions options = {
      .kv = options_.kv, .out = options_.out, .threads = threads, .kernels = kernels};
  cpu::AttentionPlan plan;
  cpu::PlanAttention(
      {.heads = shape.heads,
       .kv_heads = shape.kv_heads,
       .head_dim = shape.head_dim,
       .q_stride = q_stride_,
       .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)))},
      rows_, spans_, options, &plan);
  cpu::Attention(plan, params, options);
  if (options_.out == DataType::kBf16) {
    std::transform(out_bf16.begin(), out_bf16.end(), out_f32.begin(), ToFloat);
  }
  return out_f32;
}

Errors AttentionProblem::Compare(const std::vector<float>& out) const {
  const HeadShape& shape = options_.shape;
  SWAA_CHECK_EQ(out.size(), expected_.size());
  Errors errors;
  double difference = 0, norm = 0;
  for (size_t begin = 0; begin < out.size(); begin += shape.head_dim) {
    double row_difference = 0, row_norm = 0;
    for (size_t i = begin; i < begin + shape.head_dim; ++i) {
      row_difference += (out[i] - expected_[i]) * (out[i] - expected_[i]);
      row_norm += expected_[i] * expected_[i];
    }
    difference += row_difference;
    norm += row_norm;
    double error = std::sqrt(row_difference / row_norm);
    if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
    if (error > errors.worst_row) {
      errors.worst_row = error;
      std::ostringstream where;
      const int64_t row = begin / RowWidth();
      for (const Sequence& sequence : sequences_) {
        const int64_t query = row - sequence.first_row;
        if (query < 0 || query >= sequence.what.queries) continue;
        where << "position " << sequence.what.first_position + query << " of a sequence from "
              << sequence.what.first_position << ", " << sequence.what.queries
              << " queries, window " << sequence.what.span.window << ", sinks "
              << sequence.what.span.sinks << ", head " << begin % RowWidth() / shape.head_dim;
      }
      errors.worst_where = where.str();
    }
  }
  errors.total = std::sqrt(difference / norm);
  if (std::isnan(errors.total)) errors.total = std::numeric_limits<double>::infinity();
  return errors;
}

}  // namespace swaa::kernels
