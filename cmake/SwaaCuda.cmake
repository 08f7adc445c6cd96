# The CUDA backend is built where there is a CUDA compiler; without one the build makes the CPU server.
# SWAA_CUDA: ON (an error without a compiler), OFF, or AUTO.
set(SWAA_CUDA AUTO CACHE STRING "Build the CUDA backend: ON, OFF or AUTO (where a compiler is found)")
set_property(CACHE SWAA_CUDA PROPERTY STRINGS AUTO ON OFF)
set(SWAA_HAVE_CUDA OFF)
if(SWAA_CUDA STREQUAL "OFF" OR SWAA_SANITIZE)
  # Sanitizers of the host see nothing of a GPU.
  return()
endif()

include(CheckLanguage)
if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  # In PATH, where CUDA's installer puts it, or where tools/setup does.
  if(DEFINED ENV{XDG_CACHE_HOME})
    set(swaa_cache $ENV{XDG_CACHE_HOME}/swaa)
  else()
    set(swaa_cache $ENV{HOME}/.cache/swaa)
  endif()
  find_program(SWAA_NVCC nvcc PATHS /usr/local/cuda/bin ${swaa_cache}/cuda/bin)
  if(SWAA_NVCC)
    file(REAL_PATH ${SWAA_NVCC} CMAKE_CUDA_COMPILER)
  endif()
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  # Ampere and newer by mma.sync; Hopper's own instructions (wgmma, TMA, setmaxnreg) need 90a.
  set(CMAKE_CUDA_ARCHITECTURES "80-real;90a-real" CACHE STRING "GPU architectures")
endif()
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(SWAA_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SWAA_CUDA=ON, but no CUDA compiler was found: put nvcc into PATH, or give "
                        "-DCMAKE_CUDA_COMPILER=.../nvcc")
  endif()
  message(STATUS "No CUDA compiler: building the CPU server")
  return()
endif()
enable_language(CUDA)
# CMake 3.25 does not know nvcc's flag.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_FLAGS_RELWITHDEBINFO "-O3 -lineinfo")
if(CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
find_package(CUDAToolkit REQUIRED)
set(SWAA_HAVE_CUDA ON)
# Several GPUs share a model by NCCL (libnccl-dev, or among the toolkit's headers); without its header
# the build makes the one-GPU server.
find_path(SWAA_NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
if(NOT SWAA_NCCL_INCLUDE_DIR)
  message(STATUS "No nccl.h: building the one-GPU server")
endif()
# cuBLASLt is a shared library: binaries look for it beside themselves, then in the toolkit.
set(CMAKE_BUILD_RPATH "$ORIGIN/../lib")

# CUDA's own headers are not held to our warnings; ours are.
add_compile_options(
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wno-unused-parameter,-Wno-missing-field-initializers;-Werror=all-warnings;--expt-relaxed-constexpr>")
