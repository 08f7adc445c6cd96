// Tools: an answer on the terminal, as it comes.

#ifndef SWAA_TOOLS_DELTA_PRINTER_H_
#define SWAA_TOOLS_DELTA_PRINTER_H_

#include "swaa/v1/generation.pb.h"

namespace swaa::tools {

// Writes the text of deltas to standard output: thinking dimmed on a terminal, everything as it is
// elsewhere. One thread at a time.
class DeltaPrinter {
 public:
  DeltaPrinter();
  ~DeltaPrinter();
  DeltaPrinter(const DeltaPrinter&) = delete;
  DeltaPrinter& operator=(const DeltaPrinter&) = delete;

  void Print(const v1::TokenDelta& delta);

 private:
  void SetDimmed(bool dimmed);

  const bool is_terminal_;
  bool is_dimmed_ = false;
};

}  // namespace swaa::tools

#endif  // SWAA_TOOLS_DELTA_PRINTER_H_
