// Tests: what templates write equals what Python's Jinja writes, set up as transformers sets it up
// (make_jinja_goldens.py beside this file made the goldens); what Jinja refuses is refused.

#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "tests/parity/jinja/case.h"

namespace swaa::jinja {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kFolder[] = "tests/parity/jinja/";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path << " cannot be read";
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

const Json& Goldens() {
  static const Json& goldens =
      *new Json(Json::parse(ReadFile(std::string(kFolder) + "goldens.json")));
  return goldens;
}

void Check(const std::string& source, const Json& variables, const Json& golden) {
  SCOPED_TRACE(source);
  const absl::StatusOr<Text> text = RenderCase({{"template", source}, {"variables", variables}});
  if (golden.contains("refused")) {
    EXPECT_FALSE(text.ok()) << "Jinja raises " << golden["refused"] << ", here it is "
                            << text->bytes();
    return;
  }
  ASSERT_TRUE(text.ok()) << text.status() << "\nwanted: " << golden["text"];
  EXPECT_EQ(text->bytes(), golden["text"].get<std::string>());
}

TEST(JinjaParityTest, Features) {
  ASSERT_GT(Goldens()["features"].size(), 800u);
  for (const Json& golden : Goldens()["features"]) {
    Check(golden["template"], Goldens()["feature_variables"], golden);
  }
}

TEST(JinjaParityTest, RandomTemplates) {
  ASSERT_GT(Goldens()["random"].size(), 300u);
  for (const Json& golden : Goldens()["random"]) {
    Check(golden["template"], Goldens()["random_variables"], golden);
  }
}

TEST(JinjaParityTest, ChatTemplates) {
  ASSERT_GT(Goldens()["chats"].size(), 250u);
  for (const Json& golden : Goldens()["chats"]) {
    const std::string name = golden["name"];
    SCOPED_TRACE(name);
    Check(ReadFile(kFolder + ("templates/" + name + ".jinja")),
          Goldens()["chat_variables"][golden["variables"].get<size_t>()], golden);
  }
}

}  // namespace
}  // namespace swaa::jinja
