// NCCL, loaded when several GPUs are to share a model.

#include "kernels/cuda/ranks/nccl_library.h"

#include <dlfcn.h>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace swaa::kernels::cuda {
namespace {

constexpr char kFileName[] = "libnccl.so.2";

// By the system's rules (LD_LIBRARY_PATH, the program's own folders), then where CUDA's libraries
// are.
void* Open(std::string* error) {
  for (const char* folder :
       {"", SWAA_CUDA_LIBRARY_FOLDER "/", "/usr/local/cuda/lib64/", "/usr/local/cuda/lib/"}) {
    void* library = dlopen((std::string(folder) + kFileName).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) return library;
    if (error->empty()) *error = dlerror();
  }
  return nullptr;
}

absl::StatusOr<const NcclLibrary*> Load() {
  std::string error;
  void* library = Open(&error);
  if (library == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("tensor_parallel_size: ", kFileName,
                     ", by which GPUs tell each other anything, was not found, also not in "
                     "/usr/local/cuda (",
                     error,
                     "); install NCCL (libnccl2), add its folder to LD_LIBRARY_PATH, or "
                     "use 1"));
  }
  auto* const loaded = new NcclLibrary;
  std::string missing;
  const auto find = [&](const char* name, auto* function) {
    *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(library, name));
    if (*function == nullptr) missing = name;
  };
  find("ncclCommInitAll", &loaded->comm_init_all);
  find("ncclCommAbort", &loaded->comm_abort);
  find("ncclAllReduce", &loaded->all_reduce);
  find("ncclAllGather", &loaded->all_gather);
  find("ncclGetErrorString", &loaded->get_error_string);
  if (missing.empty()) return loaded;
  delete loaded;
  return absl::FailedPreconditionError(absl::StrCat("tensor_parallel_size: ", kFileName, " has no ",
                                                    missing, "; install a newer NCCL, or use 1"));
}

}  // namespace

absl::StatusOr<const NcclLibrary*> LoadNccl() {
  static const auto* const loaded = new absl::StatusOr<const NcclLibrary*>(Load());
  return *loaded;
}

}  // namespace swaa::kernels::cuda
