// Fuzz target: the bytes of a GenerateRequest, up to its refusal or to the prompt's tokens.

#include <memory>

#include "base/check.h"
#include "engine/recipe/recipe.h"
#include "server/generate/errors.h"
#include "server/generate/request_validation.h"
#include "server/recipes/recipe_catalog.h"
#include "tests/fuzz/fuzz_input.h"

namespace swaa::fuzz {
namespace {

constexpr int32_t kLayers = 4;

constexpr char kChatTemplate[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}";

// A model of single bytes with ChatML, made once.
struct SmallServer {
  SmallServer()
      : tokenizer(MakeByteTokenizer(kChatTemplate)),
        catalog(server::RecipeCatalog::Create(BuiltInRecipes(), kLayers,
                                              /*supports_thinking=*/false, "full")) {
    absl::StatusOr<std::unique_ptr<ChatFormat>> made = ChatFormat::Create(*tokenizer);
    SWAA_CHECK(made.ok()) << made.status().ToString();
    SWAA_CHECK(catalog.ok()) << catalog.status().ToString();
    format = *std::move(made);
    model.served_name = "small";
    model.config.num_layers = kLayers;
    model.config.vocab_size = tokenizer->vocab_size();
    model.tokenizer = tokenizer.get();
    model.chat_format = format.get();
  }

  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatFormat> format;
  absl::StatusOr<server::RecipeCatalog> catalog;
  server::ServingModel model;
};

// A client is told a code, a reason for machines and a text that gRPC can carry.
void CheckClientError(const absl::Status& status) {
  CheckRefusal(status);
  SWAA_CHECK(!server::ErrorReason(status).empty());
  const grpc::Status sent = server::ToGrpcStatus(status);
  SWAA_CHECK(!sent.ok() && !sent.error_message().empty());
}

// What clients are shown of a recipe is the recipe: sent back, it resolves to itself.
void CheckRoundTrip(const server::ChosenRecipe& chosen) {
  const absl::StatusOr<RecipeSpec> spec =
      server::RecipeSpecFromProto(server::RecipeToProto(chosen), "recipe");
  SWAA_CHECK(spec.ok()) << spec.status().ToString();
  const absl::StatusOr<Recipe> again = ResolveRecipe(*spec, kLayers);
  SWAA_CHECK(again.ok()) << again.status().ToString();
  SWAA_CHECK(*again == chosen.recipe);
  SWAA_CHECK(spec->thinking_mode == chosen.thinking_mode);
  SWAA_CHECK(spec->lora_name == chosen.lora_name);
}

}  // namespace

void FuzzGenerateRequest(std::string_view input) {
  static const SmallServer& small = *new SmallServer();
  v1::GenerateRequest request;
  if (!request.ParseFromArray(input.data(), static_cast<int>(input.size()))) return;
  const absl::StatusOr<server::ChosenRecipe> recipe = small.catalog->Choose(request);
  if (recipe.ok()) {
    CheckRoundTrip(*recipe);
  } else {
    CheckClientError(recipe.status());
  }
  const absl::StatusOr<server::ValidRequest> valid = server::ValidateRequest(request, small.model);
  if (!valid.ok()) return CheckClientError(valid.status());
  const absl::StatusOr<std::vector<int32_t>> prompt =
      server::TokenizeInput(*valid, small.model, std::nullopt);
  if (!prompt.ok()) return CheckClientError(prompt.status());
  for (const int32_t id : *prompt) {
    SWAA_CHECK(id >= 0 && id < small.model.config.vocab_size) << id;
  }
}

}  // namespace swaa::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  swaa::fuzz::FuzzGenerateRequest(swaa::fuzz::AsText(data, size));
  return 0;
}
