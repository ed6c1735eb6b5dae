// Opens and maps a file. Errors are worded for the user who gave the path.
#include "base/file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace ais {
namespace {

Status cannot(const std::string& path, const std::string& reason) {
  return Status(Code::kModelLoad, "cannot load the model '" + path + "': " + reason);
}

}  // namespace

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::uint8_t*>(data_), size_);
}

Result<MappedFile> MappedFile::open(const std::string& path) {
  if (path.empty()) return cannot(path, "the path is empty");
  // O_NONBLOCK: otherwise a pipe without a writer would block. It has no effect on a file.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) {
    const int error = errno;
    return cannot(path, error == ENOENT ? "there is no such file" : std::strerror(error));
  }
  struct stat info{};
  std::string reason;
  void* data = MAP_FAILED;
  if (fstat(fd, &info) != 0) {
    reason = std::strerror(errno);
  } else if (S_ISDIR(info.st_mode)) {
    reason = "it is a directory; give the path of a model file in it";
  } else if (!S_ISREG(info.st_mode)) {
    reason = "it is not a regular file";
  } else if (info.st_size == 0) {
    reason = "the file is empty (0 bytes)";
  } else {
    data = mmap(nullptr, static_cast<std::size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) reason = std::strerror(errno);
  }
  ::close(fd);
  if (data == MAP_FAILED) return cannot(path, reason);
  return MappedFile(static_cast<const std::uint8_t*>(data), static_cast<std::size_t>(info.st_size));
}

}  // namespace ais
