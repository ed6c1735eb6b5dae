// What sessions of this process have in common on one device: weights that models keep in files of their own.
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

class DeviceShare {
 public:
  using Opener = std::function<Result<std::shared_ptr<AclContext>>()>;
  explicit DeviceShare(Opener open) : open_(std::move(open)) {}

  // Device memory with the file's content. A file that changed since is another file.
  Result<device::Buffer> weights(const std::string& path);

 private:
  // Of a file: device, inode, bytes, and nanoseconds of its last change.
  using FileKey = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t, std::int64_t>;
  static Result<FileKey> key_of(const std::string& path);
  Result<std::shared_ptr<AclContext>> context();

  const Opener open_;
  std::mutex lock_;  // guards what follows; held while a file is copied, so that it is copied once
  std::weak_ptr<AclContext> context_;
  std::map<FileKey, std::weak_ptr<void>> weights_;
};

}  // namespace ais::acl
