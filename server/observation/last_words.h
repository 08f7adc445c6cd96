// What a process that ends badly still says.

#ifndef SWAA_SERVER_OBSERVATION_LAST_WORDS_H_
#define SWAA_SERVER_OBSERVATION_LAST_WORDS_H_

namespace swaa::server {

// From now on broken checks and exceptions that nobody catches are lines of the log, and neither
// they nor a crash end the process before the log is written, unless that takes kLogPatience.
// Signals that somebody handles already stay theirs. After ConfigureLogging.
void InstallLastWords();

}  // namespace swaa::server

#endif  // SWAA_SERVER_OBSERVATION_LAST_WORDS_H_
