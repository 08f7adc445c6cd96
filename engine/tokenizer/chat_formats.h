// The registered chat formats. Each looks at a template and makes a format
// of it; null: the template is of another kind. UNIMPLEMENTED: of this kind, but says what the
// format does not do.

#ifndef SWAA_ENGINE_TOKENIZER_CHAT_FORMATS_H_
#define SWAA_ENGINE_TOKENIZER_CHAT_FORMATS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/tokenizer/chat_format.h"
#include "engine/tokenizer/jinja_text.h"

namespace swaa {

absl::StatusOr<std::unique_ptr<ChatFormat>> MakeChatMl(const JinjaText& jinja);
absl::StatusOr<std::unique_ptr<ChatFormat>> MakeLlama3(const JinjaText& jinja);

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_CHAT_FORMATS_H_
