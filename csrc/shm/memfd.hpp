// A sealed anonymous region of memory that two processes map. One process makes it, the other attaches it by a descriptor.
//
// A region has no name, so it cannot be left behind, and the limits of /dev/shm do not apply. It is sparse: a page exists after
// it was touched, so regions can be far larger than their content. The size is sealed: neither side can shrink the region, so
// an access inside the mapping cannot cause SIGBUS. On a system without memfd the region is a file without a name, in /dev/shm
// or a folder for temporary files, and not larger than the free space.
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
  // Makes, seals and maps a region of `bytes`, filled with zeros. If the process's limits (address space, file size) do not
  // permit this size, it is halved as often as necessary, down to `least`.
  static Result<std::shared_ptr<Region>> create(const char* label, std::size_t bytes, std::size_t least);

  // Maps the region of `fd`, which it owns and closes. Returns Corrupt if this is not a sealed region of at least `least`
  // bytes.
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

  // Returns the descriptor, for a peer; -1 after close_fd. The mapping does not need it.
  int fd() const { return fd_.get(); }
  void close_fd() { fd_.reset(); }

  // Creates and maps the pages of [offset, offset + bytes) in one call, instead of one fault for each page. A hint: without
  // kernel support, or memory, pages are created when they are first touched.
  void populate(std::size_t offset, std::size_t bytes) const;

  // Releases the memory of the whole pages inside [offset, offset + bytes), which then read as zero. A hint.
  void punch(std::size_t offset, std::size_t bytes) const;

 private:
  Region(Fd fd, std::uint8_t* data, std::size_t size) : fd_(std::move(fd)), data_(data), size_(size) {}

  Fd fd_;
  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
};

// Returns OutOfMemory, with the numbers, if the pages of these bytes do not exist yet and need more memory than is available
// (base/memory.hpp): if they were touched, the kernel would kill a process of the container. Small sizes are not checked.
// Touches nothing.
Status room_for(const std::uint8_t* data, std::size_t bytes);

}  // namespace ais::shm
