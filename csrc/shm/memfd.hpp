// A sealed anonymous region of memory that two processes map: made by one, attached by the other by descriptor.
//
// It has no name, so nothing can be left behind, and /dev/shm and its limits play no part. It is sparse: a page exists once it
// has been touched, so regions are made far larger than anything that will be in them. The size is sealed: neither side can
// shrink it, so an access inside the mapping can never be a SIGBUS for want of a file behind it. A system that makes no such
// memory gives a nameless file in its place, in /dev/shm or a folder for temporary files, and no larger than there is room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/status.hpp"

namespace ais::shm {

// An owned file descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  ~Fd() { reset(); }

  int get() const { return fd_; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

// A mapped region. The mapping lives as long as the object; share it with std::shared_ptr to keep views valid.
class Region {
 public:
  // Makes, sizes, seals and maps a region of `bytes`, or of as many halvings of that, down to `least`, as the process's limits
  // (address space, file size) demand. Zero filled.
  static Result<std::shared_ptr<Region>> create(const char* label, std::size_t bytes, std::size_t least);

  // Maps the region behind `fd`, which it takes over and closes. Corrupt where it is not a sealed region of at least `least`.
  static Result<std::shared_ptr<Region>> attach(Fd fd, std::size_t least);

  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region();

  std::uint8_t* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool contains(const void* address) const {
    const auto* byte = static_cast<const std::uint8_t*>(address);
    return byte >= data_ && byte < data_ + size_;
  }

  // The descriptor, to hand to a peer; -1 after close_fd. The mapping does not need it.
  int fd() const { return fd_.get(); }
  void close_fd() { fd_.reset(); }

  // Makes the pages of [offset, offset + bytes) exist and maps them here, in one call instead of a fault each. A hint: without
  // kernel support, or memory, the pages come with their first touch.
  void populate(std::size_t offset, std::size_t bytes) const;

  // Gives the memory of the whole pages inside [offset, offset + bytes) back; they read as zero afterwards. A hint.
  void punch(std::size_t offset, std::size_t bytes) const;

 private:
  Region(Fd fd, std::uint8_t* data, std::size_t size) : fd_(std::move(fd)), data_(data), size_(size) {}

  Fd fd_;
  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
};

// OutOfMemory, with the numbers, if these bytes are not there yet and more than may still be allocated (base/memory.hpp): the
// kernel would end a process of the container for touching them. Little is not looked at. Nothing is touched.
Status room_for(const std::uint8_t* data, std::size_t bytes);

}  // namespace ais::shm
