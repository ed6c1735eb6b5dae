// How the emulated machine is made: read from the environment at the first call, and again when Machine::configure is asked.
// docs/emulator.md has the table.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.hpp"
#include "emulator/product.hpp"

namespace ais::emulator {

// How long a model runs: a fixed time or a distribution, in milliseconds.
struct ExecTime {
  enum class Shape { kFixed, kUniform, kNormal, kLogNormal, kExponential };
  Shape shape = Shape::kFixed;
  double a = 0;  // fixed: the time; uniform: low; normal: mean; lognormal: median; exponential: mean
  double b = 0;  // uniform: high; normal: deviation; lognormal: sigma

  // `uniform01` and `normal01` are one draw of each kind.
  double milliseconds(double uniform01, double normal01) const;
};

struct DeviceSettings {
  int physical_id = 0;
  ExecTime exec;
  double copy_gbps = 0;  // bandwidth of one direction in 1e9 bytes a second; 0: as fast as the host copies
  std::size_t memory_bytes = 0;
};

struct Settings {
  std::string shape;  // the settings that cannot change while devices are in use, in words
  std::vector<DeviceSettings> devices;
  std::string soc;
  Product product = product_of("");
  std::string kernel;           // of the host, as uname says it
  bool kernel_pins = true;      // it is newer than 5.10, so that memory which is not page-locked can be registered
  bool host_is_device = false;  // run mode ACL_DEVICE: host and device memory are the same
  int threads = 1;              // of ONNX Runtime, a model
  std::uint64_t seed = 0;
  std::string faults;
  std::string fault_state;  // a file that counts calls over all processes; "": each counts its own
  std::string record;       // a file; "%p" is the process id
  std::string report;       // a file, as above; "": stderr
  bool abort_on_violation = false;
  std::string ort_library;
};

// InvalidArgument names the variable and what it takes.
Result<Settings> read_settings();

// The process's settings; those of a machine without devices until replace_settings, or where the environment cannot be read.
const Settings& settings();
// What was handed out by settings() before stays valid.
void replace_settings(Settings made);

}  // namespace ais::emulator
