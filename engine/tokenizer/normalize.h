// Unicode normalisation form C.

#ifndef SWAA_ENGINE_TOKENIZER_NORMALIZE_H_
#define SWAA_ENGINE_TOKENIZER_NORMALIZE_H_

#include <string>
#include <string_view>

namespace swaa {

// NFC of whole UTF-8. Time is linear: a run of more than 128 combining marks is normalised in
// parts.
std::string NormalizeNfc(std::string_view text);

}  // namespace swaa

#endif  // SWAA_ENGINE_TOKENIZER_NORMALIZE_H_
