# Attention of the CPU backend against the double-precision reference.
swaa_test(attention_test
  SOURCES attention_test.cc attention_problem.cc
  DEPENDS swaa_kernels_cpu_attention swaa_kernels_reference_attention
  LABELS unit)
swaa_test(attention_choice_test
  SOURCES attention_choice_test.cc
  DEPENDS swaa_kernels_cpu_attention
  LABELS unit)
swaa_test(store_key_value_test
  SOURCES store_key_value_test.cc
  DEPENDS swaa_kernels_cpu_attention
  LABELS unit)
# Instrumentation adds shared symbols of its own.
if(NOT SWAA_SANITIZE)
  add_test(NAME attention_isolated_objects_test
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/isolated_objects_test.sh
            $<TARGET_OBJECTS:swaa_kernels_cpu_attention>
    COMMAND_EXPAND_LISTS)
  set_tests_properties(attention_isolated_objects_test PROPERTIES LABELS unit)
endif()
