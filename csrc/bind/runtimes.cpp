// The opened runtimes by name. All state here is guarded by the GIL.
#include "bind/runtimes.hpp"

#include <pybind11/stl.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/file.hpp"
#include "base/memory.hpp"
#include "base/process.hpp"
#include "bind/bind.hpp"
#include "device/onnx_file.hpp"
#include "device/runtimes.hpp"
#include "session/session.hpp"

namespace ais::bind {
namespace {

struct Opened {
  device::Runtime* runtime;
  std::string library;  // the one that the environment named; "": none
};

std::map<std::string, Opened>& opened() {
  static auto* const runtimes = new std::map<std::string, Opened>;
  return *runtimes;
}

std::string named_library(const std::string& runtime) {
  const char* name = runtime == "acl" ? std::getenv("AIS_BENCH_ACL_LIBRARY") : nullptr;
  return name == nullptr ? "" : name;
}

// Of the newest session: its runtime, and what says which provider it uses.
struct Current {
  std::string runtime = "ort";
  device::Options provider;
};

Current& current() {
  static auto* const newest = new Current;
  return *newest;
}

// The devices of tensors that were moved to one. They are shared, because opening an NPU takes a while.
using DeviceKey = std::tuple<std::string, device::Options, int>;
std::map<DeviceKey, std::weak_ptr<device::Device>>& shared_devices() {
  static auto* const devices = new std::map<DeviceKey, std::weak_ptr<device::Device>>;
  return *devices;
}

}  // namespace

Result<device::Runtime*> find_runtime(const std::string& name) {
  const auto found = opened().find(name);
  const std::string library = named_library(name);
  if (found != opened().end()) {
    if (!library.empty() && library != found->second.library) {
      const std::string& had = found->second.library;
      return Status(Code::kInvalidArgument, "AIS_BENCH_ACL_LIBRARY names '" + library + "', and this process has loaded " +
                                                (had.empty() ? "the AscendCL that was found" : "'" + had + "'") +
                                                "; a process loads AscendCL once, so the other one needs a new process");
    }
    return found->second.runtime;
  }
  const auto libraries = py::module_::import("ais_bench.libraries").attr("candidates")(name).cast<std::vector<std::string>>();
  AIS_ASSIGN(device::Runtime * runtime, device::open_runtime(name, libraries));
  opened()[name] = {runtime, library};
  return runtime;
}

device::Runtime* runtime_named(const std::string& name) { return value_or_raise(find_runtime(name)); }

void set_current_runtime(const std::string& name, const device::Options& options) {
  Current newest{name, {}};
  for (const char* option : {"provider", "provider_library"}) {
    if (const auto given = options.find(option); given != options.end()) newest.provider.insert(*given);
  }
  current() = std::move(newest);
}

std::shared_ptr<device::Device> open_current_device(int device_id) {
  const Current newest = current();
  std::weak_ptr<device::Device>& known = shared_devices()[{newest.runtime, newest.provider, device_id}];
  if (auto live = known.lock()) return live;
  auto device = value_or_raise(runtime_named(newest.runtime)->open(device_id, newest.provider));
  known = device;
  return device;
}

void finalize_runtimes() {
  shared_devices().clear();
  std::vector<device::Runtime*> runtimes;
  for (const auto& entry : opened()) runtimes.push_back(entry.second.runtime);
  Status status;
  {
    const NoGil nogil;
    session::Session::close_all();
    for (device::Runtime* runtime : runtimes) {
      Status finalized = runtime->finalize();
      if (status.ok()) status = std::move(finalized);
    }
  }
  raise_if_error(status);
}

namespace {

void register_providers(py::module_& module) {
  module.def("built_in_providers", [] { return value_or_raise(runtime_named("ort")->built_in()); });
  module.def("is_ort_option", &device::is_ort_option);
  module.def("provider_devices", [](const device::Options& options) {
    device::Runtime* runtime = runtime_named("ort");
    return value_or_raise([&] {
      const NoGil nogil;
      return runtime->devices_of(options);
    }());
  });
}

}  // namespace

void register_runtimes(py::module_& module) {
  module.def("finalize", &finalize_runtimes);
  module.def("usable_cpu_count", &usable_cpu_count);
  module.def("allowed_cpus", &allowed_cpus);
  module.def("current_cpu", &current_cpu);
  module.def(
      "memory_limit",
      [](const std::string& cgroups, const std::string& own) { return memory_limit({cgroups, own, MemoryFiles().machine}); },
      py::arg("cgroups") = MemoryFiles().cgroups, py::arg("own") = MemoryFiles().own);
  module.def(
      "memory_room",
      [](const std::string& cgroups, const std::string& own) {
        const MemoryRoom room = memory_room({cgroups, own, MemoryFiles().machine});
        return py::make_tuple(room.limit, room.available, room.of);
      },
      py::arg("cgroups") = MemoryFiles().cgroups, py::arg("own") = MemoryFiles().own);
  module.def("runtime_for", [](const py::bytes& path) {
    device::ModelSource source;
    source.path = path;
    return value_or_raise(device::runtime_for(source, ""));
  });
  module.def("runtime_for_content", [](const py::bytes& content) {
    const py::buffer_info bytes = py::buffer(content).request();
    device::ModelSource source;
    source.bytes = bytes.ptr;
    source.size = static_cast<std::size_t>(bytes.size);
    return value_or_raise(device::runtime_for(source, ""));
  });
  module.def("external_data", [](const py::bytes& path) {
    const device::ExternalData found = value_or_raise([&]() -> Result<device::ExternalData> {
      AIS_ASSIGN(const MappedFile file, MappedFile::open(path));
      return device::external_data(file.data(), file.size());
    }());
    return py::make_tuple(found.bytes, std::vector<py::bytes>(found.files.begin(), found.files.end()));
  });
  module.def("runtime_version", [](const std::string& name) { return runtime_named(name)->version(); });
  module.def("runtime_about", [](const std::string& name) {
    const device::Runtime* runtime = runtime_named(name);
    return py::make_tuple(runtime->version(), runtime->toolkit(), runtime->chip());
  });
  module.def("runtime_library", [](const std::string& name) { return runtime_named(name)->library(); });
  module.def("device_memory", [](const std::string& name, int device_id) {
    device::Runtime* runtime = runtime_named(name);
    const device::MemoryInfo memory = value_or_raise([&]() -> Result<device::MemoryInfo> {
      const NoGil nogil;
      AIS_ASSIGN(const std::shared_ptr<device::Device> device, runtime->open(device_id, {}));
      return device->memory();
    }());
    return py::make_tuple(memory.free, memory.total);
  });
  module.def("device_count", [](const std::string& name) { return value_or_raise(runtime_named(name)->device_count()); });
  register_providers(module);
}

}  // namespace ais::bind
