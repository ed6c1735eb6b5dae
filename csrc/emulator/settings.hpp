// The settings of the emulated machine: read from the environment at the first call, and again by Machine::configure.
// docs/emulator.md has the table.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.hpp"
#include "emulator/product.hpp"

namespace ais::emulator {

// The execution time of a model: a fixed time or a distribution, in milliseconds.
struct ExecTime {
  enum class Shape { kFixed, kUniform, kNormal, kLogNormal, kExponential };
  Shape shape = Shape::kFixed;
  double a = 0;  // fixed: the time; uniform: low; normal: mean; lognormal: median; exponential: mean
  double b = 0;  // uniform: high; normal: deviation; lognormal: sigma

  // `uniform01`, `normal01`: a random number of each distribution.
  double milliseconds(double uniform01, double normal01) const;
};

struct DeviceSettings {
  int physical_id = 0;
  ExecTime exec;
  double copy_gbps = 0;  // bandwidth in each direction, in 1e9 bytes per second; 0: the speed of the host's copy
  std::size_t memory_bytes = 0;
};

struct Settings {
  std::string shape;  // the settings that cannot change while devices are in use, as text
  std::vector<DeviceSettings> devices;
  std::string soc;
  Product product = product_of("");
  std::string kernel;           // of the host, as uname reports it
  bool kernel_pins = true;      // newer than 5.10: memory that is not page-locked can be registered
  bool host_is_device = false;  // run mode ACL_DEVICE: host and device memory are the same
  int threads = 1;              // of ONNX Runtime, for each model
  std::uint64_t seed = 0;
  std::string faults;
  std::string fault_state;  // a file that counts the calls of all processes; "": each process counts its own
  std::string record;       // a file; "%p" is the process id
  std::string report;       // a file, as `record`; "": stderr
  bool abort_on_violation = false;
  std::string ort_library;
};

// An InvalidArgument names the variable and the allowed values.
Result<Settings> read_settings();

// Returns the process's settings; before replace_settings, or if the environment is invalid, those of a machine without
// devices.
const Settings& settings();
// Replaces the settings. References that settings() has returned stay valid.
void replace_settings(Settings made);

}  // namespace ais::emulator
