// What stands at a prompt's end is its recipe, and nothing else is.

#include "server/vllm_engine/recipe_tail.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/vllm_engine/gateway_request.h"
#include "tests/unit/testing/fake_device.h"

namespace swaa::server {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

class RecipeTailTest : public ::testing::Test {
 protected:
  // Marks in `text` are their tokens.
  RecipeTail::TokenIds Ids(std::string text) {
    RecipeTail::TokenIds ids;
    while (!text.empty()) {
      const bool begin = text.rfind(kRecipeBegin, 0) == 0;
      if (begin || text.rfind(kRecipeEnd, 0) == 0) {
        ids.Add(static_cast<uint32_t>(begin ? tail_.begin_id() : tail_.end_id()));
        text.erase(0, std::string(begin ? kRecipeBegin : kRecipeEnd).size());
      } else {
        for (int32_t id : Plain(text.substr(0, 1))) ids.Add(static_cast<uint32_t>(id));
        text.erase(0, 1);
      }
    }
    return ids;
  }
  std::vector<int32_t> Plain(const std::string& text) {
    return tokenizer_->Encode(text, Tokenizer::SpecialTokens::kAsText);
  }

  std::unique_ptr<Tokenizer> tokenizer_ = ::swaa::testing::MakeByteTokenizer();
  RecipeTail tail_{*tokenizer_};
  v1::GenerateRequest request_;
};

TEST_F(RecipeTailTest, IsCutOff) {
  RecipeTail::TokenIds ids = Ids("ab<|recipe|>fast<|/recipe|>");
  EXPECT_TRUE(*tail_.Cut(&ids, &request_));
  EXPECT_THAT(ids, ElementsAreArray(Plain("ab")));
  EXPECT_EQ(request_.recipe_name(), "fast");
  ids = Ids("ab<|recipe|>{\"sliding_window_tokens\": 5}<|/recipe|>");
  EXPECT_TRUE(*tail_.Cut(&ids, &request_));
  EXPECT_EQ(request_.recipe().sliding_window_tokens(), 5u);
}

TEST_F(RecipeTailTest, MayBeEmptyOrMissing) {
  RecipeTail::TokenIds ids = Ids("ab<|recipe|><|/recipe|>");
  EXPECT_TRUE(*tail_.Cut(&ids, &request_));
  ids = Ids("ab");
  EXPECT_FALSE(*tail_.Cut(&ids, &request_));
  EXPECT_THAT(ids, ElementsAreArray(Plain("ab")));
  EXPECT_EQ(request_.recipe_choice_case(), v1::GenerateRequest::RECIPE_CHOICE_NOT_SET);
}

TEST_F(RecipeTailTest, MarksElsewhereAreText) {
  for (const std::string text :
       {"<|recipe|>fast<|/recipe|>b", "a<|/recipe|>", "a<|recipe|>", "<|recipe|><|recipe|>"}) {
    RecipeTail::TokenIds ids = Ids(text + "<|recipe|><|/recipe|>");
    EXPECT_TRUE(*tail_.Cut(&ids, &request_));
    EXPECT_THAT(ids, ElementsAreArray(Plain(text))) << text;
    EXPECT_EQ(request_.recipe_choice_case(), v1::GenerateRequest::RECIPE_CHOICE_NOT_SET);
  }
}

TEST_F(RecipeTailTest, WhatIsNoRecipeIsRefused) {
  for (const auto& [text, word] : {std::pair<std::string, std::string>{"{}x", "is no recipe"},
                                   {"{\"window\": 5}", "is no recipe"},
                                   {std::string(5000, 'a'), "more than 4096 bytes"}}) {
    RecipeTail::TokenIds ids = Ids("ab<|recipe|>" + text + "<|/recipe|>");
    const absl::Status status = tail_.Cut(&ids, &request_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(word));
  }
  RecipeTail::TokenIds ids = Ids("ab<|/recipe|>");
  EXPECT_EQ(tail_.Cut(&ids, &request_).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(GatewayUnitTest, ComesByIdAndTraceState) {
  const std::string uuid = "-01890a5d-ac96-774b-bcce-b302099a8057";
  EXPECT_EQ(UnitOfRequestId("unit=alice" + uuid), "alice");
  EXPECT_EQ(UnitOfRequestId("unit=a-b" + uuid), "a-b");
  for (const std::string& id : {"chatcmpl" + uuid, "unit=" + uuid, std::string("unit=alice")}) {
    EXPECT_EQ(UnitOfRequestId(id), "") << id;
  }
  EXPECT_EQ(UnitOfTraceState("a=1, swaa=alice ,b=2"), "alice");
  EXPECT_EQ(UnitOfTraceState("a=swaa, notswaa=1"), "");
}

}  // namespace
}  // namespace swaa::server
