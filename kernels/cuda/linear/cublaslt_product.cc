// cuBLASLt thinks in columns: our row-major out [rows, out_features] is its column-major
// D [out_features, rows], x its B [in_features, rows], and the weight its A, transposed.

#include "kernels/cuda/linear/cublaslt_product.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/linear/add_bias.h"
#include "kernels/cuda/linear/cublaslt_library.h"

namespace swaa::kernels::cuda {
namespace {

constexpr int kMaxCandidates = 8;
constexpr int kRounds = 7;
// From here on a weight left in L2 does not decide, but the power that a kernel draws does: it is
// timed at work, several runs on end.
constexpr int64_t kRowsAtWork = 1024;
constexpr int kRunsAtWork = 4;
// The library's first guess is kept unless another is faster by more than timing is sure of.
constexpr float kWorthwhile = 0.98f;

// Create has seen that it can be loaded.
const CublasLtLibrary& Library() {
  static const CublasLtLibrary& library = *LoadCublasLt().value();
  return library;
}

void Check(cublasStatus_t status, const std::string& what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw CudaError(cudaErrorUnknown,
                  absl::StrCat("cuBLASLt: ", Library().get_status_string(status), ": ", what));
}

std::string Describe(const LinearArguments& product) {
  return absl::StrCat("product of ", product.rows, " rows, ", product.in_features, " -> ",
                      product.out_features, product.out_type == DataType::kF32 ? ", f32" : ", bf16",
                      product.bias != nullptr ? " with bias" : "");
}

cudaDataType_t CudaType(DataType type) { return type == DataType::kF32 ? CUDA_R_32F : CUDA_R_16BF; }

template <typename T>
void Set(cublasLtMatmulDescOpaque_t& description, cublasLtMatmulDescAttributes_t attribute,
         T value) {
  Check(Library().matmul_desc_set_attribute(&description, attribute, &value, sizeof(value)),
        "attribute of a product");
}

template <typename T>
void Set(cublasLtMatmulPreferenceOpaque_t& preference,
         cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  Check(Library().matmul_preference_set_attribute(&preference, attribute, &value, sizeof(value)),
        "preference of a product");
}

class Event {
 public:
  Event() { SWAA_CUDA_CHECK(cudaEventCreate(&event_)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

int64_t RowsBucket(int64_t rows) {
  const int64_t step = rows <= 256 ? 32 : rows <= 1024 ? 128 : 1024;
  return (rows + step - 1) / step * step;
}

// The library's descriptions of a product and its matrices.
struct CublasLtProducts::Operands {
  Operands(const LinearArguments& product, bool bias_in_epilogue) {
    Check(Library().matmul_desc_init(&description, sizeof(description), CUBLAS_COMPUTE_32F,
                                     CUDA_R_32F),
          "description");
    Set(description, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    if (bias_in_epilogue) {
      Set(description, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      Set(description, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, int32_t{CUDA_R_32F});
      Set(description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(product.bias));
    }
    Check(Library().matrix_layout_init(&weight, sizeof(weight), CUDA_R_16BF, product.in_features,
                                       product.out_features, product.in_features),
          "layout of the weight");
    Check(Library().matrix_layout_init(&x, sizeof(x), CUDA_R_16BF, product.in_features,
                                       product.rows, product.stride()),
          "layout of x");
    Check(Library().matrix_layout_init(&out, sizeof(out), CudaType(product.out_type),
                                       product.out_features, product.rows, product.out_features),
          "layout of out");
  }

  cublasLtMatmulDescOpaque_t description;
  cublasLtMatrixLayoutOpaque_t weight, x, out;
};

// Operands for timing, and what drives weights out of L2.
class CublasLtProducts::Scratch {
 public:
  ~Scratch() {
    cudaFree(memory_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  absl::Status Allocate(const LinearArguments& product, int64_t max_rows) {
    int device = 0;
    int l2_bytes = 0;
    SWAA_CUDA_CHECK(cudaGetDevice(&device));
    SWAA_CUDA_CHECK(cudaDeviceGetAttribute(&l2_bytes, cudaDevAttrL2CacheSize, device));
    SWAA_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    x_bytes_ = (max_rows * product.stride() * SizeOf(DataType::kBf16) + 255) / 256 * 256;
    flush_bytes_ = 2 * l2_bytes;
    out_bytes_ = max_rows * product.out_features * SizeOf(product.out_type);
    // What is flushed with may be what is written to.
    const int64_t bytes = x_bytes_ + std::max(flush_bytes_, out_bytes_);
    SWAA_RETURN_IF_ERROR(
        CudaStatus(cudaMalloc(&memory_, bytes),
                   absl::StrCat("timing a ", Describe(product), ": allocating ", bytes, " bytes")));
    // Any ordinary number; zeros would draw less power.
    SWAA_CUDA_CHECK(cudaMemsetAsync(memory_, 0x3c, x_bytes_, stream_));
    return absl::OkStatus();
  }

  void FlushL2() const { SWAA_CUDA_CHECK(cudaMemsetAsync(out(), 0, flush_bytes_, stream_)); }

  const Bf16* x() const { return static_cast<const Bf16*>(memory_); }
  void* out() const { return static_cast<char*>(memory_) + x_bytes_; }
  cudaStream_t stream() const { return stream_; }

 private:
  void* memory_ = nullptr;
  cudaStream_t stream_ = nullptr;
  int64_t x_bytes_ = 0;
  int64_t flush_bytes_ = 0;
  int64_t out_bytes_ = 0;
};

absl::StatusOr<std::unique_ptr<CublasLtProducts>> CublasLtProducts::Create(
    void* workspace, int64_t workspace_bytes) {
  SWAA_RETURN_IF_ERROR(LoadCublasLt().status());
  cublasLtHandle_t handle = nullptr;
  const cublasStatus_t status = Library().create(&handle);
  if (status != CUBLAS_STATUS_SUCCESS) {
    return absl::InternalError(
        absl::StrCat("cuBLASLt cannot be used: ", Library().get_status_string(status)));
  }
  return std::unique_ptr<CublasLtProducts>(
      new CublasLtProducts(handle, workspace, workspace_bytes));
}

CublasLtProducts::~CublasLtProducts() { Library().destroy(handle_); }

// The library's best guesses, best first; with the bias in the epilogue where it can.
std::vector<CublasLtProducts::Plan> CublasLtProducts::Candidates(const LinearArguments& product,
                                                                 int count) const {
  cublasLtMatmulPreferenceOpaque_t preference;
  Check(Library().matmul_preference_init(&preference, sizeof(preference)), "preference");
  Set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
      static_cast<uint64_t>(workspace_bytes_));
  // Parts of a sum are added in f32 and in a fixed order.
  Set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  for (const auto alignment :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    Set(preference, alignment, uint32_t{16});
  }
  std::vector<cublasLtMatmulHeuristicResult_t> results(count);
  std::vector<Plan> plans;
  for (const bool bias_in_epilogue : {true, false}) {
    if (bias_in_epilogue && product.bias == nullptr) continue;
    Operands operands(product, bias_in_epilogue);
    int found = 0;
    const cublasStatus_t status = Library().matmul_algo_get_heuristic(
        handle_, &operands.description, &operands.weight, &operands.x, &operands.out, &operands.out,
        &preference, count, results.data(), &found);
    if (status != CUBLAS_STATUS_SUCCESS) continue;
    for (int i = 0; i < found; ++i) {
      if (results[i].state != CUBLAS_STATUS_SUCCESS) continue;
      plans.push_back({results[i].algo, bias_in_epilogue});
    }
    if (!plans.empty()) break;
  }
  return plans;
}

cublasStatus_t CublasLtProducts::TryRun(const LinearArguments& product, const Plan& plan,
                                        cudaStream_t stream) const {
  Operands operands(product, plan.bias_in_epilogue);
  const float one = 1;
  const float zero = 0;
  const cublasStatus_t status =
      Library().matmul(handle_, &operands.description, &one, product.weight, &operands.weight,
                       product.x, &operands.x, &zero, product.out, &operands.out, product.out,
                       &operands.out, &plan.algorithm, workspace_, workspace_bytes_, stream);
  if (status == CUBLAS_STATUS_SUCCESS && product.bias != nullptr && !plan.bias_in_epilogue) {
    AddBias(product.out, product.out_type, product.bias, product.rows, product.out_features,
            stream);
  }
  return status;
}

float CublasLtProducts::Milliseconds(const LinearArguments& product, const Plan& plan,
                                     const Scratch& scratch) const {
  const cudaStream_t stream = scratch.stream();
  const Event begin, end;
  const bool at_work = product.rows > kRowsAtWork;
  // What comes first keeps the stream busy while what is timed is enqueued.
  if (at_work) {
    Check(TryRun(product, plan, stream), Describe(product));
  } else {
    scratch.FlushL2();
  }
  SWAA_CUDA_CHECK(cudaEventRecord(begin.get(), stream));
  for (int run = 0; run < (at_work ? kRunsAtWork : 1); ++run) {
    Check(TryRun(product, plan, stream), Describe(product));
  }
  SWAA_CUDA_CHECK(cudaEventRecord(end.get(), stream));
  SWAA_CUDA_CHECK(cudaEventSynchronize(end.get()));
  float milliseconds = 0;
  SWAA_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()));
  return milliseconds;
}

absl::StatusOr<CublasLtProducts::Plan> CublasLtProducts::Fastest(const LinearArguments& product,
                                                                 const Scratch& scratch) const {
  std::vector<Plan> plans;
  for (const Plan& plan : Candidates(product, kMaxCandidates)) {
    // The first run loads the kernel.
    if (TryRun(product, plan, scratch.stream()) == CUBLAS_STATUS_SUCCESS) plans.push_back(plan);
  }
  if (plans.empty()) {
    return absl::InternalError(absl::StrCat("cuBLASLt has no algorithm for a ", Describe(product)));
  }
  // In turn, so that the card is as hot for one as for the other.
  std::vector<std::array<float, kRounds>> times(plans.size());
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < plans.size(); ++i) {
      times[i][round] = Milliseconds(product, plans[i], scratch);
    }
  }
  size_t fastest = 0;
  float limit = 0;
  for (size_t i = 0; i < plans.size(); ++i) {
    std::nth_element(times[i].begin(), times[i].begin() + kRounds / 2, times[i].end());
    const float median = times[i][kRounds / 2];
    if (i > 0 && median >= limit) continue;
    fastest = i;
    limit = i == 0 ? median * kWorthwhile : median;
  }
  return plans[fastest];
}

absl::Status CublasLtProducts::Prepare(const LinearArguments& product,
                                       std::span<const int64_t> rows) {
  std::map<Key, LinearArguments> wanted;
  int64_t max_rows = 0;
  for (const int64_t count : rows) {
    LinearArguments bucket = product;
    bucket.rows = RowsBucket(count);
    const Key key = {bucket.out_features, bucket.in_features, bucket.rows, bucket.out_type,
                     bucket.bias != nullptr};
    if (plans_.contains(key)) continue;
    wanted[key] = bucket;
    max_rows = std::max(max_rows, bucket.rows);
  }
  if (wanted.empty()) return absl::OkStatus();
  Scratch scratch;
  SWAA_RETURN_IF_ERROR(scratch.Allocate(product, max_rows));
  for (auto& [key, bucket] : wanted) {
    bucket.x = scratch.x();
    bucket.out = scratch.out();
    SWAA_ASSIGN_OR_RETURN(plans_[key], Fastest(bucket, scratch));
  }
  return absl::OkStatus();
}

const CublasLtProducts::Plan& CublasLtProducts::PlanOf(const LinearArguments& product) {
  Key key = {product.out_features, product.in_features, product.rows, product.out_type,
             product.bias != nullptr};
  if (!exact_.empty()) {
    const auto exact = exact_.find(key);
    if (exact != exact_.end()) return exact->second;
  }
  LinearArguments bucket = product;
  bucket.rows = key.rows = RowsBucket(product.rows);
  const auto known = plans_.find(key);
  if (known != plans_.end()) return known->second;
  const std::vector<Plan> guesses = Candidates(bucket, 1);
  if (guesses.empty()) Check(CUBLAS_STATUS_NOT_SUPPORTED, Describe(bucket));
  return plans_.emplace(key, guesses.front()).first->second;
}

void CublasLtProducts::Run(const LinearArguments& product, cudaStream_t stream) {
  SWAA_CHECK(!product.silu_mul);
  cublasStatus_t status = TryRun(product, PlanOf(product), stream);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
    // What suits the largest count of a range may not suit this one.
    const std::vector<Plan> guesses = Candidates(product, 1);
    if (!guesses.empty()) {
      const Key key = {product.out_features, product.in_features, product.rows, product.out_type,
                       product.bias != nullptr};
      status = TryRun(product, exact_[key] = guesses.front(), stream);
    }
  }
  Check(status, Describe(product));
}

}  // namespace swaa::kernels::cuda
