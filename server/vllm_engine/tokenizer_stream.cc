// One GetTokenizer call: the archive in pieces.

#include "server/vllm_engine/tokenizer_stream.h"

#include <algorithm>
#include <utility>

#include <grpcpp/impl/codegen/proto_utils.h>

#include "base/check.h"
#include "server/generate/errors.h"
#include "smg/grpc/common/common.pb.h"

namespace swaa::server {
namespace {

constexpr size_t kPieceBytes = size_t{256} << 10;

}  // namespace

TokenizerStream::TokenizerStream(TokenizerArchive* archive, WorkerPool* workers,
                                 grpc::CallbackServerContext* call)
    : archive_(archive), call_(call) {
  const absl::StatusOr<WorkerPool::Ticket> ticket = workers->PostAdmission(0, [this] { Begin(); });
  if (!ticket.ok()) End(ticket.status());
}

void TokenizerStream::Begin() {
  const absl::StatusOr<TokenizerArchive::Archive>& archive = archive_->Get();
  if (!archive.ok()) return End(archive.status());
  made_ = &*archive;
  WriteNext();
}

void TokenizerStream::WriteNext() {
  if (sent_ == made_->bytes.size()) return End(absl::OkStatus());
  ::smg::grpc::common::GetTokenizerChunk chunk;
  const size_t bytes = std::min(kPieceBytes, made_->bytes.size() - sent_);
  chunk.set_data(made_->bytes.substr(sent_, bytes));
  sent_ += bytes;
  if (sent_ == made_->bytes.size()) chunk.set_sha256(made_->sha256);
  writing_.Clear();  // of the last piece
  bool own_buffer = false;
  const grpc::Status status =
      grpc::SerializationTraits<::smg::grpc::common::GetTokenizerChunk>::Serialize(chunk, &writing_,
                                                                                   &own_buffer);
  SWAA_CHECK(status.ok()) << status.error_message();
  StartWrite(&writing_);
}

void TokenizerStream::OnWriteDone(bool ok) {
  if (ok) return WriteNext();
  End(absl::CancelledError("the client has gone"));
}

void TokenizerStream::End(const absl::Status& status) {
  AddErrorTrailers(status, call_);
  Finish(ToGrpcStatus(status));
}

}  // namespace swaa::server
