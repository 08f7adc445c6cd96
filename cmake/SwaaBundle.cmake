# What is carried to another machine, as components of `cmake --install build`:
#
#   --component bundle --prefix DIR    server, GPU tests and benchmarks
#   --component server --prefix DIR    the server alone: what the container image is made of
#
# Both make a folder of programs (bin/) and the shared libraries that they need (lib/), which runs
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
  set_target_properties(${program} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib")
  # DT_RPATH: DT_RUNPATH would not hold for the libraries that libraries need.
  target_link_options(${program} PRIVATE -Wl,--disable-new-dtags)
endforeach()

# swaa_bundle(COMPONENT PROGRAM...)
function(swaa_bundle component)
  install(TARGETS ${ARGN}
    RUNTIME_DEPENDENCY_SET ${component}_libraries
    RUNTIME DESTINATION bin COMPONENT ${component})
  # glibc and the driver are the machine's, CUDA's libraries too.
  install(RUNTIME_DEPENDENCY_SET ${component}_libraries
    PRE_EXCLUDE_REGEXES
      [[^ld-linux]] [[^lib(c|m|dl|rt|pthread|resolv)\.so]] [[^libcuda\.so]]
      [[^libcublas(Lt)?\.so]] [[^libnccl\.so]] [[^libnvidia-]]
    LIBRARY DESTINATION lib COMPONENT ${component})
endfunction()
swaa_bundle(bundle ${bundle_programs})
swaa_bundle(server swaa)
