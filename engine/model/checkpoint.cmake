# Model files: configuration, tokenizer data and weights of GGUF files and Hugging Face folders.
swaa_library(swaa_checkpoint
  SOURCES
    checkpoint.cc
    dequantize.cc
    dummy_weights.cc
    gguf.cc
    gguf_model.cc
    gguf_tokenizer.cc
    gguf_values.cc
    hf_config.cc
    hf_folder.cc
    json_file.cc
    mapped_file.cc
    safetensors.cc
    tensor_weights.cc
    text_checks.cc
    validate_config.cc
    weight_table.cc
  DEPENDS swaa_base swaa_kernels swaa_tokenizer nlohmann_json::nlohmann_json PkgConfig::UTF8PROC)
