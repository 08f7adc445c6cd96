// How much a request may ask of a device.

#include "engine/schedule/output_limit.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/recipe/visibility.h"
#include "engine/schedule/never_fits.h"

namespace swaa {

absl::StatusOr<int32_t> MaxOutputTokens(const GenerationRequest& request,
                                        const SchedulerOptions& options, const DeviceInfo& device) {
  const auto prompt = static_cast<int64_t>(request.prompt->size());
  const auto forced = static_cast<int64_t>(request.forced_output.size());
  if (prompt > options.max_context_tokens) {
    return absl::OutOfRangeError(absl::StrCat("prompt: ", prompt, " tokens exceed the context of ",
                                              options.max_context_tokens,
                                              " tokens; shorten the prompt"));
  }
  // Behind a prompt that fills the context one token can be drawn, as the last one's position is
  // never computed: such a prompt can be scored.
  const int64_t room = std::max<int64_t>(options.max_context_tokens - prompt, 1);
  if (forced > room) {
    return absl::OutOfRangeError(absl::StrCat(
        "forced_output_ids: ", forced, " tokens behind a prompt of ", prompt,
        " exceed the context of ", options.max_context_tokens, " tokens; shorten either"));
  }
  const std::optional<uint32_t> asked = request.stopping.max_tokens;
  const int64_t most = asked.has_value() ? std::min<int64_t>(*asked, room) : room;
  const int64_t pool = device.num_pages - 1;
  // The last output token's position is never computed.
  auto pages_for = [&](int64_t output) {
    return PeakPages(request.recipe, prompt + output - 1, MostSubmittedTokens(options, device));
  };
  auto fits = [&](int64_t output) { return pages_for(output) <= pool; };
  if (fits(most)) return static_cast<int32_t>(most);
  const int64_t least = std::max<int64_t>(1, forced);
  if (asked.has_value() || !fits(least)) {
    return NeverFitsError(absl::StrCat(
        asked.has_value() ? "stopping_options.max_tokens: " : "prompt: ", prompt, " prompt and ",
        asked.has_value() ? most : least, " output tokens need ",
        pages_for(asked.has_value() ? most : least), " pages of keys and values, and the pool has ",
        pool, "; ask for less, take a recipe with a window, or raise --kv-cache-bytes"));
  }
  int64_t low = least;
  int64_t high = most;  // fits(low), not fits(high)
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return static_cast<int32_t>(low);
}

}  // namespace swaa
