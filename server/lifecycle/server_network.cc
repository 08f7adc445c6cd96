// What the server is on the network: gRPC's settings, the listener, readiness.

#include <algorithm>
#include <memory>

#include <google/protobuf/stubs/logging.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "server/generate/errors.h"
#include "server/lifecycle/server.h"
#include "server/settings/config.h"

namespace swaa::server {
namespace {

constexpr char kReadyService[] = "swaa.v1.InferenceService";
constexpr int kMaxReceiveBytes = 16 << 20;
constexpr int kMaxSendBytes = 4 << 20;
// Descriptors that are not connections to the listener: the metrics port, files, gRPC's own.
constexpr int64_t kOtherOpenFiles = 48;
constexpr absl::Duration kProbeTimeout = absl::Seconds(3);

// Protobuf prints strings that are not UTF-8 to stderr; such requests are refused and logged as
// such.
void IgnoreProtobufLog(google::protobuf::LogLevel, const char*, int, const std::string&) {}

void SetDuration(const char* argument, const google::protobuf::Duration& duration,
                 grpc::ServerBuilder* builder) {
  builder->AddChannelArgument(argument,
                              static_cast<int>(absl::ToInt64Milliseconds(ToDuration(duration))));
}

// What a client may cost before it has sent a request.
void BoundClients(const v1::NetworkConfig& network, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(kMaxReceiveBytes);
  builder->SetMaxSendMessageSize(kMaxSendBytes);
  // A few bytes may inflate to any number before their size is looked at.
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder->SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  grpc::ResourceQuota quota("swaa");
  quota.Resize(static_cast<size_t>(network.grpc_memory_bytes()));
  builder->SetResourceQuota(quota);
  SetDuration(GRPC_ARG_KEEPALIVE_TIME_MS, network.keepalive_interval(), builder);
  SetDuration(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, network.keepalive_timeout(), builder);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  SetDuration(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
              network.min_client_ping_interval(), builder);
  if (const auto& age = network.max_connection_age(); ToDuration(age) > absl::ZeroDuration()) {
    SetDuration(GRPC_ARG_MAX_CONNECTION_AGE_MS, age, builder);
  }
  SetDuration(GRPC_ARG_MAX_CONNECTION_IDLE_MS, network.max_connection_idle(), builder);
  // For the client's first words, not for TLS alone.
  SetDuration(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, network.handshake_timeout(), builder);
}

// A refusal is the gateway's to try again, elsewhere.
grpc::ChannelArguments WithinProcess() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetMaxReceiveMessageSize(kMaxSendBytes);
  return arguments;
}

}  // namespace

void Server::MakeServices() {
  inference_service_ = std::make_unique<InferenceService>(&serving_);
  control_service_ = std::make_unique<ControlService>(&serving_);
  experiment_service_ = std::make_unique<ExperimentService>(&serving_);
  gateway_ = std::make_unique<GatewayContext>(&serving_, &checkpoint_.tokenizer, &kv_events_);
  gateway_->is_ready = [this] { return IsReady(); };
  vllm_engine_service_ = std::make_unique<VllmEngineService>(gateway_.get());
}

absl::Status Server::Listen() {
  google::protobuf::SetLogHandler(&IgnoreProtobufLog);
  TakeOverGrpcLog();
  grpc::EnableDefaultHealthCheckService(true);
  if (config_.access().reflection()) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  MakeServices();
  MakeCredentials();
  grpc::ServerBuilder builder;
  BoundClients(config_.network(), &builder);
  builder.RegisterService(inference_service_.get());
  builder.RegisterService(control_service_.get());
  builder.RegisterService(experiment_service_.get());
  builder.RegisterService(vllm_engine_service_.get());
  acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials_);
  grpc_server_ = builder.BuildAndStart();
  if (grpc_server_ == nullptr) return absl::InternalError("gRPC did not start");
  gateway_->inference =
      v1::InferenceService::NewStub(grpc_server_->InProcessChannel(WithinProcess()));
  // Two descriptors each: gRPC's and the guard's.
  const int64_t possible = std::max<int64_t>((open_file_limit_ - kOtherOpenFiles) / 2, 1);
  if (possible < config_.network().max_connections()) {
    LogWarning(absl::StrCat("the limit of open files, ", open_file_limit_, ", allows ", possible,
                            " connections instead of ", config_.network().max_connections()));
  }
  connection_guard_ = std::make_unique<ConnectionGuard>(ConnectionGuard::Options{
      .max_connections =
          static_cast<int>(std::min<int64_t>(config_.network().max_connections(), possible)),
      .max_debt_bytes = static_cast<int64_t>(config_.network().grpc_memory_bytes())});
  serving_.connections = connection_guard_.get();
  SWAA_RETURN_IF_ERROR(listener_->Start([this](int fd) {
    if (!connection_guard_->Add(fd)) return false;
    grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
    connection.fd = fd;
    acceptor_->HandleNewConnection(&connection);
    return true;
  }));
  SetReady();
  self_check_ = std::make_unique<SelfCheck>(
      SelfCheck::Options{.interval = ToDuration(config_.network().self_check_interval()),
                         .dead_after = ToDuration(config_.network().self_check_dead_after())},
      [this] { return listener_->Probe(kProbeTimeout, tls_ != nullptr); },
      [this](bool reached) {
        reached_.store(reached);
        SetReady();
      },
      [this] { Fail("self-check: no new client has reached the server for long; it ends"); });
  return absl::OkStatus();
}

void Server::SetReady() {
  grpc_server_->GetHealthCheckService()->SetServingStatus(kReadyService, IsReady());
}

void Server::StopListening(absl::Duration patience) {
  self_check_.reset();
  if (listener_ != nullptr) listener_->Stop();
  if (grpc_server_ == nullptr) return;
  grpc_server_->Shutdown(absl::ToChronoTime(absl::Now() + patience));
  grpc_server_->Wait();
  gateway_->inference.reset();
  grpc_server_.reset();
  acceptor_.reset();
  connection_guard_.reset();
}

}  // namespace swaa::server
