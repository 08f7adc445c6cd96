// Matrix products by oneDNN, versions 2 and 3.

#include "kernels/cpu/onednn_matmul.h"

#include <algorithm>
#include <map>
#include <new>
#include <omp.h>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/region_errors.h"

namespace swaa::kernels::cpu {
namespace {

using dnnl::memory;

// The layout is chosen for so many rows. Output features are packed in pieces that are a multiple
// of any column block.
constexpr int64_t kLayoutRows = 512;
constexpr int64_t kPackRows = 1024;
constexpr int64_t kReadRows = 32;

memory::data_type TypeOf(DataType type) {
  return type == DataType::kF32 ? memory::data_type::f32 : memory::data_type::bf16;
}

memory::desc RowMajor(int64_t rows, int64_t columns, DataType type) {
  return memory::desc({rows, columns}, TypeOf(type), memory::format_tag::ab);
}

dnnl::matmul::primitive_desc Describe(const dnnl::engine& engine, const memory::desc& x,
                                      const memory::desc& weight, const memory::desc* bias,
                                      const memory::desc& out, const dnnl::primitive_attr& attr) {
#if DNNL_VERSION_MAJOR >= 3
  if (bias != nullptr) return {engine, x, weight, *bias, out, attr};
  return {engine, x, weight, out, attr};
#else
  if (bias != nullptr) return {dnnl::matmul::desc(x, weight, *bias, out), attr, engine};
  return {dnnl::matmul::desc(x, weight, out), attr, engine};
#endif
}

// What skinny_bf16_product.h wants to know of oneDNN's descriptor of a [in, out] weight.
PairBlockedLayout LayoutOf(const memory::desc& desc, DataType type) {
#if DNNL_VERSION_MAJOR >= 3
  if (desc.get_format_kind() != memory::format_kind::blocked) return {};
  const int count = desc.get_inner_nblks();
  const memory::dims blocks = desc.get_inner_blks(), indices = desc.get_inner_idxs();
  const memory::dims strides = desc.get_strides();
#else
  if (desc.data.format_kind != dnnl_blocked) return {};
  const auto& blocking = desc.data.format_desc.blocking;
  const int count = blocking.inner_nblks;
  const auto *blocks = blocking.inner_blks, *indices = blocking.inner_idxs;
  const auto* strides = blocking.strides;
#endif
  const bool bf16 = type == DataType::kBf16;
  if (count != (bf16 ? 3 : 2) || indices[0] != 0 || indices[1] != 1) return {};
  if (bf16 && (indices[2] != 0 || blocks[2] != 2)) return {};
  const int64_t columns = blocks[1];
  const int64_t in_block = blocks[0] * (bf16 ? 2 : 1);
  // The blocks of `in` must follow one another.
  if (columns % 16 != 0 || columns > 64 || strides[0] != in_block * columns) return {};
  return {.column_block = columns, .block_stride = strides[1]};
}

class OneDnnWeight : public PackedWeight {
 public:
  OneDnnWeight(const memory::desc& desc, DataType type, int64_t out_features, int64_t in_features,
               std::shared_ptr<const std::byte> data)
      : desc_(desc),
        out_features_(out_features),
        in_features_(in_features),
        layout_(LayoutOf(desc_, type)),
        data_(std::move(data)) {}

  int64_t out_features() const override { return out_features_; }
  int64_t in_features() const override { return in_features_; }
  int64_t bytes() const override { return static_cast<int64_t>(desc_.get_size()); }
  const void* data() const override { return data_.get(); }
  const PairBlockedLayout& layout() const override { return layout_; }
  const memory::desc& desc() const { return desc_; }

 private:
  memory::desc desc_;
  int64_t out_features_;
  int64_t in_features_;
  PairBlockedLayout layout_;
  std::shared_ptr<const std::byte> data_;
};

// A lack of memory is called the same, whoever met it.
void ThrowIfOutOfMemory(const dnnl::error& error) {
  if (error.status == dnnl_out_of_memory) throw std::bad_alloc();
}

// A primitive with the memory objects of its arguments; their pointers change from call to call.
struct CachedProduct {
  dnnl::matmul primitive;
  std::string implementation;
  memory x, weight, bias, out, scratch;
  int64_t scratch_bytes = 0;
  std::unordered_map<int, memory> arguments;
};

class OneDnnMatmulImpl : public OneDnnMatmul {
 public:
  explicit OneDnnMatmulImpl(DataType type)
      : type_(type), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {}

  absl::StatusOr<std::unique_ptr<PackedWeight>> Pack(int64_t out_features, int64_t in_features,
                                                     const RowReader& read_rows) override {
    try {
      return PackOrThrow(out_features, in_features, read_rows);
    } catch (const dnnl::error& error) {
      ThrowIfOutOfMemory(error);
      return absl::InternalError(absl::StrCat("oneDNN cannot pack a weight of ", out_features,
                                              " x ", in_features, ": ", error.what()));
    }
  }

  void Run(const LinearParams& params, int64_t rows) override {
    try {
      RunOrThrow(params, rows);
    } catch (const dnnl::error& error) {
      ThrowIfOutOfMemory(error);
      throw;
    }
  }

  std::string Implementation(const LinearParams& params, int64_t rows) override {
    return Find(params, rows).implementation;
  }

 private:
  // in, out, rows, bias, out_type
  using Key = std::tuple<int64_t, int64_t, int64_t, bool, DataType>;

  void RunOrThrow(const LinearParams& params, int64_t rows) {
    CachedProduct& product = Find(params, rows);
    const auto& weight = static_cast<const OneDnnWeight&>(*params.weight);
    product.x.set_data_handle(const_cast<void*>(params.x));
    product.weight.set_data_handle(const_cast<void*>(weight.data()));
    product.out.set_data_handle(params.out);
    if (params.bias != nullptr) product.bias.set_data_handle(const_cast<float*>(params.bias));
    product.scratch.set_data_handle(scratch_ == nullptr ? nullptr : scratch_->data());
    product.primitive.execute(stream_, product.arguments);
    stream_.wait();
  }

  memory::desc WeightDesc(int64_t out_features, int64_t in_features) {
    const memory::desc any({in_features, out_features}, TypeOf(type_), memory::format_tag::any);
    return Describe(engine_, RowMajor(kLayoutRows, in_features, type_), any, nullptr,
                    RowMajor(kLayoutRows, out_features, DataType::kF32), {})
        .weights_desc();
  }

  absl::StatusOr<std::unique_ptr<PackedWeight>> PackOrThrow(int64_t out_features,
                                                            int64_t in_features,
                                                            const RowReader& read_rows) {
    const memory::desc desc = WeightDesc(out_features, in_features);
    SWAA_ASSIGN_OR_RETURN(auto data, memory_.Allocate(static_cast<int64_t>(desc.get_size())));
    const int64_t piece_rows = std::min(kPackRows, out_features);
    SWAA_ASSIGN_OR_RETURN(auto piece, AllocateBuffer(piece_rows * in_features * 4));
    auto* values = reinterpret_cast<float*>(piece->data());
    for (int64_t first = 0; first < out_features; first += piece_rows) {
      const int64_t count = std::min(piece_rows, out_features - first);
      RegionErrors errors;
#pragma omp parallel for schedule(dynamic)
      for (int64_t row = 0; row < count; row += kReadRows) {
        errors.Run([&] {
          read_rows(first + row, std::min(kReadRows, count - row), values + row * in_features);
        });
      }
      errors.Rethrow();
      memory source({{in_features, count}, memory::data_type::f32, memory::format_tag::ba}, engine_,
                    values);
      memory target(desc.submemory_desc({in_features, count}, {0, first}), engine_, data.get());
      dnnl::reorder(source, target).execute(stream_, source, target);
      stream_.wait();
    }
    return std::make_unique<OneDnnWeight>(desc, type_, out_features, in_features, std::move(data));
  }

  CachedProduct& Find(const LinearParams& params, int64_t rows) {
    const auto& weight = static_cast<const OneDnnWeight&>(*params.weight);
    const Key key{weight.in_features(), weight.out_features(), rows, params.bias != nullptr,
                  params.out_type};
    auto found = products_.find(key);
    if (found == products_.end()) {
      found = products_.emplace(key, Make(params, weight, rows)).first;
    }
    return found->second;
  }

  CachedProduct Make(const LinearParams& params, const OneDnnWeight& weight, int64_t rows) {
    const memory::desc x = RowMajor(rows, weight.in_features(), type_);
    const memory::desc out = RowMajor(rows, weight.out_features(), params.out_type);
    const memory::desc bias = RowMajor(1, weight.out_features(), DataType::kF32);
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    const auto description =
        Describe(engine_, x, weight.desc(), params.bias == nullptr ? nullptr : &bias, out, attr);
    CachedProduct product;
    product.primitive = dnnl::matmul(description);
    product.implementation = description.impl_info_str();
    product.x = memory(x, engine_, nullptr);
    product.weight = memory(weight.desc(), engine_, nullptr);
    product.out = memory(out, engine_, nullptr);
    product.scratch = memory(description.scratchpad_desc(), engine_, nullptr);
    product.arguments = {{DNNL_ARG_SRC, product.x},
                         {DNNL_ARG_WEIGHTS, product.weight},
                         {DNNL_ARG_DST, product.out},
                         {DNNL_ARG_SCRATCHPAD, product.scratch}};
    if (params.bias != nullptr) {
      product.bias = memory(bias, engine_, nullptr);
      product.arguments.emplace(DNNL_ARG_BIAS, product.bias);
    }
    product.scratch_bytes = static_cast<int64_t>(description.scratchpad_desc().get_size());
    GrowScratch(product.scratch_bytes);
    return product;
  }

  // One scratchpad, as large as the largest that any primitive asks for.
  void GrowScratch(int64_t bytes) {
    if (scratch_ != nullptr && scratch_->bytes() >= bytes) return;
    auto grown = AllocateBuffer(bytes);
    if (!grown.ok()) throw std::bad_alloc();
    scratch_ = std::move(*grown);
  }

  DataType type_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  SliceAllocator memory_;  // of weights
  std::unique_ptr<Buffer> scratch_;
  std::map<Key, CachedProduct> products_;
};

}  // namespace

std::unique_ptr<OneDnnMatmul> OneDnnMatmul::Create(DataType type) {
  return std::make_unique<OneDnnMatmulImpl>(type);
}

}  // namespace swaa::kernels::cpu
