// Copies weight files to device memory, each of them once.
#include "device/acl/acl_share.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/file.hpp"

namespace ais::acl {
namespace {
constexpr std::size_t kWeightAlignment = 32;  // AscendCL requires a multiple of it
}

Result<DeviceShare::FileKey> DeviceShare::key_of(const std::string& path) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0)
    return Status(Code::kModelLoad, "cannot read the weights '" + path + "': " + std::strerror(errno));
  return FileKey(info.st_dev, info.st_ino, static_cast<std::uint64_t>(info.st_size),
                 std::int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec);
}

Result<std::shared_ptr<AclContext>> DeviceShare::context() {
  if (auto living = context_.lock()) return living;
  AIS_ASSIGN(std::shared_ptr<AclContext> fresh, open_());
  context_ = fresh;
  return fresh;
}

Result<device::Buffer> DeviceShare::weights(const std::string& path) {
  const std::lock_guard<std::mutex> guard(lock_);
  AIS_ASSIGN(const FileKey key, key_of(path));
  std::weak_ptr<void>& known = weights_[key];
  const std::size_t bytes = (std::get<2>(key) + kWeightAlignment - 1) / kWeightAlignment * kWeightAlignment;
  if (auto living = known.lock()) return device::Buffer{std::move(living), bytes};
  AIS_ASSIGN(const MappedFile file, MappedFile::open(path));
  AIS_ASSIGN(const std::shared_ptr<AclContext> owner, context());
  AIS_ASSIGN(device::Buffer buffer, owner->allocate_for_good(bytes));
  AIS_TRY(owner->copy(buffer.data.get(), file.data(), std::min(bytes, file.size()), kHostToDevice)
              .with_context("weights '" + path + "'"));
  known = buffer.data;
  return buffer;
}

Result<std::shared_ptr<Workspace>> DeviceShare::workspace(std::size_t bytes) {
  const std::lock_guard<std::mutex> guard(lock_);
  if (auto living = workspace_.lock(); living != nullptr && living->memory.bytes >= bytes) return living;
  AIS_ASSIGN(const std::shared_ptr<AclContext> owner, context());
  AIS_ASSIGN(device::Buffer buffer, owner->allocate_for_good(bytes));
  auto fresh = std::make_shared<Workspace>(std::move(buffer));
  workspace_ = fresh;
  return fresh;
}

}  // namespace ais::acl
