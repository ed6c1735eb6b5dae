// Objects that sessions of this process share on one device: weights from separate files, and workspaces for models that never
// run at the same time.
//
// The memory belongs to the share's own context, so that it outlives each of the sessions. It lives as long as it is used. Any
// thread may call.
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

// A workspace for one model at a time. Before a run a model takes its turn: it waits until the work of the previous model has
// ended on the device, starts its own work, and releases the turn. So no turn is held while a caller's code runs, and a chain
// of sessions cannot deadlock.
struct Workspace {
  explicit Workspace(device::Buffer space) : memory(std::move(space)) {}
  const device::Buffer memory;
  std::mutex lock;
  LoadedModel* last = nullptr;  // guarded by lock: the model that started work in it last; its destructor waits for this work
};

class DeviceShare {
 public:
  using Opener = std::function<Result<std::shared_ptr<AclContext>>()>;
  explicit DeviceShare(Opener open) : open_(std::move(open)) {}

  // Returns device memory with the file's content. A changed file counts as another file.
  Result<device::Buffer> weights(const std::string& path);
  // Returns a workspace of at least `bytes`: the newest one, if it is large enough.
  Result<std::shared_ptr<Workspace>> workspace(std::size_t bytes);

 private:
  // A file's identity: device, inode, bytes, and nanoseconds of its last change.
  using FileKey = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t, std::int64_t>;
  static Result<FileKey> key_of(const std::string& path);
  Result<std::shared_ptr<AclContext>> context();

  const Opener open_;
  std::mutex lock_;  // guards the members below; held while a file is copied, so that it is copied once
  std::weak_ptr<AclContext> context_;
  std::map<FileKey, std::weak_ptr<void>> weights_;
  std::weak_ptr<Workspace> workspace_;
};

}  // namespace ais::acl
