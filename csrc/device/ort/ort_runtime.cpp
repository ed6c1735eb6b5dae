// ONNX Runtime as a device runtime. Its devices are the processors that this process may use, and the devices of providers.
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/process.hpp"
#include "base/words.hpp"
#include "device/ort/ort_api.hpp"
#include "device/ort/ort_memory.hpp"
#include "device/ort/ort_model.hpp"
#include "device/ort/ort_options.hpp"
#include "device/ort/ort_provider.hpp"
#include "device/runtimes.hpp"

namespace ais::ort {
namespace {

constexpr std::size_t kAlignment = 64;  // a cache line, and enough for the widest vectors

class OrtDevice final : public device::Device, public std::enable_shared_from_this<OrtDevice> {
 public:
  OrtDevice(const OrtApi& api, int id, std::string provider) : api_(api), id_(id), provider_(std::move(provider)) {}

  int id() const override { return id_; }
  std::string runtime() const override { return "ort"; }
  std::string provider() const override { return provider_; }
  bool host_visible() const override { return true; }

  Result<device::Buffer> allocate(std::size_t bytes) override {
    const std::size_t rounded =
        (bytes + kAlignment) / kAlignment * kAlignment;  // at least one line, so that the pointer is never null
    void* data = rounded < bytes ? nullptr : std::aligned_alloc(kAlignment, rounded);
    if (data == nullptr)
      return Status(Code::kOutOfMemory, "the host has no " + std::to_string(bytes) + " bytes of memory left");
    return device::Buffer{std::shared_ptr<void>(data, std::free), bytes};
  }

  Status copy_to_device(void* to, const void* from, std::size_t bytes) override { return copy_on_device(to, from, bytes); }
  Status copy_to_host(void* to, const void* from, std::size_t bytes) override { return copy_on_device(to, from, bytes); }
  Status copy_on_device(void* to, const void* from, std::size_t bytes) override {
    if (bytes != 0) std::memcpy(to, from, bytes);
    return Status();
  }

  // This device uses host memory, so there is nothing to register.
  Status register_host(void*, std::size_t) override { return Status(); }
  Status unregister_host(void*) override { return Status(); }

  Result<std::shared_ptr<device::Model>> load(const device::ModelSource& source, const device::Options& options) override {
    return OrtModel::load(api_, shared_from_this(), nullptr, source, options);
  }

 private:
  const OrtApi& api_;
  const int id_;
  const std::string provider_;  // "": the processor
};

// A device of a plugin with its own memory. Inputs and outputs are bound there.
class OrtPluginDevice final : public device::Device, public std::enable_shared_from_this<OrtPluginDevice> {
 public:
  using Side = DeviceMemory::Side;
  OrtPluginDevice(const OrtApi& api, int id, std::string provider, std::shared_ptr<DeviceMemory> memory)
      : api_(api), id_(id), provider_(std::move(provider)), memory_(std::move(memory)) {}

  int id() const override { return id_; }
  std::string runtime() const override { return "ort"; }
  std::string provider() const override { return provider_; }
  bool host_visible() const override { return false; }

  Result<device::Buffer> allocate(std::size_t bytes) override { return named(memory_->allocate(bytes)); }
  Status copy_to_device(void* to, const void* from, std::size_t bytes) override {
    return named(memory_->copy({to, Side::kDevice}, {const_cast<void*>(from), Side::kHost}, bytes));
  }
  Status copy_to_host(void* to, const void* from, std::size_t bytes) override {
    return named(memory_->copy({to, Side::kHost}, {const_cast<void*>(from), Side::kDevice}, bytes));
  }
  Status copy_on_device(void* to, const void* from, std::size_t bytes) override {
    return named(memory_->copy({to, Side::kDevice}, {const_cast<void*>(from), Side::kDevice}, bytes));
  }

  Status register_host(void* host, std::size_t bytes) override { return memory_->register_host(host, bytes); }
  Status unregister_host(void* host) override { return memory_->unregister_host(host); }
  std::string host_memory() override { return memory_->host_memory(); }

  Result<std::shared_ptr<device::Model>> load(const device::ModelSource& source, const device::Options& options) override {
    return OrtModel::load(api_, shared_from_this(), memory_, source, options);
  }

 private:
  std::string name() const { return "device " + std::to_string(id_) + " of " + provider_; }
  Status named(Status status) const { return status.ok() ? std::move(status) : std::move(status).with_context(name()); }
  Result<device::Buffer> named(Result<device::Buffer> made) const {
    if (made.ok()) return made;
    return made.take_status().with_context(name());
  }

  const OrtApi& api_;
  const int id_;
  const std::string provider_;
  const std::shared_ptr<DeviceMemory> memory_;
};

class OrtRuntime final : public device::Runtime {
 public:
  explicit OrtRuntime(std::unique_ptr<OrtApi> api) : api_(std::move(api)) {}

  std::string name() const override { return "ort"; }
  std::string version() const override { return api_->version; }
  Result<int> device_count() override { return static_cast<int>(allowed_cpus().size()); }

  // Option "devices" replaces the count, because a pool's worker is pinned to its share of the processors and sees only those.
  Result<std::shared_ptr<device::Device>> open(int device_id, const device::Options& options) override {
    if (const std::string provider = provider_of(options); !provider.empty()) {
      if (const OrtEpDevice* const plugin = plugin_device(*api_, options, device_id); plugin != nullptr) {
        std::shared_ptr<DeviceMemory> memory = DeviceMemory::find(*api_, plugin);
        if (memory != nullptr) {
          return std::shared_ptr<device::Device>(
              std::make_shared<OrtPluginDevice>(*api_, device_id, provider, std::move(memory)));
        }
      }
      // Creating a session reports a device that does not exist. A check here would open the driver a second time.
      return std::shared_ptr<device::Device>(std::make_shared<OrtDevice>(*api_, device_id, provider));
    }
    AIS_ASSIGN(const int count, option_int(options, "devices", static_cast<int>(allowed_cpus().size()), 1, 1 << 20));
    if (device_id < 0 || device_id >= count) {
      return Status(Code::kUnavailable, "CPU device " + std::to_string(device_id) + " does not exist; this process may use " +
                                            std::to_string(count) + " processor" + (count == 1 ? "" : "s") + ": " +
                                            device_range(count));
    }
    return std::shared_ptr<device::Device>(std::make_shared<OrtDevice>(*api_, device_id, ""));
  }

  Result<std::vector<std::string>> built_in() override { return built_in_providers(*api_); }
  Result<std::vector<std::string>> devices_of(const device::Options& options) override {
    AIS_ASSIGN(std::vector<std::string> devices, provider_devices(*api_, options));
    if (devices.empty()) return devices;
    AIS_ASSIGN(OrtSessionOptions * made, make_session_options(*api_, options, 0));  // loads the provider's library
    api_->ReleaseSessionOptions(made);
    return devices;
  }
  std::string library() const override { return api_->library.path(); }

  Status finalize() override { return Status(); }  // the environment stays, because other sessions may use it

 private:
  const std::unique_ptr<OrtApi> api_;
};

}  // namespace
}  // namespace ais::ort

namespace ais::device {

Result<std::unique_ptr<Runtime>> open_ort(const std::vector<std::string>& libraries) {
  AIS_ASSIGN(std::unique_ptr<ort::OrtApi> api, ort::load_api(libraries));
  return std::unique_ptr<Runtime>(std::make_unique<ort::OrtRuntime>(std::move(api)));
}

}  // namespace ais::device
