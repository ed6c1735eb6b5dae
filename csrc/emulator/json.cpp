// A recursive descent parser for RFC 8259.
#include "emulator/json.hpp"

#include <cctype>
#include <cstdlib>
#include <cstring>

namespace ais::emulator {
namespace {

class Parser {
 public:
  Parser(std::string_view text, int max_depth) : text_(text), max_depth_(max_depth) {}

  Result<Json> document() {
    Json value;
    AIS_TRY(parse(&value, 0));
    skip_space();
    if (at_ != text_.size()) return bad("something follows the value");
    return value;
  }

 private:
  Status bad(const std::string& what) const {
    return Status(Code::kInvalidArgument, "not valid JSON at offset " + std::to_string(at_) + ": " + what);
  }
  void skip_space() {
    while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_]) != nullptr && text_[at_] != '\0') ++at_;
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool eat(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool eat_word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  Status parse(Json* out, int depth) {
    skip_space();
    const char first = peek();
    if (first == '{' || first == '[') {
      if (depth >= max_depth_) return bad("nested deeper than " + std::to_string(max_depth_) + " levels");
      ++at_;
      return first == '{' ? object(out, depth + 1) : array(out, depth + 1);
    }
    if (first == '"') {
      out->type = Json::Type::kString;
      return string(&out->text);
    }
    if (eat_word("null")) return Status();
    if (eat_word("true") || eat_word("false")) {
      out->type = Json::Type::kBool;
      out->boolean = text_[at_ - 2] == 'u';
      return Status();
    }
    return number(out);
  }

  Status object(Json* out, int depth) {
    out->type = Json::Type::kObject;
    skip_space();
    if (eat('}')) return Status();
    do {
      skip_space();
      std::string key;
      if (peek() != '"') return bad("a member's name is missing");
      AIS_TRY(string(&key));
      skip_space();
      if (!eat(':')) return bad("':' is missing");
      AIS_TRY(parse(&out->members[key], depth));
      skip_space();
    } while (eat(','));
    return eat('}') ? Status() : bad("'}' is missing");
  }

  Status array(Json* out, int depth) {
    out->type = Json::Type::kArray;
    skip_space();
    if (eat(']')) return Status();
    do {
      AIS_TRY(parse(&out->items.emplace_back(), depth));
      skip_space();
    } while (eat(','));
    return eat(']') ? Status() : bad("']' is missing");
  }

  Status number(Json* out) {
    const std::size_t start = at_;
    eat('-');
    if (std::isdigit(static_cast<unsigned char>(peek())) == 0) return bad("a value is missing");
    while (at_ < text_.size() && (std::isdigit(static_cast<unsigned char>(text_[at_])) != 0 ||
                                  (text_[at_] != '\0' && std::strchr(".eE+-", text_[at_]) != nullptr))) {
      ++at_;
    }
    const std::string digits(text_.substr(start, at_ - start));
    char* end = nullptr;
    out->type = Json::Type::kNumber;
    out->number = std::strtod(digits.c_str(), &end);
    return *end == '\0' ? Status() : bad("'" + digits + "' is not a number");
  }

  Status string(std::string* out) {
    ++at_;
    while (at_ < text_.size() && text_[at_] != '"') {
      const char c = text_[at_++];
      if (static_cast<unsigned char>(c) < 0x20) return bad("a control character in a string");
      if (c != '\\') {
        out->push_back(c);
        continue;
      }
      AIS_TRY(escape(out));
    }
    return eat('"') ? Status() : bad("a string does not end");
  }

  Status escape(std::string* out) {
    static const char kFrom[] = "\"\\/bfnrt";
    static const char kTo[] = "\"\\/\b\f\n\r\t";
    const char c = peek();
    ++at_;
    if (const char* found = c == '\0' ? nullptr : std::strchr(kFrom, c)) {
      out->push_back(kTo[found - kFrom]);
      return Status();
    }
    if (c != 'u' || at_ + 4 > text_.size()) return bad("an unknown escape");
    const std::string digits(text_.substr(at_, 4));
    char* end = nullptr;
    const unsigned long code = std::strtoul(digits.c_str(), &end, 16);
    if (*end != '\0') return bad("\\u needs four hexadecimal digits");
    at_ += 4;
    append_utf8(static_cast<unsigned>(code), out);
    return Status();
  }

  // Appends a UTF-16 unit as UTF-8. A surrogate pair becomes two three-byte sequences; nothing here reads them.
  static void append_utf8(unsigned code, std::string* out) {
    if (code < 0x80) {
      out->push_back(static_cast<char>(code));
    } else if (code < 0x800) {
      out->push_back(static_cast<char>(0xC0 | (code >> 6)));
      out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
    } else {
      out->push_back(static_cast<char>(0xE0 | (code >> 12)));
      out->push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3F)));
      out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
    }
  }

  std::string_view text_;
  int max_depth_;
  std::size_t at_ = 0;
};

}  // namespace

Result<Json> parse_json(std::string_view text, int max_depth) { return Parser(text, max_depth).document(); }

}  // namespace ais::emulator
