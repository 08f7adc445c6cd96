// Unicode normalisation form C, by utf8proc.

#include "engine/tokenizer/normalize.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <utf8proc.h>

#include "engine/tokenizer/utf8.h"

namespace swaa {
namespace {

constexpr int kMaxMarks = 128;

// Characters that Unicode 10 and later gave a combining class or a canonical composition; also
// those that such compositions begin with. Hugging Face's tokenizers normalise by the tables of
// Unicode 9, to which these stand for themselves, and so must every version of utf8proc's.
struct Range {
  char32_t first;
  char32_t last;
};
constexpr Range kLater[] = {
    {0x5C8, 0x5C9},     {0x7FD, 0x7FD},     {0x897, 0x89F},     {0x8CA, 0x8D3},
    {0x9FE, 0x9FE},     {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},
    {0x1715, 0x1715},   {0x1ABF, 0x1AF0},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},
    {0x105C9, 0x105C9}, {0x105D2, 0x105D2}, {0x105DA, 0x105DA}, {0x105E4, 0x105E4},
    {0x10D24, 0x10D27}, {0x10D69, 0x10D6D}, {0x10EAB, 0x10EAC}, {0x10ECB, 0x10ECF},
    {0x10EF0, 0x10EFB}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x11382, 0x11385}, {0x1138B, 0x1138B},
    {0x1138E, 0x1138E}, {0x11390, 0x11391}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5},
    {0x113C7, 0x113C8}, {0x113CE, 0x113D0}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11935, 0x11935}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
    {0x1611E, 0x1611E}, {0x16121, 0x16129}, {0x1612F, 0x1612F}, {0x16D63, 0x16D63},
    {0x16D67, 0x16D6A}, {0x16FF0, 0x16FF1}, {0x1D127, 0x1D128}, {0x1D250, 0x1D252},
    {0x1D25B, 0x1D25C}, {0x1D25F, 0x1D25F}, {0x1D280, 0x1D281}, {0x1E08F, 0x1E08F},
    {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
    {0x1E5EE, 0x1E5EF}, {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6}, {0x1E6EE, 0x1E6EF},
    {0x1E6F5, 0x1E6F5}};

bool IsLater(char32_t code) {
  const auto* range = std::lower_bound(std::begin(kLater), std::end(kLater), code,
                                       [](const Range& r, char32_t c) { return r.last < c; });
  return range != std::end(kLater) && range->first <= code;
}

// Appends NFC of `text`, or `text` itself should utf8proc refuse it.
void AppendNfc(std::string_view text, std::string& out) {
  uint8_t* composed = nullptr;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &composed, options);
  if (length < 0) {
    out.append(text);
    return;
  }
  out.append(reinterpret_cast<const char*>(composed), static_cast<size_t>(length));
  std::free(composed);
}

}  // namespace

std::string NormalizeNfc(std::string_view text) {
  const auto is_ascii = [](char byte) { return static_cast<signed char>(byte) >= 0; };
  if (std::all_of(text.begin(), text.end(), is_ascii)) return std::string(text);
  // utf8proc sorts marks by insertion, in quadratic time, so no run of them may be long.
  std::string out;
  out.reserve(text.size());
  size_t begin = 0;
  int marks = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t length = FirstUtf8Unit(text.substr(at)).length;
    const char32_t code = DecodeUtf8(text.substr(at, length));
    if (IsLater(code)) {
      AppendNfc(text.substr(begin, at - begin), out);
      at += length;
      out.append(text.substr(at - length, length));
      begin = at;
      marks = 0;
      continue;
    }
    const bool is_mark =
        utf8proc_get_property(static_cast<utf8proc_int32_t>(code))->combining_class != 0;
    marks = is_mark ? marks + 1 : 0;
    if (marks > kMaxMarks) {
      AppendNfc(text.substr(begin, at - begin), out);
      begin = at;
      marks = 1;
    }
    at += length;
  }
  AppendNfc(text.substr(begin), out);
  return out;
}

}  // namespace swaa
