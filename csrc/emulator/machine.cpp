// The life of AscendCL in the process: init, set, reset, finalise.
#include "emulator/machine.hpp"

#include <algorithm>
#include <utility>

#include "base/process.hpp"
#include "emulator/error.hpp"
#include "emulator/faults.hpp"
#include "emulator/memory.hpp"
#include "emulator/objects.hpp"
#include "emulator/record.hpp"
#include "emulator/report.hpp"
#include "emulator/stream.hpp"

namespace ais::emulator {
namespace {

thread_local std::shared_ptr<Context> t_current;

std::string device_text(int id) { return "device " + std::to_string(id); }

}  // namespace

bool is_device_exception(aclError code) {
  switch (code) {
    case ACL_ERROR_RT_LOST_HEARTBEAT:
    case 507901:  // the host-device channel
    case ACL_ERROR_RT_MODEL_EXECUTE:
    case 507014:  // AI Core timeout, exception, trap
    case 507015:
    case 507016:
    case 507017:  // AI CPU
    case 507018:
    case 507034:  // vector core
    case 507035:
    case 507036:
    case 507042:  // AI Core and vector core, overflow
    case 507043:
    case 507044:
    case 507045:
    case 507048:  // FFTS+
    case 507049:
    case 507050:
    case ACL_ERROR_RT_DEVICE_MEM_ERROR:
    case 507054:
    case 507055:
    case 507056:
    case 507057:
    case 507900:  // AI CPU
    case 507902:
      return true;
    default:
      return false;
  }
}

std::int64_t Device::draw_exec_ns() {
  const std::lock_guard<std::mutex> lock(mutex_);
  const double uniform = std::uniform_real_distribution<double>()(random_);
  const double normal = std::normal_distribution<double>()(random_);
  return static_cast<std::int64_t>(settings_.exec.milliseconds(uniform, normal) * 1e6);
}

std::int64_t Device::copy_ns(std::size_t bytes) const {
  return settings_.copy_gbps == 0 ? 0 : static_cast<std::int64_t>(static_cast<double>(bytes) / settings_.copy_gbps);
}

std::shared_ptr<void> Device::take_event() {
  const auto count = events_;
  const auto give_back = [count](void*) { --*count; };
  if (++*count <= ::ais::emulator::settings().product.events) return std::shared_ptr<void>(count.get(), give_back);
  --*count;
  return nullptr;
}

Machine& machine() {
  static auto* const instance = new Machine;
  return *instance;
}

Machine::Machine() : complaint_(new std::string), devices_(new Devices) {
  if (Status status = load(); !status.ok()) complaint_ = new std::string(status.message());
}

// Checks everything before it changes anything.
Status Machine::load() {
  AIS_ASSIGN(Settings made, read_settings());
  AIS_TRY(set_faults(made.faults, made.fault_state).with_context("AIS_EMULATOR_FAULTS"));
  auto* fresh = new Devices;
  for (std::size_t i = 0; i < made.devices.size(); ++i) {
    fresh->push_back(std::make_unique<Device>(static_cast<int>(i), made.devices[i], made.seed));
  }
  const std::string record = made.record;
  replace_settings(std::move(made));
  devices_ = fresh;
  complaint_ = new std::string;
  record.empty() ? stop_recording() : start_recording(record);
  return Status();
}

bool Machine::in_use() const {
  const Devices& all = devices();
  return !contexts_.all().empty() ||
         std::any_of(all.begin(), all.end(), [](const auto& device) { return device->set_count_ > 0; });
}

Status Machine::configure(bool new_process) {
  if (forked()) return Status();  // the devices belong to the parent; new processes read the environment themselves
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!in_use()) {
    AIS_TRY(load());
    if (new_process && !initialised_) {
      first_configuration_.reset();
      finalised_once_ = false;
    }
    return Status();
  }
  AIS_ASSIGN(Settings made, read_settings());
  if (made.shape != settings().shape) {
    return Status(Code::kInvalidArgument,
                  "the emulated NPUs of this process are in use, so they cannot become others now; free the sessions first "
                  "(free_resource, or InferSession.finalize for all), or use a process of its own. In use: " +
                      settings().shape + "wanted: " + made.shape);
  }
  AIS_TRY(set_faults(made.faults, made.fault_state).with_context("AIS_EMULATOR_FAULTS"));
  replace_settings(std::move(made));
  return Status();
}

bool Machine::forked() const { return initialised_ && fork_generation_ != fork_generation(); }

aclError Machine::initialise(const char* path, InitConfig* configuration) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (initialised_) {
    ++references_;
    return fail(ACL_ERROR_REPEAT_INITIALIZE, "aclInit was called before; the first call's configuration stays");
  }
  if (const aclError code = read_init_config(path, configuration)) return code;
  if (first_configuration_ && *first_configuration_ != configuration->text) {
    return fail(ACL_ERROR_INVALID_PARAM,
                "this process initialised AscendCL before with a configuration of another content; only that one can be used "
                "again after a finalize");
  }
  first_configuration_ = configuration->text;
  references_ = 1;
  fork_generation_ = fork_generation();
  initialised_ = true;
  return ACL_SUCCESS;
}

aclError Machine::finalise(bool force, std::uint64_t* references) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!initialised_) {
    return finalised_once_ ? fail(ACL_ERROR_REPEAT_FINALIZE, "aclFinalize was called before")
                           : fail(ACL_ERROR_UNINITIALIZE, "aclInit was not called");
  }
  references_ = force ? 0 : references_ - 1;
  if (references != nullptr) *references = references_;
  if (references_ > 0) return ACL_SUCCESS;
  for (const auto& device : devices()) {
    if (device->set_count_ > 0) {
      leaks("aclFinalize",
            {device_text(device->id()) + " (set " + std::to_string(device->set_count_) + " times more than reset)"});
    }
    close_device(device.get(), "aclFinalize");
    device->lost = ACL_SUCCESS;
  }
  leaks("aclFinalize", memory().release_all(-1));
  leaks("aclFinalize", release_objects());
  share_errors(false);
  t_current.reset();
  initialised_ = false;
  finalised_once_ = true;
  return ACL_SUCCESS;
}

Device* Machine::device(int id) {
  if (id >= 0 && static_cast<std::size_t>(id) < devices().size()) return devices()[static_cast<std::size_t>(id)].get();
  fail(ACL_ERROR_RT_INVALID_DEVICEID,
       "there is no " + device_text(id) + "; there are " + std::to_string(devices().size()) + " devices, counted from 0");
  return nullptr;
}

std::shared_ptr<Context> Machine::make_context(int id, bool is_default) {
  auto context = std::make_shared<Context>();
  context->device = id;
  context->is_default = is_default;
  context->handle = contexts_.add(context);
  context->default_stream = std::make_shared<Stream>(context, "default stream");
  return context;
}

aclError Machine::set_device(int id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Device* found = device(id);
  if (found == nullptr) return ACL_ERROR_RT_INVALID_DEVICEID;
  if (found->lost != ACL_SUCCESS) return fail(found->lost, device_text(id) + " was lost");
  if (found->default_context_ == nullptr) found->default_context_ = make_context(id, true);
  ++found->set_count_;
  t_current = found->default_context_;
  return ACL_SUCCESS;
}

aclError Machine::reset_device(int id, bool force) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Device* found = device(id);
  if (found == nullptr) return ACL_ERROR_RT_INVALID_DEVICEID;
  if (found->set_count_ == 0) return fail(ACL_ERROR_RT_PARAM_INVALID, device_text(id) + " is reset, but was not set");
  found->set_count_ = force ? 0 : found->set_count_ - 1;
  if (found->set_count_ == 0) close_device(found, "the reset of " + device_text(id));
  return ACL_SUCCESS;
}

// Releases the default context, which belongs to the library. Objects of the program on the device are reported as leaks.
void Machine::close_device(Device* device, const std::string& when) {
  device->set_count_ = 0;
  for (const auto& entry : contexts_.all()) {
    const std::shared_ptr<Context>& context = entry.second;
    if (context->device != device->id()) continue;
    if (!context->is_default) leaks(when, {handle_name(context->handle)});
    end_context(context, when);
  }
  device->default_context_.reset();
  device->peers_.clear();
  leaks(when, memory().release_all(device->id()));
}

void Machine::end_context(const std::shared_ptr<Context>& context, const std::string& when) {
  context->alive = false;
  leaks(when, release_objects_of(context));
  context->default_stream->stop(false);
  context->default_stream.reset();
  contexts_.take(context->handle);
  if (t_current == context) t_current.reset();
}

aclError Machine::create_context(int id, aclrtContext* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Device* found = device(id);
  if (found == nullptr) return ACL_ERROR_RT_INVALID_DEVICEID;
  if (found->lost != ACL_SUCCESS) return fail(found->lost, device_text(id) + " was lost");
  t_current = make_context(id, false);
  *out = t_current->handle;
  return ACL_SUCCESS;
}

aclError Machine::destroy_context(aclrtContext handle) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::shared_ptr<Context> context = contexts_.find(handle);
  if (context == nullptr) return fail(ACL_ERROR_RT_INVALID_HANDLE, "not a living context (destroyed before?)");
  if (context->is_default) return fail(ACL_ERROR_RT_PARAM_INVALID, "a default context is destroyed by aclrtResetDevice only");
  end_context(context, "aclrtDestroyContext of " + handle_name(handle));
  return ACL_SUCCESS;
}

aclError Machine::set_current(aclrtContext handle) {
  std::shared_ptr<Context> context = contexts_.find(handle);
  if (context == nullptr) return fail(ACL_ERROR_RT_INVALID_HANDLE, "not a living context (destroyed before?)");
  t_current = std::move(context);
  return ACL_SUCCESS;
}

std::shared_ptr<Context> Machine::current() const { return t_current; }

aclError Machine::set_peer(int device_id, int peer, bool enabled) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (device(peer) == nullptr) return ACL_ERROR_RT_INVALID_DEVICEID;
  if (device_id == peer) return fail(ACL_ERROR_RT_PARAM_INVALID, "the peer must be another device");
  std::set<int>& peers = devices()[static_cast<std::size_t>(device_id)]->peers_;
  if (enabled) {
    peers.insert(peer);
  } else if (peers.erase(peer) == 0) {
    return fail(ACL_ERROR_RT_PARAM_INVALID, "peer access to " + device_text(peer) + " was not enabled");
  }
  return ACL_SUCCESS;
}

bool Machine::has_peer(int device_id, int peer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return devices()[static_cast<std::size_t>(device_id)]->peers_.count(peer) != 0;
}

void Machine::device_exception(Context* context, aclError code) {
  if (code == ACL_ERROR_RT_LOST_HEARTBEAT || code == 507901) {
    devices()[static_cast<std::size_t>(context->device)]->lost = code;
  } else {
    context->poison = code;
  }
}

}  // namespace ais::emulator
