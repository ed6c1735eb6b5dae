// Appends providers to sessions, counts devices, and reports which provider runs which node.
#include "device/ort/ort_provider.hpp"

#include <algorithm>
#include <mutex>
#include <set>
#include <utility>

#include "base/dylib.hpp"
#include "base/words.hpp"

namespace ais::ort {
namespace {

const char* const kProcessor = "CPUExecutionProvider";

// Keys and values in the form of the C API.
struct Pairs {
  const std::map<std::string, std::string> texts;
  std::vector<const char*> keys;
  std::vector<const char*> values;

  explicit Pairs(std::map<std::string, std::string> options) : texts(std::move(options)) {
    for (const auto& [key, value] : texts) {
      keys.push_back(key.c_str());
      values.push_back(value.c_str());
    }
  }
};

std::map<std::string, std::string> own_options(const device::Options& options) {
  const std::string prefix = kProviderPrefix;
  std::map<std::string, std::string> own;
  for (const auto& [name, value] : options) {
    if (name.compare(0, prefix.size(), prefix) == 0) own[name.substr(prefix.size())] = value;
  }
  return own;
}

// A plugin is registered once in a process and never unregistered, because sessions may use it until the process ends.
Status register_plugin(const OrtApi& api, const std::string& library) {
  static auto* const lock = new std::mutex;
  static auto* const known = new std::set<std::string>;
  const std::lock_guard<std::mutex> guard(*lock);
  if (known->count(library) != 0) return Status();
  if (api.RegisterExecutionProviderLibrary == nullptr) {
    return Status(Code::kUnavailable, "ONNX Runtime " + api.version + " takes no provider libraries, 1.22 and newer do");
  }
  Status status =
      api.check(api.RegisterExecutionProviderLibrary(api.env, library.c_str(), library.c_str()), Code::kUnavailable);
  if (!status.ok()) return std::move(status).with_context("the provider library '" + library + "'");
  known->insert(library);
  return Status();
}

// Returns the devices that plugins offer for the provider, in the runtime's order.
Result<std::vector<const OrtEpDevice*>> plugin_devices(const OrtApi& api, const std::string& provider,
                                                       const std::string& library) {
  AIS_TRY(register_plugin(api, library));
  const OrtEpDevice* const* devices = nullptr;
  std::size_t count = 0;
  AIS_TRY(api.check(api.GetEpDevices(api.env, &devices, &count), Code::kUnavailable));
  std::vector<const OrtEpDevice*> found;
  for (std::size_t i = 0; i < count; ++i) {
    if (provider == api.EpDevice_EpName(devices[i])) found.push_back(devices[i]);
  }
  return found;
}

std::string library_of(const device::Options& options) {
  const auto given = options.find(kProviderLibrary);
  return given == options.end() ? "" : given->second;
}

// Returns the number of devices of a driver's library. It calls `begin`, which may be null, and then `count`, which fills an
// int. Both return 0 on success.
Result<int> count_by_driver(const std::string& what, const std::vector<std::string>& libraries, const char* begin,
                            const char* count) {
  AIS_ASSIGN(const Dylib driver, Dylib::open_first(what, libraries, [&](const Dylib& opened) {
               return opened.symbol(count) == nullptr ? "it exports no " + std::string(count) : "";
             }));
  if (begin != nullptr) {
    const auto start = reinterpret_cast<int (*)(unsigned)>(driver.symbol(begin));
    const int answer = start == nullptr ? 0 : start(0);
    if (answer != 0) return Status(Code::kUnavailable, what + ": " + begin + " answered " + std::to_string(answer), answer);
  }
  int devices = 0;
  const int answer = reinterpret_cast<int (*)(int*)>(driver.symbol(count))(&devices);
  if (answer != 0) return Status(Code::kUnavailable, what + ": " + count + " answered " + std::to_string(answer), answer);
  return devices;
}

// Returns whether the provider has the option "device_id". The others have one device, or another option that selects it.
bool takes_device_id(const std::string& provider) {
  static const std::set<std::string> numbered{"CUDAExecutionProvider", "TensorrtExecutionProvider", "MIGraphXExecutionProvider",
                                              "CANNExecutionProvider"};
  return numbered.count(provider) != 0;
}

// Creates the provider's options, fills them, appends the provider, and releases the options.
template <typename Own>
Status append_with(const OrtApi& api, OrtStatus* (*create)(Own**),
                   OrtStatus* (*update)(Own*, const char* const*, const char* const*, std::size_t),
                   OrtStatus* (*append)(OrtSessionOptions*, const Own*), void (*release)(Own*), const Pairs& pairs,
                   OrtSessionOptions* out) {
  Own* own = nullptr;
  AIS_TRY(api.check(create(&own), Code::kUnavailable));
  Status status = api.check(update(own, pairs.keys.data(), pairs.values.data(), pairs.keys.size()), Code::kInvalidArgument);
  if (status.ok()) status = api.check(append(out, own), Code::kUnavailable);
  release(own);
  return status;
}

Status append_built_in(const OrtApi& api, const std::string& provider, const std::map<std::string, std::string>& own,
                       OrtSessionOptions* out) {
  const Pairs pairs(own);
  if (provider == "CUDAExecutionProvider") {
    return append_with(api, api.CreateCUDAProviderOptions, api.UpdateCUDAProviderOptions,
                       api.SessionOptionsAppendExecutionProvider_CUDA_V2, api.ReleaseCUDAProviderOptions, pairs, out);
  }
  if (provider == "TensorrtExecutionProvider") {
    AIS_TRY(append_with(api, api.CreateTensorRTProviderOptions, api.UpdateTensorRTProviderOptions,
                        api.SessionOptionsAppendExecutionProvider_TensorRT_V2, api.ReleaseTensorRTProviderOptions, pairs, out));
    // CUDA runs the nodes that TensorRT does not support.
    const Pairs device({{"device_id", own.at("device_id")}});
    return append_with(api, api.CreateCUDAProviderOptions, api.UpdateCUDAProviderOptions,
                       api.SessionOptionsAppendExecutionProvider_CUDA_V2, api.ReleaseCUDAProviderOptions, device, out);
  }
  if (provider == "CANNExecutionProvider") {
    return append_with(api, api.CreateCANNProviderOptions, api.UpdateCANNProviderOptions,
                       api.SessionOptionsAppendExecutionProvider_CANN, api.ReleaseCANNProviderOptions, pairs, out);
  }
  const std::string suffix = "ExecutionProvider";
  const std::string name = provider.substr(0, provider.size() - std::min(provider.size(), suffix.size()));
  return api.check(
      api.SessionOptionsAppendExecutionProvider(out, name.c_str(), pairs.keys.data(), pairs.values.data(), pairs.keys.size()),
      Code::kUnavailable);
}

Status append_plugin(const OrtApi& api, const device::Options& options, const std::string& provider, int id,
                     OrtSessionOptions* out) {
  AIS_ASSIGN(const std::vector<const OrtEpDevice*> devices, plugin_devices(api, provider, library_of(options)));
  if (id < 0 || id >= static_cast<int>(devices.size())) {
    const int count = static_cast<int>(devices.size());
    return Status(Code::kUnavailable, "device " + std::to_string(id) + " of " + provider +
                                          " does not exist; the provider offers " +
                                          (count == 0 ? std::string("no device here") : device_range(count)));
  }
  const Pairs pairs(own_options(options));
  return api.check(api.SessionOptionsAppendExecutionProvider_V2(out, api.env, &devices[static_cast<std::size_t>(id)], 1,
                                                                pairs.keys.data(), pairs.values.data(), pairs.keys.size()),
                   Code::kUnavailable);
}

Status check_built_in(const OrtApi& api, const std::string& provider) {
  AIS_ASSIGN(const std::vector<std::string> known, built_in_providers(api));
  if (std::find(known.begin(), known.end(), provider) != known.end()) return Status();
  return Status(Code::kUnavailable, "ONNX Runtime " + api.version + " in '" + api.library.path() + "' has no " + provider +
                                        ", it has " + quoted_list(known));
}

}  // namespace

std::string provider_of(const device::Options& options) {
  const auto given = options.find(kProvider);
  return given == options.end() ? "" : given->second;
}

Result<std::vector<std::string>> built_in_providers(const OrtApi& api) {
  char** names = nullptr;
  int count = 0;
  AIS_TRY(api.check(api.GetAvailableProviders(&names, &count), Code::kUnavailable));
  std::vector<std::string> found(names, names + count);
  AIS_TRY(api.check(api.ReleaseAvailableProviders(names, count), Code::kUnavailable));
  return found;
}

Result<std::vector<std::string>> provider_devices(const OrtApi& api, const device::Options& options) {
  const std::string provider = provider_of(options);
  std::vector<std::string> names;
  if (!library_of(options).empty()) {
    AIS_ASSIGN(const std::vector<const OrtEpDevice*> devices, plugin_devices(api, provider, library_of(options)));
    for (const OrtEpDevice* device : devices) {
      const std::string maker = api.HardwareDevice_Vendor(api.EpDevice_Device(device));
      names.push_back(std::string(api.EpDevice_EpVendor(device)) + (maker.empty() ? "" : " on " + maker));
    }
    return names;
  }
  AIS_TRY(check_built_in(api, provider));
  int count = 1;
  if (provider == "CUDAExecutionProvider" || provider == "TensorrtExecutionProvider") {
    AIS_ASSIGN(count, count_by_driver("NVIDIA's driver", {"libcuda.so.1", "libcuda.so"}, "cuInit", "cuDeviceGetCount"));
  } else if (provider == "MIGraphXExecutionProvider") {
    AIS_ASSIGN(count, count_by_driver("AMD's HIP", {"libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6"}, nullptr,
                                      "hipGetDeviceCount"));
  }
  names.assign(static_cast<std::size_t>(std::max(count, 0)), provider);
  return names;
}

Status append_provider(const OrtApi& api, const device::Options& options, int id, OrtSessionOptions* out) {
  const std::string provider = provider_of(options);
  if (provider.empty()) return Status();
  if (api.Session_GetEpGraphAssignmentInfo != nullptr) {
    AIS_TRY(api.check(api.AddSessionConfigEntry(out, "session.record_ep_graph_assignment_info", "1"), Code::kInvalidArgument));
  }
  const auto fallback = options.find(kFallback);
  if (fallback != options.end() && fallback->second == "error") {
    AIS_TRY(api.check(api.AddSessionConfigEntry(out, "session.disable_cpu_ep_fallback", "1"), Code::kInvalidArgument));
  }
  if (!library_of(options).empty()) return append_plugin(api, options, provider, id, out);
  AIS_TRY(check_built_in(api, provider));
  std::map<std::string, std::string> own = own_options(options);
  if (takes_device_id(provider)) own["device_id"] = std::to_string(id);
  return append_built_in(api, provider, own, out);
}

const OrtEpDevice* plugin_device(const OrtApi& api, const device::Options& options, int id) {
  if (provider_of(options).empty() || library_of(options).empty()) return nullptr;
  const auto devices = plugin_devices(api, provider_of(options), library_of(options));
  if (!devices.ok() || id < 0 || id >= static_cast<int>(devices.value().size())) return nullptr;
  return devices.value()[static_cast<std::size_t>(id)];
}

bool has_own_memory(const OrtApi& api, const device::Options& options, int id) {
  if (library_of(options).empty()) return takes_device_id(provider_of(options));
  const OrtEpDevice* const device = plugin_device(api, options, id);
  if (device == nullptr) return false;
  constexpr int kCpu = 0;
  constexpr int kDefaultMemory = 0;
  if (api.HardwareDevice_Type(api.EpDevice_Device(device)) != kCpu) return true;
  return api.EpDevice_MemoryInfo != nullptr && api.EpDevice_MemoryInfo(device, kDefaultMemory) != nullptr;
}

Result<device::Placement> read_placement(const OrtApi& api, const OrtSession* session, const std::string& provider) {
  device::Placement placement;
  if (provider.empty() || api.Session_GetEpGraphAssignmentInfo == nullptr) return placement;
  const OrtEpAssignedSubgraph* const* parts = nullptr;
  std::size_t count = 0;
  AIS_TRY(api.check(api.Session_GetEpGraphAssignmentInfo(session, &parts, &count), Code::kModelLoad));
  for (std::size_t i = 0; i < count; ++i) {
    const char* owner = nullptr;
    const OrtEpAssignedNode* const* nodes = nullptr;
    std::size_t size = 0;
    AIS_TRY(api.check(api.EpAssignedSubgraph_GetEpName(parts[i], &owner), Code::kModelLoad));
    AIS_TRY(api.check(api.EpAssignedSubgraph_GetNodes(parts[i], &nodes, &size), Code::kModelLoad));
    placement.nodes += size;
    if (std::string(owner) != kProcessor) continue;
    for (std::size_t n = 0; n < size; ++n) {
      const char* name = nullptr;
      const char* type = nullptr;
      AIS_TRY(api.check(api.EpAssignedNode_GetName(nodes[n], &name), Code::kModelLoad));
      AIS_TRY(api.check(api.EpAssignedNode_GetOperatorType(nodes[n], &type), Code::kModelLoad));
      placement.on_the_cpu.push_back(std::string(type) + " '" + name + "'");
    }
  }
  placement.known = true;
  return placement;
}

}  // namespace ais::ort
