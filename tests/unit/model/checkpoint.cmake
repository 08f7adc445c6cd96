# Model files.
swaa_test(dequantize_test SOURCES dequantize_test.cc DEPENDS swaa_checkpoint)
swaa_test(gguf_test SOURCES gguf_test.cc DEPENDS swaa_checkpoint)
swaa_test(safetensors_test SOURCES safetensors_test.cc DEPENDS swaa_checkpoint)
swaa_test(hf_folder_test SOURCES hf_folder_test.cc DEPENDS swaa_checkpoint)
swaa_test(dummy_weights_test SOURCES dummy_weights_test.cc DEPENDS swaa_checkpoint)
