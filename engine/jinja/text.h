// Text that knows which of its bytes came from a template's input (a message's content, a tool's
// description) and which from the template itself.

#ifndef SWAA_ENGINE_JINJA_TEXT_H_
#define SWAA_ENGINE_JINJA_TEXT_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace swaa::jinja {

// UTF-8 with runs of equal origin. A plain value.
class Text {
 public:
  struct Run {
    size_t end;  // byte offset after the run's last byte
    bool is_input;
  };
  static constexpr size_t kToEnd = std::string_view::npos;

  Text() = default;
  explicit Text(std::string bytes, bool is_input = false);

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  // Ascending and without gaps; empty for empty text.
  const std::vector<Run>& runs() const { return runs_; }
  // Whether any byte of [begin, end) came from the input.
  bool HasInput(size_t begin, size_t end) const;

  Text Substr(size_t begin, size_t length = kToEnd) const;
  void Append(std::string_view bytes, bool is_input);
  void Append(const Text& other, size_t begin = 0, size_t length = kToEnd);

  // Jinja's Markup: what `safe` and `escape` give. Text added to it is escaped.
  bool is_markup = false;

 private:
  std::string bytes_;
  std::vector<Run> runs_;
};

}  // namespace swaa::jinja

#endif  // SWAA_ENGINE_JINJA_TEXT_H_
