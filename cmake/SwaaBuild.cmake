# Compiler settings and the two functions that every folder uses to declare its targets.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
# -O2 with line tables only: the full debug information of gRPC's headers would double the build time.
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

# The lowest CPU that the binary runs on; kernels/cpu adds newer instruction sets file by file.
add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-march=x86-64-v2>")
# Designated initialisers leave the defaults out on purpose.
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Werror;-Wno-unused-parameter;-Wno-missing-field-initializers>")
if(SWAA_SANITIZE)
  add_compile_options(-fsanitize=${SWAA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  # GCC's manual: the instrumented code makes this warning see what is not there.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-Wno-maybe-uninitialized)
  endif()
  add_link_options(-fsanitize=${SWAA_SANITIZE})
endif()

# swaa_library(NAME SOURCES ... DEPENDS ...): a static library, or an interface one when it has no
# sources. Includes are written from the repository's root.
function(swaa_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  if(ARG_SOURCES)
    add_library(${name} STATIC ${ARG_SOURCES})
    target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
    target_link_libraries(${name} PUBLIC ${ARG_DEPENDS})
  else()
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE ${PROJECT_SOURCE_DIR})
    target_link_libraries(${name} INTERFACE ${ARG_DEPENDS})
  endif()
endfunction()

# Builds the unit tests and nothing else: what runs under sanitizers.
add_custom_target(swaa_unit_tests)
# Those of them that the thread sanitizer runs.
add_custom_target(swaa_thread_tests)

# What one entry of ctest has in common with all others of GoogleTest.
function(swaa_add_test name executable labels)
  add_test(NAME ${name} COMMAND ${executable} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "${labels}" TIMEOUT 600)
endfunction()

# swaa_test(NAME SOURCES ... DEPENDS ... [LABELS ...] [SHARDS n]): a GoogleTest executable that ctest
# runs as one test, or a long one as n tests side by side, NAME_1 to NAME_n. It runs in the source root,
# so that tests reach tests/data by a relative path. A test without the label integration or parity is
# a unit test. The label threads: also for the thread sanitizer, which reports false races where a
# library that is not instrumented locks or starts threads: neither locks of abseil, nor calls of gRPC,
# nor OpenMP may be in the test.
function(swaa_test name)
  cmake_parse_arguments(ARG "" "SHARDS" "SOURCES;DEPENDS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} GTest::gmock GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  if(ARG_SHARDS)
    foreach(shard RANGE 1 ${ARG_SHARDS})
      math(EXPR index "${shard} - 1")
      swaa_add_test(${name}_${shard} ${name} "${ARG_LABELS}")
      set_property(TEST ${name}_${shard} PROPERTY
        ENVIRONMENT GTEST_TOTAL_SHARDS=${ARG_SHARDS} GTEST_SHARD_INDEX=${index})
    endforeach()
  else()
    swaa_add_test(${name} ${name} "${ARG_LABELS}")
  endif()
  if(NOT ARG_LABELS MATCHES "integration|parity")
    add_dependencies(swaa_unit_tests ${name})
  endif()
  if("threads" IN_LIST ARG_LABELS)
    add_dependencies(swaa_thread_tests ${name})
  endif()
endfunction()
