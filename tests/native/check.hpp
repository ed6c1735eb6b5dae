// The smallest test harness that names what failed. Tests are functions; main runs those that its arguments name, or all.
#pragma once

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace check {

constexpr std::chrono::seconds kPatience{60};

inline std::vector<std::pair<const char*, std::function<void()>>>& all() {
  static std::vector<std::pair<const char*, std::function<void()>>> tests;
  return tests;
}

struct Add {
  Add(const char* name, std::function<void()> body) { all().emplace_back(name, std::move(body)); }
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
  std::fflush(stderr);
  std::abort();
}

inline int run(int argc, char** argv) {
  for (const auto& [name, body] : all()) {
    bool wanted = argc < 2;
    for (int i = 1; i < argc; ++i) wanted |= std::strcmp(argv[i], name) == 0;
    if (!wanted) continue;
    std::printf("%s\n", name);
    std::fflush(stdout);
    const auto begun = std::chrono::steady_clock::now();
    body();
    // Waits in the tests give up after kPatience: a test that took as long has lost a wake-up, whatever else came out right.
    if (std::chrono::steady_clock::now() - begun >= kPatience) fail(name, 0, "a wait was not woken");
  }
  return 0;
}

}  // namespace check

#define TEST(name)                                    \
  static void name();                                 \
  static const check::Add name##_added(#name, &name); \
  static void name()
#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) check::fail(__FILE__, __LINE__, "not true: " #condition); \
  } while (0)
#define CHECK_OK(expression)                                                                            \
  do {                                                                                                  \
    const ais::Status check_status = (expression);                                                      \
    if (!check_status.ok()) check::fail(__FILE__, __LINE__, #expression ": " + check_status.message()); \
  } while (0)
