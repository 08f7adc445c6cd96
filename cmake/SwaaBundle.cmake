# The portable bundle: `cmake --install build --component bundle --prefix DIR` makes a folder of
# server, GPU tests and benchmarks (bin/) and the shared libraries that they need (lib/), which runs
# on any machine with glibc 2.36 or newer; on a GPU with NVIDIA's driver and CUDA's libraries, which
# are looked for where CUDA's installer puts them.
set(bundle_programs swaa)
if(SWAA_HAVE_CUDA AND SWAA_BUILD_TESTS)
  list(APPEND bundle_programs swaa_gpu_test)
endif()
if(SWAA_HAVE_CUDA AND SWAA_BUILD_BENCH)
  list(APPEND bundle_programs swaa_gpu_bench)
endif()
foreach(program IN LISTS bundle_programs)
  set_target_properties(${program} PROPERTIES
    INSTALL_RPATH "$ORIGIN/../lib:/usr/local/cuda/lib64:/usr/local/cuda/lib")
endforeach()
install(TARGETS ${bundle_programs}
  RUNTIME_DEPENDENCY_SET bundle_libraries
  RUNTIME DESTINATION bin COMPONENT bundle)
# glibc and the driver are the machine's, CUDA's libraries too.
install(RUNTIME_DEPENDENCY_SET bundle_libraries
  PRE_EXCLUDE_REGEXES
    [[^ld-linux]] [[^lib(c|m|dl|rt|pthread|resolv)\.so]] [[^libcuda\.so]] [[^libcublas(Lt)?\.so]]
    [[^libnccl\.so]] [[^libnvidia-]]
  LIBRARY DESTINATION lib COMPONENT bundle)
