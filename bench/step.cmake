# Decode steps by their number of rows.
add_executable(step_bench step_bench.cc)
target_include_directories(step_bench PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(step_bench PRIVATE swaa_model_device)
