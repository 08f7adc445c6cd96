# What the CUDA attention kernels share with the host. Needs neither a CUDA compiler nor a GPU.
swaa_test(visited_tiles_test
  SOURCES visited_tiles_test.cc
  DEPENDS swaa_kernels
  LABELS unit)
swaa_test(prefill_plan_test
  SOURCES prefill_plan_test.cc ${PROJECT_SOURCE_DIR}/kernels/cuda/attention/prefill_plan.cc
  DEPENDS swaa_kernels
  LABELS unit)
# Spilled registers show nowhere else.
if(SWAA_HAVE_CUDA)
  add_test(NAME cuda_attention_resources_test
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cuda_kernel_resources.py
            ${CMAKE_CURRENT_SOURCE_DIR}/cuda_attention_limits.txt
            $<TARGET_OBJECTS:swaa_cuda_attention_hopper> $<TARGET_OBJECTS:swaa_cuda_attention_portable>
    COMMAND_EXPAND_LISTS)
  swaa_test(cuda_attention_limits_test
    SOURCES cuda_attention_limits_test.cc
    DEPENDS swaa_cuda_attention
    LABELS unit)
else()
  add_test(NAME cuda_attention_resources_test
    COMMAND ${CMAKE_COMMAND} -E echo "SKIPPED: this build has no CUDA backend")
  set_tests_properties(cuda_attention_resources_test PROPERTIES SKIP_REGULAR_EXPRESSION "SKIPPED")
endif()
set_tests_properties(cuda_attention_resources_test PROPERTIES LABELS unit)
