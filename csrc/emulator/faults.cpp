// Parses and applies fault rules, and counts calls.
#include "emulator/faults.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <sstream>
#include <thread>
#include <vector>

#include "base/process.hpp"
#include "emulator/error.hpp"

namespace ais::emulator {
namespace {

constexpr std::size_t kMaxRules = 256;

enum class Action { kCode, kHang, kDelay, kCrash, kExit };

struct Rule {
  std::string text;
  std::string function;
  std::uint64_t first = 1;
  std::uint64_t last = UINT64_MAX;
  Action action = Action::kCode;
  aclError code = 0;
  double delay_ms = 0;
  int device = -1;
};

using Counter = std::atomic<std::uint64_t>;
static_assert(Counter::is_always_lock_free && sizeof(Counter) == 8, "the counters are shared between processes");

// A set of rules with counters. It is replaced as a whole, so a call in progress keeps its set.
struct RuleSet {
  std::uint64_t number = 0;
  std::vector<Rule> rules;
  Counter* counters = nullptr;
  std::unique_ptr<Counter[]> own;
  void* mapped = nullptr;

  ~RuleSet() {
    if (mapped != nullptr) munmap(mapped, kMaxRules * sizeof(Counter));
  }
};

std::mutex& rules_mutex() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}
std::shared_ptr<RuleSet>& current_rules() {
  static auto* const current = new std::shared_ptr<RuleSet>;
  return *current;
}
std::atomic<bool> g_any_rules{false};
std::atomic<std::uint64_t> g_fired{0};
std::atomic<std::uint64_t> g_newest{0};  // the number of the current rules

Status bad(const std::string& rule, const std::string& why) {
  return Status(Code::kInvalidArgument,
                "the fault rule '" + rule + "' " + why + "; a rule is function[:calls]=action[@device]");
}

bool whole_number(const std::string& text, std::uint64_t* out) {
  char* end = nullptr;
  errno = 0;
  *out = std::strtoull(text.c_str(), &end, 10);
  return !text.empty() && text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
}

bool parse_calls(const std::string& text, Rule* rule) {
  if (!text.empty() && text.back() == '+') return whole_number(text.substr(0, text.size() - 1), &rule->first);
  const std::size_t dash = text.find('-');
  if (dash != std::string::npos) {
    return whole_number(text.substr(0, dash), &rule->first) && whole_number(text.substr(dash + 1), &rule->last);
  }
  if (!whole_number(text, &rule->first)) return false;
  rule->last = rule->first;
  return true;
}

bool parse_action(const std::string& text, Rule* rule) {
  std::uint64_t number = 0;
  if (text == "oom") {
    rule->code = ACL_ERROR_RT_MEMORY_ALLOCATION;
  } else if (text == "lost") {
    rule->code = ACL_ERROR_RT_LOST_HEARTBEAT;
  } else if (text == "hang") {
    rule->action = Action::kHang;
  } else if (text == "crash") {
    rule->action = Action::kCrash;
  } else if (text == "exit") {
    rule->action = Action::kExit;
  } else if (text.rfind("delay(", 0) == 0 && text.back() == ')') {
    char* end = nullptr;
    rule->action = Action::kDelay;
    rule->delay_ms = std::strtod(text.c_str() + 6, &end);
    return end == text.c_str() + text.size() - 1 && rule->delay_ms >= 0;
  } else if (whole_number(text, &number) && number > 0 && number < 1000000) {
    rule->code = static_cast<aclError>(number);
  } else {
    return false;
  }
  return true;
}

Result<Rule> parse_rule(const std::string& text) {
  Rule rule;
  rule.text = text;
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos) return bad(text, "has no '='");
  std::string left = text.substr(0, equals);
  std::string right = text.substr(equals + 1);
  const std::size_t at = right.find('@');
  if (at != std::string::npos) {
    std::uint64_t device = 0;
    if (!whole_number(right.substr(at + 1), &device) || device > 1023) return bad(text, "names no device after '@'");
    rule.device = static_cast<int>(device);
    right.resize(at);
  }
  const std::size_t colon = left.find(':');
  if (colon != std::string::npos) {
    if (!parse_calls(left.substr(colon + 1), &rule)) return bad(text, "counts calls as '3', '3+' or '2-4'");
    left.resize(colon);
  }
  rule.function = left;
  if (rule.function.empty()) return bad(text, "names no function");
  if (!parse_action(right, &rule)) {
    return bad(text, "has an unknown action; there are: a code, oom, lost, hang, delay(ms), crash, exit");
  }
  return rule;
}

Status map_counters(const std::string& path, RuleSet* set) {
  constexpr std::size_t kBytes = kMaxRules * sizeof(Counter);
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return Status(Code::kSystem, "the fault state '" + path + "' cannot be opened: " + std::strerror(errno));
  void* mapped = MAP_FAILED;
  if (ftruncate(file, kBytes) == 0) mapped = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  const int error = errno;
  close(file);
  if (mapped == MAP_FAILED)
    return Status(Code::kSystem, "the fault state '" + path + "' cannot be mapped: " + std::strerror(error));
  set->mapped = mapped;
  set->counters = static_cast<Counter*>(mapped);
  return Status();
}

thread_local const std::atomic<bool>* t_stop = nullptr;

aclError hang(const Rule& rule) {
  while (!work_is_stopped()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return fail(ACL_ERROR_RT_DEVICE_TASK_ABORT, "the hang of the fault rule '" + rule.text + "' was ended");
}

// Ends before its time when the rules are replaced, so that a test decides when the work continues.
void delay(double ms, std::uint64_t rules) {
  constexpr std::int64_t kSliceNs = 5'000'000;
  const std::int64_t end = monotonic_ns() + static_cast<std::int64_t>(ms * 1e6);
  for (std::int64_t now = monotonic_ns(); now < end && g_newest == rules && !work_is_stopped(); now = monotonic_ns()) {
    std::this_thread::sleep_for(std::chrono::nanoseconds(std::min(end - now, kSliceNs)));
  }
}

aclError carry_out(const Rule& rule, std::uint64_t call, std::uint64_t rules) {
  g_fired.fetch_add(1, std::memory_order_relaxed);
  switch (rule.action) {
    case Action::kCode:
      return fail(rule.code, "injected by the fault rule '" + rule.text + "' at call " + std::to_string(call));
    case Action::kDelay:
      delay(rule.delay_ms, rules);
      return ACL_SUCCESS;
    case Action::kHang:
      return hang(rule);
    case Action::kCrash:
      std::fprintf(stderr, "AscendCL emulator: crash by the fault rule '%s'\n", rule.text.c_str());
      std::abort();
    case Action::kExit:
      _exit(1);
  }
  return ACL_SUCCESS;
}

}  // namespace

Status set_faults(const std::string& rules, const std::string& state) {
  auto set = std::make_shared<RuleSet>();
  std::istringstream stream(rules);
  for (std::string text; std::getline(stream, text, ';');) {
    if (text.empty()) continue;
    AIS_ASSIGN(Rule rule, parse_rule(text));
    set->rules.push_back(std::move(rule));
  }
  if (set->rules.size() > kMaxRules) {
    return Status(Code::kInvalidArgument, "there are " + std::to_string(set->rules.size()) + " fault rules, 256 at most");
  }
  if (state.empty()) {
    set->own = std::make_unique<Counter[]>(kMaxRules);
    set->counters = set->own.get();
  } else {
    AIS_TRY(map_counters(state, set.get()));
  }
  const std::lock_guard<std::mutex> lock(rules_mutex());
  g_any_rules = !set->rules.empty();
  g_fired = 0;
  set->number = ++g_newest;
  current_rules() = std::move(set);
  return Status();
}

aclError fault_at(const char* function, int device) {
  if (!g_any_rules.load(std::memory_order_acquire)) return ACL_SUCCESS;
  std::shared_ptr<RuleSet> set;
  {
    const std::lock_guard<std::mutex> lock(rules_mutex());
    set = current_rules();
  }
  for (std::size_t i = 0; i < set->rules.size(); ++i) {
    const Rule& rule = set->rules[i];
    if (rule.device >= 0 && rule.device != device) continue;
    if (rule.function != "*" && rule.function != function) continue;
    const std::uint64_t call = set->counters[i].fetch_add(1, std::memory_order_relaxed) + 1;
    if (call < rule.first || call > rule.last) continue;
    const aclError code = carry_out(rule, call, set->number);
    if (code != ACL_SUCCESS) return code;
  }
  return ACL_SUCCESS;
}

bool work_is_stopped() { return t_stop != nullptr && *t_stop; }

void interrupt_hangs_by(const std::atomic<bool>* stop) { t_stop = stop; }

std::uint64_t faults_fired() { return g_fired.load(std::memory_order_relaxed); }

}  // namespace ais::emulator
