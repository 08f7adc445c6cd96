// The goldens of tests/parity/goldens/make_model_goldens.py, make_family_goldens.py and
// make_lora_goldens.py, read.

#ifndef SWAA_TESTS_PARITY_GOLDEN_CASES_H_
#define SWAA_TESTS_PARITY_GOLDEN_CASES_H_

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace swaa {

// Log-probabilities of a greedy continuation: its tokens, and the two largest at each.
struct GoldenGreedy {
  std::vector<int32_t> tokens;
  std::vector<float> best;
  std::vector<float> second;
};

// logprobs[i] belongs to tokens[i + 1] after tokens[0..i].
struct GoldenCase {
  std::string name;
  std::string model;    // of tiny models: file or folder under tests/data
  std::string adapter;  // folder likewise; empty: none
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<float> best;
  std::vector<float> second;
  GoldenGreedy greedy;
  // A recipe: layers of F and D by their numbers. Without one, window is 0: full attention.
  int32_t window = 0;
  int32_t sinks = 0;
  std::vector<int32_t> full_layers;
  std::vector<int32_t> full_decode_layers;
  int32_t prompt_tokens = 0;  // rows at and after it decode
};

inline nlohmann::json ReadGolden(const std::string& name) {
  const std::string path = "tests/parity/goldens/data/" + name;
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path << ": missing; tests run in the repository's root";
  return nlohmann::json::parse(file, nullptr, false);
}

// full_attention.json, tiny.json, families.json or lora.json.
inline std::vector<GoldenCase> ReadFullCases(const std::string& name) {
  std::vector<GoldenCase> cases;
  const nlohmann::json golden = ReadGolden(name);
  for (const auto& json : golden.at("cases")) {
    GoldenCase& c = cases.emplace_back();
    c.name = json.at("name");
    c.model = json.value("model", "");
    c.adapter = json.value("adapter", "");
    c.tokens = json.at("tokens").get<std::vector<int32_t>>();
    c.logprobs = json.at("logprobs").get<std::vector<float>>();
    c.best = json.at("best").get<std::vector<float>>();
    c.second = json.at("second").get<std::vector<float>>();
    const auto& greedy = json.at("greedy");
    c.greedy.tokens = greedy.at("tokens").get<std::vector<int32_t>>();
    c.greedy.best = greedy.at("best").get<std::vector<float>>();
    c.greedy.second = greedy.at("second").get<std::vector<float>>();
    c.prompt_tokens = static_cast<int32_t>(c.tokens.size());
  }
  return cases;
}

// recipes.json.
inline std::vector<GoldenCase> ReadRecipeCases() {
  std::vector<GoldenCase> cases;
  const nlohmann::json golden = ReadGolden("recipes.json");
  for (const auto& json : golden.at("cases")) {
    GoldenCase& c = cases.emplace_back();
    c.name = json.at("name");
    c.tokens = golden.at("tokens").get<std::vector<int32_t>>();
    c.prompt_tokens = golden.at("prompt_tokens");
    c.logprobs = json.at("logprobs").get<std::vector<float>>();
    c.window = json.at("W");
    c.sinks = json.at("K");
    c.full_layers = json.at("F").get<std::vector<int32_t>>();
    c.full_decode_layers = json.at("D").get<std::vector<int32_t>>();
  }
  return cases;
}

}  // namespace swaa

#endif  // SWAA_TESTS_PARITY_GOLDEN_CASES_H_
