// Anybody's text, made fit for one line of a log or of a terminal.

#ifndef SWAA_SERVER_OBSERVATION_PRINTABLE_H_
#define SWAA_SERVER_OBSERVATION_PRINTABLE_H_

#include <string>
#include <string_view>

namespace swaa::server {

// `text` as whole UTF-8 in which every character that ends a line, moves a cursor, turns the
// direction of writing or is not seen (Unicode's categories Cc, Cf, Cs, Co, Cn, Zl and Zp) stands
// as an escape: \n, \r, \t, \x1b, \u2028, \U000e0001. A byte that is no UTF-8 becomes U+FFFD.
std::string Printable(std::string_view text);

// Whether Printable would change nothing.
bool IsPrintable(std::string_view text);

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_PRINTABLE_H_
