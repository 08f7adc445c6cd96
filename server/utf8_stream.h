// Server room: a stream of bytes as a stream of whole UTF-8.

#ifndef SWAA_SERVER_UTF8_STREAM_H_
#define SWAA_SERVER_UTF8_STREAM_H_

#include <string>
#include <string_view>

namespace swaa::server {

// One per stream; not thread-safe.
class Utf8Stream {
 public:
  // The text that `bytes` completes; an unfinished character waits for more. Each longest run of bytes that
  // begins a character but can no longer become one turns into U+FFFD, as Unicode recommends and Python's
  // errors="replace" does.
  std::string Append(std::string_view bytes);
  // What is still waiting, as U+FFFD. Ends the stream.
  std::string Flush();

 private:
  std::string pending_;  // the beginning of a character; at most three bytes
};

}  // namespace swaa::server

#endif  // SWAA_SERVER_UTF8_STREAM_H_
