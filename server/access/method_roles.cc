// Which roles a method takes.

#include "server/access/method_roles.h"

namespace swaa::server {
namespace {

struct Rule {
  std::string_view path;  // of a method; of a whole service, if it ends in '/'
  Roles roles;
};

constexpr Rule kRules[] = {
    {"/swaa.v1.InferenceService/Generate", kGenerate},
    {"/swaa.v1.ControlService/GetServerInfo", kAnyRole},
    {"/swaa.v1.ControlService/GetModelInfo", kAnyRole},
    {"/swaa.v1.ControlService/GetLoad", kObserve | kAdminister},
    // One's own requests; the handler asks for more where it is another's.
    {"/swaa.v1.ControlService/Abort", kGenerate | kAdminister},
    {"/swaa.v1.ControlService/LoadLora", kAdminister},
    {"/swaa.v1.ControlService/UnloadLora", kAdminister},
    {"/swaa.v1.ControlService/ListLoras", kAnyRole},
    {"/swaa.v1.ControlService/ListRecipes", kAnyRole},
    {"/swaa.v1.ExperimentService/ListExperiments", kObserve | kAdminister},
    {"/swaa.v1.ExperimentService/GetReport", kObserve | kAdminister},
    {"/swaa.v1.ExperimentService/GetAssignment", kAnyRole},
    {"/swaa.v1.ExperimentService/RecordOutcome", kGenerate},
    {"/swaa.v1.ExperimentService/StartExperiment", kAdminister},
    {"/swaa.v1.ExperimentService/StopExperiment", kAdminister},
    {"/vllm.grpc.engine.VllmEngine/Generate", kGenerate},
    // Of one's own requests alone, unless one administers.
    {"/vllm.grpc.engine.VllmEngine/Abort", kGenerate | kAdminister},
    {"/vllm.grpc.engine.VllmEngine/HealthCheck", kAnyRole},
    {"/vllm.grpc.engine.VllmEngine/GetModelInfo", kAnyRole},
    {"/vllm.grpc.engine.VllmEngine/GetServerInfo", kAnyRole},
    {"/vllm.grpc.engine.VllmEngine/GetTokenizer", kAnyRole},
    {"/vllm.grpc.engine.VllmEngine/GetLoads", kObserve | kAdminister},
    // Which prompts there were, where callers share a prefix cache.
    {"/vllm.grpc.engine.VllmEngine/SubscribeKvEvents", kObserve | kAdminister},
    // Probes have no tokens.
    {"/grpc.health.v1.Health/", kNoRole},
    {"/grpc.reflection.v1alpha.ServerReflection/", kAnyRole},
};

}  // namespace

Roles RolesOfMethod(std::string_view path) {
  for (const Rule& rule : kRules) {
    if (rule.path.ends_with('/') ? path.starts_with(rule.path) : path == rule.path) {
      return rule.roles;
    }
  }
  return kAdminister;
}

std::string RolesText(Roles roles) {
  std::string text;
  for (const auto& [role, name] :
       {std::pair{kGenerate, "generate"}, {kObserve, "observe"}, {kAdminister, "administer"}}) {
    if ((roles & role) != 0) text += (text.empty() ? "" : ", ") + std::string(name);
  }
  return text.empty() ? "none" : text;
}

}  // namespace swaa::server
