// What sessions of this process have in common on one device: weights that models keep in files of their own, and memory to
// work in for models that never run at once.
//
// The memory belongs to a context of the share's own, so that it outlives each of the sessions. It is there for as long as
// somebody uses it. Any thread may call.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>

#include "device/acl/acl_context.hpp"
#include "device/device.hpp"

namespace ais::acl {

class LoadedModel;

// Memory that one model at a time works in. A model that is about to run takes its turn: it waits until the work of the model
// before it has ended on the device, and starts its own before it lets the next one in. So nobody keeps a turn while a caller's
// code runs, and a chain of sessions cannot wait for itself.
struct Workspace {
  explicit Workspace(device::Buffer space) : memory(std::move(space)) {}
  const device::Buffer memory;
  std::mutex lock;
  LoadedModel* last = nullptr;  // guarded by lock: who started work in it; it waits for its work before it goes
};

class DeviceShare {
 public:
  using Opener = std::function<Result<std::shared_ptr<AclContext>>()>;
  explicit DeviceShare(Opener open) : open_(std::move(open)) {}

  // Device memory with the file's content. A file that changed since is another file.
  Result<device::Buffer> weights(const std::string& path);
  // A workspace of at least so many bytes: the newest one, if that is large enough.
  Result<std::shared_ptr<Workspace>> workspace(std::size_t bytes);

 private:
  // Of a file: device, inode, bytes, and nanoseconds of its last change.
  using FileKey = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t, std::int64_t>;
  static Result<FileKey> key_of(const std::string& path);
  Result<std::shared_ptr<AclContext>> context();

  const Opener open_;
  std::mutex lock_;  // guards what follows; held while a file is copied, so that it is copied once
  std::weak_ptr<AclContext> context_;
  std::map<FileKey, std::weak_ptr<void>> weights_;
  std::weak_ptr<Workspace> workspace_;
};

}  // namespace ais::acl
