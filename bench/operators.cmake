# Matrix products and row-wise operators at the shapes of the default model.
add_executable(operators_bench operators_bench.cc)
target_include_directories(operators_bench PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(operators_bench PRIVATE swaa_operators benchmark::benchmark)
