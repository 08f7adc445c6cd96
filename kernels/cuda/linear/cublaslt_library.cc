// cuBLASLt, loaded when it is needed.

#include "kernels/cuda/linear/cublaslt_library.h"

#include <dlfcn.h>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace swaa::kernels::cuda {
namespace {

std::string FileName() { return absl::StrCat("libcublasLt.so.", CUBLAS_VER_MAJOR); }

// By the system's rules (LD_LIBRARY_PATH, the program's own folders), then where CUDA's installer
// puts it.
void* Open(std::string* error) {
  for (const char* folder :
       {"", SWAA_CUDA_LIBRARY_FOLDER "/", "/usr/local/cuda/lib64/", "/usr/local/cuda/lib/"}) {
    void* library = dlopen((folder + FileName()).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) return library;
    if (error->empty()) *error = dlerror();
  }
  return nullptr;
}

absl::StatusOr<const CublasLtLibrary*> Load() {
  std::string error;
  void* library = Open(&error);
  if (library == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(FileName(), ": not found, also not in /usr/local/cuda (", error,
                     "); install CUDA's libraries, add their folder to LD_LIBRARY_PATH, or use "
                     "--device cpu"));
  }
  auto* const loaded = new CublasLtLibrary;
  std::string missing;
  const auto find = [&](const char* name, auto* function) {
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(library, name));
    if (*function == nullptr) missing = name;
  };
  find("cublasLtCreate", &loaded->create);
  find("cublasLtDestroy", &loaded->destroy);
  find("cublasLtGetStatusString", &loaded->get_status_string);
  find("cublasLtMatmul", &loaded->matmul);
  find("cublasLtMatmulAlgoGetHeuristic", &loaded->matmul_algo_get_heuristic);
  find("cublasLtMatmulDescInit_internal", &loaded->matmul_desc_init);
  find("cublasLtMatmulDescSetAttribute", &loaded->matmul_desc_set_attribute);
  find("cublasLtMatmulPreferenceInit_internal", &loaded->matmul_preference_init);
  find("cublasLtMatmulPreferenceSetAttribute", &loaded->matmul_preference_set_attribute);
  find("cublasLtMatrixLayoutInit_internal", &loaded->matrix_layout_init);
  if (missing.empty()) return loaded;
  delete loaded;
  return absl::FailedPreconditionError(absl::StrCat(FileName(), ": has no ", missing,
                                                    "; install CUDA ", CUBLAS_VER_MAJOR,
                                                    "'s libraries, or use --device cpu"));
}

}  // namespace

absl::StatusOr<const CublasLtLibrary*> LoadCublasLt() {
  static const auto* const loaded = new absl::StatusOr<const CublasLtLibrary*>(Load());
  return *loaded;
}

}  // namespace swaa::kernels::cuda
