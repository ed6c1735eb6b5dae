// Parses AIS_EMULATOR_* variables. A value for each device has the form "default;2=other;5=other".
#include "emulator/settings.hpp"

#include <sys/utsname.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>
#include <utility>

namespace ais::emulator {
namespace {

std::string variable(const char* name, const char* fallback = "") {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? fallback : value;
}

Status bad(const std::string& name, const std::string& value, const std::string& wanted) {
  return Status(Code::kInvalidArgument, name + " is '" + value + "'; it takes " + wanted);
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

Result<double> number(const std::string& name, const std::string& text, double low, double high) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= low && value <= high)) {
    std::ostringstream wanted;
    wanted << "a number from " << low << " to " << high;
    return bad(name, text, wanted.str());
  }
  return value;
}

std::string kernel_release() {
  utsname name = {};
  return uname(&name) == 0 ? name.release : "0.0";
}

Result<bool> newer_than_5_10(const std::string& release) {
  int major = 0;
  int minor = 0;
  if (std::sscanf(release.c_str(), "%d.%d", &major, &minor) != 2)
    return bad("AIS_EMULATOR_KERNEL", release, "a release such as '5.10'");
  return major > 5 || (major == 5 && minor > 10);
}

Result<ExecTime> exec_time(const std::string& name, const std::string& text) {
  static const std::map<std::string, std::pair<ExecTime::Shape, std::size_t>> kShapes = {
      {"uniform", {ExecTime::Shape::kUniform, 2}},
      {"normal", {ExecTime::Shape::kNormal, 2}},
      {"lognormal", {ExecTime::Shape::kLogNormal, 2}},
      {"exponential", {ExecTime::Shape::kExponential, 1}},
  };
  constexpr double kDay = 86400e3;
  ExecTime time;
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos) {
    AIS_ASSIGN(time.a, number(name, text, 0, kDay));
    return time;
  }
  const auto shape = kShapes.find(text.substr(0, colon));
  const std::vector<std::string> values = split(text.substr(colon + 1), ',');
  if (shape == kShapes.end() || values.size() != shape->second.second) {
    return bad(name, text, "milliseconds: '5', 'uniform:4,6', 'normal:5,0.5', 'lognormal:5,0.3' or 'exponential:5'");
  }
  time.shape = shape->second.first;
  AIS_ASSIGN(time.a, number(name, values[0], 0, kDay));
  if (values.size() == 2) {
    AIS_ASSIGN(time.b, number(name, values[1], 0, kDay));
  }
  return time;
}

// Calls set(device, text) for every device, with the device's own text or the default.
template <typename Set>
Status per_device(const std::string& name, const char* fallback, std::size_t devices, Set set) {
  std::string general = fallback;
  std::map<std::size_t, std::string> own;
  for (const std::string& part : split(variable(name.c_str()), ';')) {
    const std::size_t equals = part.find('=');
    if (equals == std::string::npos) {
      general = part;
      continue;
    }
    AIS_ASSIGN(const double id, number(name, part.substr(0, equals), 0, static_cast<double>(devices) - 1));
    own[static_cast<std::size_t>(id)] = part.substr(equals + 1);
  }
  for (std::size_t device = 0; device < devices; ++device) {
    const auto found = own.find(device);
    AIS_TRY(set(device, found == own.end() ? general : found->second));
  }
  return Status();
}

Status read_devices(Settings* out) {
  AIS_ASSIGN(const double count, number("AIS_EMULATOR_DEVICES", variable("AIS_EMULATOR_DEVICES", "8"), 0, 1024));
  std::vector<DeviceSettings> all(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < all.size(); ++i) all[i].physical_id = static_cast<int>(i);
  AIS_TRY(per_device("AIS_EMULATOR_EXEC_MS", "0", all.size(), [&](std::size_t device, const std::string& text) {
    AIS_ASSIGN(all[device].exec, exec_time("AIS_EMULATOR_EXEC_MS", text));
    return Status();
  }));
  AIS_TRY(per_device("AIS_EMULATOR_COPY_GBPS", "0", all.size(), [&](std::size_t device, const std::string& text) {
    AIS_ASSIGN(all[device].copy_gbps, number("AIS_EMULATOR_COPY_GBPS", text, 0, 1e6));
    return Status();
  }));
  AIS_TRY(per_device("AIS_EMULATOR_MEMORY_MB", "32768", all.size(), [&](std::size_t device, const std::string& text) {
    AIS_ASSIGN(const double megabytes, number("AIS_EMULATOR_MEMORY_MB", text, 1, 1e9));
    all[device].memory_bytes = static_cast<std::size_t>(megabytes * 1048576.0);
    return Status();
  }));
  const std::string visible = variable("ASCEND_RT_VISIBLE_DEVICES");
  if (visible.empty()) {
    out->devices = std::move(all);
    return Status();
  }
  for (const std::string& id : split(visible, ',')) {
    AIS_ASSIGN(const double device, number("ASCEND_RT_VISIBLE_DEVICES", id, 0, count - 1));
    out->devices.push_back(all[static_cast<std::size_t>(device)]);
  }
  return Status();
}

}  // namespace

double ExecTime::milliseconds(double uniform01, double normal01) const {
  switch (shape) {
    case Shape::kFixed:
      return a;
    case Shape::kUniform:
      return a + (b - a) * uniform01;
    case Shape::kNormal:
      return std::fmax(0.0, a + b * normal01);
    case Shape::kLogNormal:
      return a * std::exp(b * normal01);
    case Shape::kExponential:
      return -a * std::log1p(-uniform01);
  }
  return a;
}

Result<Settings> read_settings() {
  Settings out;
  AIS_TRY(read_devices(&out));
  out.soc = variable("AIS_EMULATOR_SOC", "Ascend910B3");
  out.product = product_of(out.soc);
  out.kernel = variable("AIS_EMULATOR_KERNEL", kernel_release().c_str());
  AIS_ASSIGN(out.kernel_pins, newer_than_5_10(out.kernel));
  const std::string mode = variable("AIS_EMULATOR_RUN_MODE", "host");
  if (mode != "host" && mode != "device") return bad("AIS_EMULATOR_RUN_MODE", mode, "'host' or 'device'");
  out.host_is_device = mode == "device";
  AIS_ASSIGN(const double threads, number("AIS_EMULATOR_THREADS", variable("AIS_EMULATOR_THREADS", "1"), 1, 1024));
  out.threads = static_cast<int>(threads);
  AIS_ASSIGN(const double seed, number("AIS_EMULATOR_SEED", variable("AIS_EMULATOR_SEED", "0"), 0, 4294967295.0));
  out.seed = static_cast<std::uint64_t>(seed);
  out.faults = variable("AIS_EMULATOR_FAULTS");
  out.fault_state = variable("AIS_EMULATOR_FAULT_STATE");
  out.record = variable("AIS_EMULATOR_RECORD");
  out.report = variable("AIS_EMULATOR_REPORT");
  const std::string strict = variable("AIS_EMULATOR_ON_VIOLATION", "report");
  if (strict != "report" && strict != "abort") return bad("AIS_EMULATOR_ON_VIOLATION", strict, "'report' or 'abort'");
  out.abort_on_violation = strict == "abort";
  out.ort_library = variable("AIS_BENCH_ORT_LIBRARY");
  for (const char* name : {"AIS_EMULATOR_DEVICES", "ASCEND_RT_VISIBLE_DEVICES", "AIS_EMULATOR_EXEC_MS",
                           "AIS_EMULATOR_COPY_GBPS", "AIS_EMULATOR_MEMORY_MB", "AIS_EMULATOR_SOC", "AIS_EMULATOR_RUN_MODE",
                           "AIS_EMULATOR_KERNEL", "AIS_EMULATOR_THREADS", "AIS_EMULATOR_SEED"}) {
    out.shape += std::string(name) + "='" + variable(name) + "' ";
  }
  return out;
}

namespace {

std::atomic<const Settings*>& current() {
  static auto* const pointer = new std::atomic<const Settings*>(new Settings);
  return *pointer;
}

}  // namespace

const Settings& settings() { return *current().load(std::memory_order_acquire); }

void replace_settings(Settings made) {
  static_cast<void>(current().exchange(new Settings(std::move(made)),
                                       std::memory_order_acq_rel));  // other threads may still read the old settings
}

}  // namespace ais::emulator
