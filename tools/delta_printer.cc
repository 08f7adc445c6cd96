// Tools: an answer on the terminal, as it comes.

#include "tools/delta_printer.h"

#include <cstdio>
#include <string>
#include <unistd.h>

namespace swaa::tools {
namespace {

// ECMA-48, select graphic rendition: faint, and as usual.
constexpr char kDim[] = "\033[2m";
constexpr char kUsual[] = "\033[0m";

}  // namespace

DeltaPrinter::DeltaPrinter() : is_terminal_(isatty(STDOUT_FILENO) == 1) {}

DeltaPrinter::~DeltaPrinter() {
  SetDimmed(false);
  std::fflush(stdout);
}

void DeltaPrinter::SetDimmed(bool dimmed) {
  if (!is_terminal_ || dimmed == is_dimmed_) return;
  std::fputs(dimmed ? kDim : kUsual, stdout);
  is_dimmed_ = dimmed;
}

void DeltaPrinter::Print(const v1::TokenDelta& delta) {
  const std::string& text = delta.text();
  if (text.empty()) return;
  SetDimmed(delta.is_reasoning());
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace swaa::tools
