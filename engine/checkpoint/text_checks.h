// Checks of strings that come from files, and how messages quote them.

#ifndef SWAA_ENGINE_CHECKPOINT_TEXT_CHECKS_H_
#define SWAA_ENGINE_CHECKPOINT_TEXT_CHECKS_H_

#include <string>
#include <string_view>

namespace swaa {

bool IsValidUtf8(std::string_view text);

// The text in quotes, fit for a message: unprintable bytes escaped, at most 80 bytes of it.
std::string Quoted(std::string_view text);

}  // namespace swaa

#endif  // SWAA_ENGINE_CHECKPOINT_TEXT_CHECKS_H_
