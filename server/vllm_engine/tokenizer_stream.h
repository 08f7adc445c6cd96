// One GetTokenizer call: the archive in pieces.

#ifndef SWAA_SERVER_VLLM_ENGINE_TOKENIZER_STREAM_H_
#define SWAA_SERVER_VLLM_ENGINE_TOKENIZER_STREAM_H_

#include <cstddef>

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "server/generate/worker_pool.h"
#include "server/vllm_engine/tokenizer_archive.h"

namespace swaa::server {

// Owns itself until gRPC is done with it.
class TokenizerStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  // `archive` outlives every call; `workers` make it, if it is not made yet.
  TokenizerStream(TokenizerArchive* archive, WorkerPool* workers,
                  grpc::CallbackServerContext* call);

  void OnWriteDone(bool ok) override;
  void OnDone() override { delete this; }

 private:
  void Begin();
  void WriteNext();
  void End(const absl::Status& status);

  TokenizerArchive* const archive_;
  grpc::CallbackServerContext* const call_;
  const TokenizerArchive::Archive* made_ = nullptr;
  size_t sent_ = 0;  // bytes
  grpc::ByteBuffer writing_;
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_VLLM_ENGINE_TOKENIZER_STREAM_H_
