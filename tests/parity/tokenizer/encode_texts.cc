// Encodes texts by a tokenizer.json, for compare_tokenizers.py: encode_texts FILE < texts > ids. A
// text is a line of JSON, a string; so is its answer, the list of ids with special tokens parsed.

#include <fstream>
#include <iostream>
#include <sstream>
#include <string>

#include <nlohmann/json.hpp>

#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/tokenizer_json.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "encode_texts FILE < texts > ids" << std::endl;
    return 2;
  }
  std::ifstream file(argv[1], std::ios::binary);
  std::stringstream json;
  json << file.rdbuf();
  auto data = swaa::ParseTokenizerJson(json.str(), "", argv[1]);
  if (!data.ok()) {
    std::cerr << data.status() << std::endl;
    return 1;
  }
  const auto tokenizer = swaa::Tokenizer::Create(*std::move(data));
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << std::endl;
    return 1;
  }
  std::string line;
  while (std::getline(std::cin, line)) {
    const std::string text = nlohmann::json::parse(line);
    const nlohmann::json ids = (*tokenizer)->Encode(text, swaa::Tokenizer::SpecialTokens::kParse);
    std::cout << ids.dump() << "\n";
  }
  return 0;
}
