// Which name of the model a call's authority stands for, and what is no name.

#include "server/generate/served_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace swaa::server {
namespace {

using ::testing::HasSubstr;

struct Entry {
  const char* name;
  std::vector<const char*> authorities;
};

v1::ModelConfig Config(const std::vector<Entry>& entries) {
  v1::ModelConfig config;
  for (const Entry& entry : entries) {
    v1::ServedName* name = config.add_served_names();
    name->set_name(entry.name);
    name->set_recipe("balanced");
    for (const char* authority : entry.authorities) name->add_authorities(authority);
  }
  return config;
}

TEST(ServedNamesTest, AnAuthorityStandsForTheNameThatSaysMostOfIt) {
  const auto names = ServedNames::Create(Config({{"m:any", {"*.swaa"}},
                                                 {"m:near", {"*.near.swaa"}},
                                                 {"m:host", {"One.near.swaa", "[::1]", "10.0.0.1"}},
                                                 {"m:port", {"one.near.swaa:7"}},
                                                 {"m:none", {}}}),
                                         "m");
  ASSERT_TRUE(names.ok()) << names.status();
  const struct {
    const char* authority;
    const char* name;  // empty: the model's own
  } cases[] = {
      {"x.swaa", "m:any"},
      {"x.swaa:50051", "m:any"},
      {"x.NEAR.swaa:50051", "m:near"},
      {"one.near.swaa", "m:host"},
      {"one.near.swaa:8", "m:host"},
      {"one.near.swaa:7", "m:port"},
      {"[::1]:50051", "m:host"},
      {"10.0.0.1:50051", "m:host"},
      {"10.0.0.10:50051", ""},
      {"swaa", ""},
      {".swaa", ""},
      {"xswaa", ""},
      {"", ""},
      {":50051", ""},
  };
  for (const auto& c : cases) {
    const ServedName* found = names->OfAuthority(c.authority);
    EXPECT_EQ(found == nullptr ? "" : found->name, c.name) << c.authority;
  }
  EXPECT_EQ(names->OfAuthority(std::string(10000, 'x') + ".swaa"), nullptr);
  EXPECT_EQ(names->Find("m:none")->recipe, "balanced");
  EXPECT_EQ(names->Find("m"), nullptr);
  EXPECT_EQ(names->Find(""), nullptr);
}

TEST(ServedNamesTest, WhatIsNoNameIsRefusedByItsPlace) {
  const struct {
    std::vector<Entry> entries;
    const char* message;
  } cases[] = {
      {{{"a", {}}, {"", {}}}, "model.served_names[1].name: \"\" is no name"},
      {{{"a b", {}}}, "model.served_names[0].name: \"a b\""},
      {{{"m", {}}}, "is there twice, or the model's own"},
      {{{"a", {}}, {"a", {}}}, "model.served_names[1].name"},
      {{{"a", {"x"}}, {"b", {"X"}}}, "model.served_names[1].authorities: \"X\" is there twice"},
      {{{"a", {"x*"}}}, "is no HOST"},
      {{{"a", {"*.x.*"}}}, "is no HOST"},
      {{{"a", {""}}}, "is no HOST"},
  };
  for (const auto& c : cases) {
    const absl::Status status = ServedNames::Create(Config(c.entries), "m").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

TEST(ServedNamesTest, EveryNameHasARecipeOfTheCatalogue) {
  v1::ModelConfig config = Config({{"a", {}}, {"b", {}}});
  const auto recipes = RecipeCatalog::Create(BuiltInRecipes(), 4, false, "full");
  ASSERT_TRUE(recipes.ok());
  EXPECT_TRUE(ServedNames::Create(config, "m")->CheckRecipes(*recipes).ok());
  config.mutable_served_names(1)->set_recipe("none such");
  const absl::Status status = ServedNames::Create(config, "m")->CheckRecipes(*recipes);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("model.served_names[1].recipe: \"none such\""));
}

}  // namespace
}  // namespace swaa::server
