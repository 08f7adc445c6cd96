# A decode step of 16 rows under 0, 1, 4 and 16 adapters.
add_executable(lora_bench lora_bench.cc)
target_include_directories(lora_bench PRIVATE ${PROJECT_SOURCE_DIR})
target_link_libraries(lora_bench PRIVATE swaa_model_device benchmark::benchmark)
