// memfd_create, seals, mmap. The only file that maps memory.
#include "shm/memfd.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace ais::shm {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

Status system_error(const std::string& what, int number) {
  return Status(Code::kSystem, what + ": " + std::strerror(number) + " (errno " + std::to_string(number) + ")");
}

// Some kernels are set to refuse a memfd that could be executed, older ones do not know how to make the other kind.
int make_memfd(const char* label) {
  const int fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  if (fd >= 0 || errno != EINVAL) return fd;
  return memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

std::size_t limit_of(int resource) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return ~std::size_t{0};
  return limit.rlim_cur;
}

// ftruncate beyond RLIMIT_FSIZE does not just fail, it raises SIGXFSZ. Of a limited address space most is left to the program.
std::size_t within_limits(std::size_t bytes, std::size_t least) {
  const std::size_t limit = std::min(limit_of(RLIMIT_FSIZE), limit_of(RLIMIT_AS) / 16);
  while (bytes > limit && bytes / 2 >= least) bytes /= 2;
  return bytes;
}

std::uint8_t* map(int fd, std::size_t bytes) {
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (address == MAP_FAILED) return nullptr;
  // A core file would hold every slot of every worker. Refusal changes nothing else.
  (void)madvise(address, bytes, MADV_DONTDUMP);
  return static_cast<std::uint8_t*>(address);
}

std::size_t page_bytes() {
  static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

}  // namespace

void Fd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Result<std::shared_ptr<Region>> Region::create(const char* label, std::size_t bytes, std::size_t least) {
  int reason = 0;
  for (bytes = within_limits(bytes, least); bytes >= least; bytes /= 2) {
    Fd fd(make_memfd(label));
    if (fd.get() < 0) return system_error("no shared memory: memfd_create", errno);
    if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
      reason = errno;
      continue;
    }
    std::uint8_t* data = map(fd.get(), bytes);
    if (data == nullptr) {
      reason = errno;
      continue;
    }
    auto region = std::shared_ptr<Region>(new Region(std::move(fd), data, bytes));
    // The kernel may have added F_SEAL_EXEC by itself, and with it sealing of seals is still open.
    if (fcntl(region->fd(), F_ADD_SEALS, kSeals) != 0) return system_error("no shared memory: sealing it", errno);
    return region;
  }
  return system_error("no shared memory: a region of " + std::to_string(least) +
                          " bytes, the least that is of use, was refused (see ulimit -v and ulimit -f)",
                      reason == 0 ? EFBIG : reason);
}

Result<std::shared_ptr<Region>> Region::attach(Fd fd, std::size_t least) {
  struct stat status{};
  if (fstat(fd.get(), &status) != 0) return system_error("the shared memory's descriptor", errno);
  const int seals = fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return Status(Code::kCorrupt, "the descriptor is not of sealed shared memory: its size could change under us");
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size < least) {
    return Status(Code::kCorrupt,
                  "shared memory of " + std::to_string(size) + " bytes, expected at least " + std::to_string(least));
  }
  std::uint8_t* data = map(fd.get(), size);
  if (data == nullptr) return system_error("mapping " + std::to_string(size) + " bytes of shared memory", errno);
  fd.reset();
  return std::shared_ptr<Region>(new Region(Fd(), data, size));
}

Region::~Region() {
  if (data_ != nullptr) munmap(data_, size_);
}

void Region::populate(std::size_t offset, std::size_t bytes) const {
  if (offset > size_ || bytes > size_ - offset) return;
  const std::size_t begin = offset / page_bytes() * page_bytes();
  (void)madvise(data_ + begin, offset + bytes - begin, MADV_POPULATE_WRITE);
}

void Region::punch(std::size_t offset, std::size_t bytes) const {
  if (offset > size_ || bytes > size_ - offset) return;
  const std::size_t begin = (offset + page_bytes() - 1) / page_bytes() * page_bytes();
  const std::size_t end = (offset + bytes) / page_bytes() * page_bytes();
  if (begin < end) (void)madvise(data_ + begin, end - begin, MADV_REMOVE);
}

}  // namespace ais::shm
