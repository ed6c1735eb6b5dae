// The emulated machine: initialisation, devices, contexts, and the current context of each thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/status.hpp"
#include "emulator/acl_types.hpp"
#include "emulator/config.hpp"
#include "emulator/engine.hpp"
#include "emulator/handles.hpp"
#include "emulator/settings.hpp"

namespace ais::emulator {

class Stream;

struct Context {
  int device = 0;
  bool is_default = false;
  void* handle = nullptr;
  std::atomic<bool> alive{true};
  // The code of a device exception in this context. Every later call that needs the context fails with it.
  std::atomic<aclError> poison{ACL_SUCCESS};
  std::shared_ptr<Stream> default_stream;  // set when the context is created
};

using Contexts = HandleTable<Context, Kind::kContext>;

class Device {
 public:
  Device(int id, const DeviceSettings& settings, std::uint64_t seed)
      : id_(id), settings_(settings), random_(seed + static_cast<std::uint64_t>(settings.physical_id)) {}

  int id() const { return id_; }
  const DeviceSettings& settings() const { return settings_; }
  std::int64_t draw_exec_ns();
  std::int64_t copy_ns(std::size_t bytes) const;
  // Reserves the number of an event that a stream can wait for, until the last copy is destroyed; null: all are in use.
  std::shared_ptr<void> take_event();

  Engine compute;
  Engine copy_in;
  Engine copy_out;
  // ACL_ERROR_RT_LOST_HEARTBEAT after the device was lost for this process.
  std::atomic<aclError> lost{ACL_SUCCESS};

 private:
  friend class Machine;
  int id_;
  DeviceSettings settings_;
  std::mutex mutex_;
  std::mt19937_64 random_;
  int set_count_ = 0;
  const std::shared_ptr<std::atomic<int>> events_ = std::make_shared<std::atomic<int>>(0);
  std::shared_ptr<Context> default_context_;
  std::set<int> peers_;
};

// Any thread may call. One mutex guards the structure (counts, default contexts). Contexts and devices live as long as there is
// a reference.
class Machine {
 public:
  // Reads the settings from the environment, before any other code of the emulator runs.
  Machine();

  // Reads the environment again: devices, fault rules, recording, report. While devices are in use, the devices and their
  // properties cannot change. `new_process`: also resets the state that AscendCL keeps for the life of a process. After an
  // error nothing is changed.
  Status configure(bool new_process);
  // Returns the error in the environment that the machine was made from; "" if there is none. Otherwise each call returns
  // 100000.
  const std::string& complaint() const { return *complaint_.load(std::memory_order_acquire); }

  bool initialised() const { return initialised_.load(); }
  // Returns whether this process is a child that was forked after aclInit.
  bool forked() const;

  // The first call reads the configuration. Later calls are counted and return 100002, whatever the file contains. After a
  // finalise only the content of the process's first call is accepted.
  aclError initialise(const char* path, InitConfig* configuration);
  // Releases everything and reports leaks. `force`: ignore the count of aclInit calls.
  aclError finalise(bool force, std::uint64_t* references);

  std::size_t device_count() const { return devices().size(); }
  // Returns nullptr, and stores an error text, if the id does not exist.
  Device* device(int id);

  aclError set_device(int id);
  aclError reset_device(int id, bool force);
  aclError create_context(int id, aclrtContext* out);
  aclError destroy_context(aclrtContext handle);
  aclError set_current(aclrtContext handle);
  std::shared_ptr<Context> current() const;
  Contexts& contexts() { return contexts_; }

  // Sets peer access from `device` to `peer`.
  aclError set_peer(int device, int peer, bool enabled);
  bool has_peer(int device, int peer);

  // Records a device exception. The context, or (lost heartbeat) the device, cannot be used afterwards.
  void device_exception(Context* context, aclError code);

 private:
  using Devices = std::vector<std::unique_ptr<Device>>;
  const Devices& devices() const { return *devices_.load(std::memory_order_acquire); }
  Status load();
  bool in_use() const;
  std::shared_ptr<Context> make_context(int id, bool is_default);
  void end_context(const std::shared_ptr<Context>& context, const std::string& when);
  void close_device(Device* device, const std::string& when);

  mutable std::mutex mutex_;
  std::atomic<bool> initialised_{false};
  bool finalised_once_ = false;
  std::uint64_t references_ = 0;
  std::optional<std::string> first_configuration_;  // kept for the life of the process
  std::atomic<std::uint64_t> fork_generation_{0};
  std::atomic<const std::string*> complaint_;
  std::atomic<const Devices*> devices_;  // replaced as a whole; old ones stay, because other threads may read them
  Contexts contexts_;
};

Machine& machine();

// Returns whether a context, or a device, cannot be used after this code.
bool is_device_exception(aclError code);

}  // namespace ais::emulator
