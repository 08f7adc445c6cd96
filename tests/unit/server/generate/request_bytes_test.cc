// The id of a request that is not parsed yet.

#include "server/generate/request_bytes.h"

#include <gtest/gtest.h>

#include "server/generate/errors.h"

namespace swaa::server {
namespace {

grpc::ByteBuffer Bytes(const std::string& text, size_t slice_bytes = 1 << 20) {
  std::vector<grpc::Slice> slices;
  for (size_t at = 0; at < text.size(); at += slice_bytes) {
    slices.emplace_back(text.substr(at, slice_bytes));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

TEST(RequestBytesTest, FindsTheIdWhereverItsFieldIs) {
  v1::GenerateRequest request;
  request.set_request_id("mine");
  request.set_prompt(std::string(10000, 'x'));
  const std::string id_first = request.SerializeAsString();
  EXPECT_EQ(PeekRequestId(Bytes(id_first)), "mine");
  EXPECT_EQ(PeekRequestId(Bytes(id_first, 3)), "mine") << "in slices of three bytes";
  v1::GenerateRequest rest = request;
  rest.clear_request_id();
  v1::GenerateRequest id;
  id.set_request_id("mine");
  EXPECT_EQ(PeekRequestId(Bytes(rest.SerializeAsString() + id.SerializeAsString())), "mine");
  EXPECT_EQ(PeekRequestId(Bytes(rest.SerializeAsString())), "");
}

TEST(RequestBytesTest, NonsenseHasNoId) {
  for (const std::string& bytes :
       {std::string("\xff\xff\xff\xff", 4), std::string("\x0a\x7fshort"), std::string(),
        std::string("\x0a\x03\x01\x02\x03"), std::string("\x0a\x81\x02") + std::string(257, 'x'),
        std::string(1000, '\x0d')}) {
    EXPECT_EQ(PeekRequestId(Bytes(bytes)), "");
  }
}

TEST(RequestBytesTest, ParsingEmptiesTheBytes) {
  v1::GenerateRequest request;
  request.set_prompt("abc");
  grpc::ByteBuffer bytes = Bytes(request.SerializeAsString());
  v1::GenerateRequest parsed;
  EXPECT_TRUE(ParseRequest(&bytes, &parsed).ok());
  EXPECT_EQ(parsed.prompt(), "abc");
  bytes = Bytes("\xff\xff");
  EXPECT_EQ(ErrorReason(ParseRequest(&bytes, &parsed)), "malformed_request");
  EXPECT_FALSE(bytes.Valid());
}

TEST(RequestBytesTest, ManySmallPartsAreRefusedBeforeTheyAreMade) {
  v1::GenerateRequest parsed;
  v1::GenerateRequest chat;
  for (int i = 0; i < 20000; ++i) chat.mutable_chat()->add_messages();
  grpc::ByteBuffer bytes = Bytes(chat.SerializeAsString());
  EXPECT_TRUE(ParseRequest(&bytes, &parsed).ok());
  for (int i = 0; i < 20000; ++i) chat.mutable_chat()->add_messages();
  bytes = Bytes(chat.SerializeAsString());
  EXPECT_EQ(ErrorReason(ParseRequest(&bytes, &parsed)), "limit_exceeded");
  EXPECT_FALSE(bytes.Valid());
  // Fields that nobody knows, on every level.
  std::string unknown;
  for (int i = 0; i < 40000; ++i) unknown += "\xc0\x3e\x01";
  bytes = Bytes(unknown);
  EXPECT_EQ(ErrorReason(ParseRequest(&bytes, &parsed)), "limit_exceeded");
  v1::GenerateRequest inner;
  ASSERT_TRUE(inner.mutable_chat()->add_messages()->ParseFromString(unknown));
  bytes = Bytes(inner.SerializeAsString());
  EXPECT_EQ(ErrorReason(ParseRequest(&bytes, &parsed)), "limit_exceeded");
}

TEST(RequestBytesTest, TokenIdsAreNumbersHoweverMany) {
  v1::GenerateRequest request;
  for (uint32_t i = 0; i < 1 << 20; ++i) request.mutable_token_ids()->add_ids(i);
  grpc::ByteBuffer bytes = Bytes(request.SerializeAsString());
  v1::GenerateRequest parsed;
  EXPECT_TRUE(ParseRequest(&bytes, &parsed).ok());
  EXPECT_EQ(parsed.token_ids().ids_size(), 1 << 20);
  // Each with a tag of its own, as proto2 had them.
  std::string unpacked;
  for (int i = 0; i < 100000; ++i) unpacked += "\x08\x05";
  ASSERT_TRUE(request.mutable_token_ids()->ParseFromString(unpacked));
  std::string head = "\x22\xc0\x9a\x0c";  // token_ids, 200,000 bytes
  bytes = Bytes(head + unpacked);
  EXPECT_TRUE(ParseRequest(&bytes, &parsed).ok());
  EXPECT_EQ(parsed.token_ids().ids_size(), 100000);
}

}  // namespace
}  // namespace swaa::server
