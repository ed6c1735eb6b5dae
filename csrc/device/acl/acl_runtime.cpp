// AscendCL as a device runtime. It is initialised once for a process, and every NPU is a device.
//
// Processes: the first use initialises AscendCL, which does not survive a fork, so calls in a forked child return an error.
// open_acl initialises nothing.
// Locks: State::lock is held while initialising, opening a context and finalising. It is taken before a context's lock.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/file.hpp"
#include "base/interrupt.hpp"
#include "base/process.hpp"
#include "base/words.hpp"
#include "device/acl/acl_api.hpp"
#include "device/acl/acl_context.hpp"
#include "device/acl/acl_load.hpp"
#include "device/acl/acl_model.hpp"
#include "device/acl/acl_product.hpp"
#include "device/acl/acl_share.hpp"
#include "device/runtimes.hpp"

namespace ais::acl {
namespace {

constexpr aclError kRepeatInitialize = 100002;
constexpr aclError kRepeatFinalize = 100037;
constexpr aclError kStub = 100039;
constexpr const char* kJsonOption = "acl_json_path";

constexpr const char* kWeightOption = "weight_dir";
constexpr const char* kWorkspaceOption = "share_workspace";
constexpr const char* kRegisterOption = "host_register";

struct AclOptions {
  std::string json;
  HostRegister host_register = HostRegister::kAuto;
  LoadOptions load;
};

Result<AclOptions> read_options(const device::Options& options) {
  AclOptions result;
  for (const auto& [name, value] : options) {
    if (name == kJsonOption) {
      result.json = value;
    } else if (name == kWeightOption) {
      result.load.weight_dir = value;
    } else if (name == kWorkspaceOption) {
      if (value != "0" && value != "1")
        return Status(Code::kInvalidArgument, name + " must be '0' or '1', got '" + value + "'");
      result.load.share_workspace = value == "1";
    } else if (name == kRegisterOption) {
      AIS_ASSIGN(result.host_register, parse_host_register(value));
    } else {
      return Status(Code::kInvalidArgument, "unknown option '" + name + "' for a model on an NPU; use '" + kJsonOption +
                                                "' or '" + kWeightOption + "' or '" + kWorkspaceOption + "' or '" +
                                                kRegisterOption + "'");
    }
  }
  return result;
}

class AclRuntime;

// A device by its number. Its context is opened at the first use, and shared by all objects on the device.
class AclDevice final : public device::Device {
 public:
  AclDevice(AclRuntime* runtime, int id, AclOptions options, std::uint64_t life)
      : runtime_(runtime), id_(id), options_(std::move(options)), life_(life) {}

  int id() const override { return id_; }
  std::string runtime() const override { return "acl"; }
  bool host_visible() const override { return false; }

  Result<device::Buffer> allocate(std::size_t bytes) override {
    AIS_ASSIGN(const std::shared_ptr<AclContext> open, context());
    Result<device::Buffer> buffer = open->allocate(bytes);
    return buffer.ok() ? std::move(buffer) : open->with_memory(buffer.take_status());
  }
  Status copy_to_device(void* to, const void* from, std::size_t bytes) override { return copy(to, from, bytes, kHostToDevice); }
  Status copy_to_host(void* to, const void* from, std::size_t bytes) override { return copy(to, from, bytes, kDeviceToHost); }
  Status copy_on_device(void* to, const void* from, std::size_t bytes) override {
    return copy(to, from, bytes, kDeviceToDevice);
  }
  Status register_host(void* host, std::size_t bytes) override {
    AIS_ASSIGN(const std::shared_ptr<AclContext> open, context());
    return open->register_host(host, bytes);
  }
  Status unregister_host(void* host) override {
    AIS_ASSIGN(const std::shared_ptr<AclContext> open, context());
    return open->unregister_host(host);
  }
  std::string host_memory() override {
    const Result<std::shared_ptr<AclContext>> open = context();
    return open.ok() ? open.value()->host_memory() : "";
  }
  Result<device::MemoryInfo> memory() override {
    AIS_ASSIGN(const std::shared_ptr<AclContext> open, context());
    return open->memory();
  }
  Result<std::shared_ptr<device::Model>> load(const device::ModelSource& source, const device::Options& options) override;

 private:
  Result<std::shared_ptr<AclContext>> context();
  Status copy(void* to, const void* from, std::size_t bytes, MemcpyKind kind) {
    AIS_ASSIGN(const std::shared_ptr<AclContext> open, context());
    return open->copy(to, from, bytes, kind);
  }

  AclRuntime* const runtime_;
  const int id_;
  const AclOptions options_;
  const std::uint64_t life_;  // number of finalize() calls when it was made: earlier memory no longer exists
  PerProcess<std::mutex> lock_;
  std::weak_ptr<AclContext> context_;  // guarded by lock_
};

class AclRuntime final : public device::Runtime {
 public:
  explicit AclRuntime(std::unique_ptr<AclApi> api) : api_(std::move(api)) {}

  std::string name() const override { return "acl"; }
  std::string version() const override;
  std::string toolkit() const override;
  std::string chip() const override;
  Result<int> device_count() override;
  Result<std::shared_ptr<device::Device>> open(int device_id, const device::Options& options) override;
  Status finalize() override;

  Result<std::shared_ptr<AclContext>> open_context(int device_id, const AclOptions& options);
  // Returns the objects that sessions on a device share.
  Result<std::shared_ptr<DeviceShare>> share(int device_id, const AclOptions& options);
  // Returns the number of calls of finalize().
  std::uint64_t life() const { return life_.load(); }

 private:
  // A configuration file: its name, and its content when AscendCL read it. Empty: none.
  struct Configuration {
    std::string path;
    std::string content;
  };
  struct State {
    std::mutex lock;
    // The members below are guarded by lock.
    bool initialised = false;
    bool owner = false;                  // no other library in this process initialised it before
    std::optional<Configuration> first;  // our configuration, which AscendCL keeps; none: another library was first
    std::vector<std::weak_ptr<AclContext>> contexts;  // those of shares follow those that use them
    std::map<int, std::shared_ptr<DeviceShare>> shares;
  };

  Status check_process() const;
  Status initialise(State* state, const std::string& json);
  Status explain_init(Status status, const State& state, const Configuration& wanted) const;
  Status give_back(State* state);
  static Configuration read_configuration(const std::string& path);
  static Status refused_file(const std::string& path, const Configuration* first);
  static Status check_file(const State& state, const std::string& json);
  Result<int> count() const;
  Result<std::shared_ptr<AclContext>> open_context(int device_id, const AclOptions& options, bool for_share);

  const std::unique_ptr<AclApi> api_;
  PerProcess<State> state_;
  std::atomic<std::uint64_t> life_{0};
  std::atomic<std::uint64_t> initialiser_{0};  // 1 + fork_generation() of the initialising process; 0: none
};

Status AclRuntime::check_process() const {
  const std::uint64_t initialiser = initialiser_.load();
  if (initialiser == 0 || initialiser == fork_generation() + 1) return Status();
  return forked_status();
}

// Returns no content for a file that cannot be read; AscendCL reports the error.
AclRuntime::Configuration AclRuntime::read_configuration(const std::string& path) {
  Configuration result;
  result.path = path;
  if (path.empty()) return result;
  if (Result<MappedFile> file = MappedFile::open(path); file.ok())
    result.content.assign(reinterpret_cast<const char*>(file.value().data()), file.value().size());
  return result;
}

// AscendCL keeps the configuration of the process's first initialisation. `first`: ours; null: that of another library.
Status AclRuntime::refused_file(const std::string& path, const Configuration* first) {
  std::string why = "another library of this process was first";
  if (first != nullptr) {
    why = first->path.empty() ? "that had none"
                              : "that had '" + first->path + (first->path == path ? "' with other content" : "'");
  }
  return Status(Code::kInvalidArgument,
                std::string(kJsonOption) + " '" + path +
                    "' cannot take effect: AscendCL reads one file per process, at the first initialisation, also after "
                    "finalize(); " +
                    why +
                    ". Name the file at the first session, or use it in another process: the workers of a MultiDeviceSession "
                    "are such");
}

Status AclRuntime::explain_init(Status status, const State& state, const Configuration& wanted) const {
  if (status.vendor_code() == kStub) {
    return Status(
        Code::kUnavailable,
        api_->library.path() + " is CANN's stub for building without a driver, not AscendCL: " + status.message() +
            "\nPut the folder of the real library before .../runtime/lib64/stub on LD_LIBRARY_PATH, or install the driver.",
        kStub);
  }
  if (status.code() == Code::kOutOfMemory) return status;
  const bool another = state.first.has_value() && state.first->content != wanted.content;
  if (status.vendor_code() == kInvalidParam && another) return refused_file(wanted.path, &*state.first);
  if (wanted.path.empty() && status.vendor_code() == kInvalidParam)
    return Status(Code::kInvalidArgument, status.message(), kInvalidParam);
  if (wanted.path.empty()) return status;
  return Status(Code::kInvalidArgument,
                "AscendCL does not take " + std::string(kJsonOption) + " '" + wanted.path + "': " + status.message(),
                status.vendor_code());
}

// Checks whether a session may name the file after AscendCL was initialised.
Status AclRuntime::check_file(const State& state, const std::string& json) {
  if (json.empty()) return Status();
  if (!state.first.has_value()) return refused_file(json, nullptr);
  const Configuration wanted = read_configuration(json);
  if (!wanted.content.empty() && wanted.content == state.first->content) return Status();
  return refused_file(json, &*state.first);
}

// A session without a file uses that of the process's first session, because AscendCL accepts no other one.
Status AclRuntime::initialise(State* state, const std::string& json) {
  AIS_TRY(check_process());
  if (state->initialised) return check_file(*state, json);
  Configuration wanted = read_configuration(json.empty() && state->first.has_value() ? state->first->path : json);
  initialiser_ = fork_generation() + 1;
  const aclError number = api_->aclInit(wanted.path.empty() ? nullptr : wanted.path.c_str());
  if (number != 0 && number != kRepeatInitialize) {
    initialiser_ = 0;
    return explain_init(api_->check(number, "aclInit", Code::kUnavailable), *state, wanted);
  }
  state->initialised = true;
  state->owner = number == 0;
  if (state->owner) {
    state->first = std::move(wanted);
    return Status();
  }
  Status status = check_file(*state, json);
  if (!status.ok()) {
    static_cast<void>(give_back(state));
    state->initialised = false;
  }
  return status;
}

Result<int> AclRuntime::count() const {
  std::uint32_t devices = 0;
  AIS_TRY(api_->check(api_->aclrtGetDeviceCount(&devices), "aclrtGetDeviceCount", Code::kUnavailable));
  return static_cast<int>(devices);
}

std::string AclRuntime::version() const {
  std::int32_t major = 0;
  std::int32_t minor = 0;
  std::int32_t patch = 0;
  if (api_->aclrtGetVersion(&major, &minor, &patch) != 0) return "unknown";
  std::string text = std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
  if (const std::string soc = chip(); !soc.empty()) text += " on " + soc;
  return text;
}

std::string AclRuntime::chip() const {
  const char* soc = api_->aclrtGetSocName();
  return soc == nullptr ? "" : soc;
}

// Newer versions deprecate the second way. All packages have the same version; the runtime is in every installation.
std::string AclRuntime::toolkit() const {
  aclCANNPackageVersion version = {};
  char package[] = "runtime";
  if (api_->aclsysGetVersionStr != nullptr && api_->aclsysGetVersionStr(package, version.version) == 0)
    return "CANN " + std::string(version.version, strnlen(version.version, sizeof(version.version)));
  if (api_->aclsysGetCANNVersion != nullptr && api_->aclsysGetCANNVersion(kPackageCann, &version) == 0)
    return "CANN " + std::string(version.version, strnlen(version.version, sizeof(version.version)));
  static_cast<void>(api_->aclGetRecentErrMsg());  // discard the error text: it must not be shown for a later call
  return "";
}

Result<int> AclRuntime::device_count() {
  AIS_TRY(check_process());
  State& state = state_.get();
  const std::lock_guard<std::mutex> guard(state.lock);
  AIS_TRY(initialise(&state, ""));
  return count();
}

Result<std::shared_ptr<device::Device>> AclRuntime::open(int device_id, const device::Options& options) {
  AIS_ASSIGN(AclOptions wanted, read_options(options));
  AIS_TRY(check_process());
  State& state = state_.get();
  const std::lock_guard<std::mutex> guard(state.lock);
  AIS_TRY(initialise(&state, wanted.json));
  AIS_ASSIGN(const int devices, count());
  if (device_id < 0 || device_id >= devices) {
    return Status(Code::kUnavailable, "NPU device " + std::to_string(device_id) + " does not exist; this process sees " +
                                          std::to_string(devices) + " NPU" + (devices == 1 ? "" : "s") + ": " +
                                          device_range(devices) + " (ASCEND_RT_VISIBLE_DEVICES chooses and renumbers them)");
  }
  return std::shared_ptr<device::Device>(std::make_shared<AclDevice>(this, device_id, std::move(wanted), life()));
}

Result<std::shared_ptr<AclContext>> AclRuntime::open_context(int device_id, const AclOptions& options) {
  return open_context(device_id, options, false);
}

Result<std::shared_ptr<DeviceShare>> AclRuntime::share(int device_id, const AclOptions& options) {
  AIS_TRY(check_process());
  State& state = state_.get();
  const std::lock_guard<std::mutex> guard(state.lock);
  std::shared_ptr<DeviceShare>& share = state.shares[device_id];
  if (share == nullptr)
    share = std::make_shared<DeviceShare>([this, device_id, options] { return open_context(device_id, options, true); });
  return share;
}

Result<std::shared_ptr<AclContext>> AclRuntime::open_context(int device_id, const AclOptions& options, bool for_share) {
  AIS_TRY(check_process());
  State& state = state_.get();
  const std::lock_guard<std::mutex> guard(state.lock);
  AIS_TRY(initialise(&state, options.json));
  AIS_ASSIGN(std::shared_ptr<AclContext> context, AclContext::open(*api_, device_id, options.host_register));
  auto& all = state.contexts;
  all.erase(std::remove_if(all.begin(), all.end(), [](const auto& known) { return known.expired(); }), all.end());
  all.insert(for_share ? all.end() : all.begin(), context);
  return context;
}

Status AclRuntime::finalize() {
  if (!check_process().ok()) return Status();  // a forked child owns nothing of it
  AIS_TRY(check_not_in_handler());             // otherwise it would wait for the run that the handler interrupted
  State& state = state_.get();
  std::vector<std::shared_ptr<AclContext>> live;  // released after the lock
  const std::lock_guard<std::mutex> guard(state.lock);
  ++life_;
  for (const auto& known : state.contexts) {
    if (auto context = known.lock()) live.push_back(std::move(context));
  }
  state.contexts.clear();
  state.shares.clear();
  for (const auto& context : live) context->close();
  if (!state.initialised) return Status();
  AIS_TRY(give_back(&state));
  state.initialised = false;
  return Status();
}

// Ends only our use of AscendCL. aclFinalize would end it for the whole process, even if other libraries have initialised it. A
// library without a count has only aclFinalize, which is used if we were the first to initialise.
Status AclRuntime::give_back(State* state) {
  aclError number = 0;
  if (api_->aclFinalizeReference != nullptr) {
    std::uint64_t left = 0;
    number = api_->aclFinalizeReference(&left);
  } else if (state->owner) {
    number = api_->aclFinalize();
  }
  if (number == kRepeatFinalize) return Status();  // another library ended it for the process
  return api_->check(number, api_->aclFinalizeReference != nullptr ? "aclFinalizeReference" : "aclFinalize", Code::kSystem);
}

Result<std::shared_ptr<AclContext>> AclDevice::context() {
  const std::lock_guard<std::mutex> guard(lock_.get());
  if (auto live = context_.lock()) return live;
  if (life_ != runtime_->life()) return closed_status();
  AIS_ASSIGN(std::shared_ptr<AclContext> fresh, runtime_->open_context(id_, options_));
  context_ = fresh;
  return fresh;
}

Result<std::shared_ptr<device::Model>> AclDevice::load(const device::ModelSource& source, const device::Options& options) {
  AIS_ASSIGN(const AclOptions wanted, read_options(options));
  AIS_ASSIGN(std::shared_ptr<AclContext> open, context());
  AIS_ASSIGN(const std::shared_ptr<DeviceShare> share, runtime_->share(id_, options_));
  return AclModel::load(std::move(open), source, wanted.load, share.get());
}

}  // namespace
}  // namespace ais::acl

namespace ais::device {

Result<std::unique_ptr<Runtime>> open_acl(const std::vector<std::string>& libraries) {
  AIS_ASSIGN(std::unique_ptr<acl::AclApi> api, acl::load_api(libraries));
  return std::unique_ptr<Runtime>(std::make_unique<acl::AclRuntime>(std::move(api)));
}

}  // namespace ais::device
