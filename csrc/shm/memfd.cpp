// memfd_create, seals, mmap. The only file that maps memory.
#include "shm/memfd.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/memory.hpp"
#include "base/tuning.hpp"

#ifndef MFD_CLOEXEC
#define MFD_CLOEXEC 0x0001U
#define MFD_ALLOW_SEALING 0x0002U
#endif
#ifndef F_ADD_SEALS
#define F_ADD_SEALS 1033
#define F_GET_SEALS 1034
#define F_SEAL_SEAL 0x0001
#define F_SEAL_SHRINK 0x0002
#define F_SEAL_GROW 0x0004
#endif
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

int memfd(const char* label, unsigned flags) { return static_cast<int>(syscall(SYS_memfd_create, label, flags)); }

// Some kernels refuse an executable memfd, and older kernels have no flag for another one: try both.
int make_memfd(const char* label) {
  const int fd = memfd(label, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  if (fd >= 0 || errno != EINVAL) return fd;
  return memfd(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

// Returns whether this system has memory whose size can be sealed. Linux before 3.17 and some containers do not have it.
bool can_seal() {
  const Fd probe(make_memfd("ais_bench probe"));
  return probe.get() >= 0 && fcntl(probe.get(), F_ADD_SEALS, kSeals) == 0;
}

std::size_t free_bytes(const std::string& folder) {
  struct statvfs info{};
  if (statvfs(folder.c_str(), &info) != 0) return 0;
  return static_cast<std::size_t>(info.f_bavail) * info.f_frsize;
}

// Makes a file without a name.
int unnamed_file(const std::string& folder) {
  int fd = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
  if (fd >= 0) return fd;
  std::string name = folder + "/ais_bench-XXXXXX";  // not every kernel and file system has O_TMPFILE
  fd = mkostemp(name.data(), O_CLOEXEC);
  if (fd >= 0) unlink(name.c_str());
  return fd;
}

// Makes a file in place of a memfd: in memory, or on a disk if /dev/shm is small, as in many containers. `bytes` is limited to
// the free space of the file system, because its pages must fit.
int make_file(std::size_t& bytes) {
  std::vector<std::string> folders = {"/dev/shm"};
  if (const char* const chosen = std::getenv("TMPDIR"); chosen != nullptr && *chosen != 0) folders.emplace_back(chosen);
  folders.insert(folders.end(), {"/tmp", "/var/tmp"});
  Fd best;
  std::size_t most = 0;
  int reason = ENOENT;
  for (const std::string& folder : folders) {
    const std::size_t room = free_bytes(folder);
    if (room <= most || most >= tuning::kRoomyBytes) continue;
    Fd fd(unnamed_file(folder));
    if (fd.get() < 0) {
      reason = errno;
      continue;
    }
    best = std::move(fd);
    most = room;
  }
  bytes = std::min(bytes, most);
  errno = reason;
  return best.release();
}

std::size_t limit_of(int resource) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return ~std::size_t{0};
  return limit.rlim_cur;
}

// ftruncate beyond RLIMIT_FSIZE raises SIGXFSZ. If the address space is limited, most of it is left for the program.
std::size_t within_limits(std::size_t bytes, std::size_t least) {
  const std::size_t limit = std::min(limit_of(RLIMIT_FSIZE), limit_of(RLIMIT_AS) / 16);
  while (bytes > limit && bytes / 2 >= least) bytes /= 2;
  return bytes;
}

std::uint8_t* map(int fd, std::size_t bytes) {
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (address == MAP_FAILED) return nullptr;
  // Otherwise a core file would contain every slot of every worker. A failure has no other effect.
  (void)madvise(address, bytes, MADV_DONTDUMP);
  return static_cast<std::uint8_t*>(address);
}

std::size_t page_bytes() {
  static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

// Returns the bytes of these pages that have no memory yet.
std::size_t missing_bytes(const std::uint8_t* data, std::size_t bytes) {
  constexpr std::size_t kAtOnce = 1 << 14;
  std::vector<unsigned char> present(kAtOnce);
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t begin = address / page_bytes() * page_bytes();
  std::size_t missing = 0;
  for (std::uintptr_t at = begin; at < address + bytes; at += kAtOnce * page_bytes()) {
    const std::size_t length = std::min<std::size_t>(kAtOnce * page_bytes(), address + bytes - at);
    const std::size_t pages = (length + page_bytes() - 1) / page_bytes();
    if (mincore(reinterpret_cast<void*>(at), length, present.data()) != 0) return bytes;
    missing += static_cast<std::size_t>(std::count_if(present.begin(), present.begin() + static_cast<std::ptrdiff_t>(pages),
                                                      [](unsigned char page) { return (page & 1) == 0; }));
  }
  return missing * page_bytes();
}

}  // namespace

Status room_for(const std::uint8_t* data, std::size_t bytes) {
  if (bytes < tuning::kAskForRoomFrom) return Status();
  const MemoryRoom room = memory_room();
  const std::uint64_t spare = std::min<std::uint64_t>(tuning::kSpareBytes, room.limit / 32);
  if (room.limit == 0 || bytes + spare <= room.available) return Status();
  const std::size_t missing = missing_bytes(data, bytes);
  if (missing == 0 || missing + spare <= room.available) return Status();
  return Status(Code::kNoRoom, "shared memory of " + std::to_string(missing) + " bytes more is needed, but only " +
                                   std::to_string(room.available) + " bytes are left of " + room.of + ", " +
                                   std::to_string(room.limit) + " bytes");
}

void Fd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Result<std::shared_ptr<Region>> Region::create(const char* label, std::size_t bytes, std::size_t least) {
  int reason = 0;
  const bool sealed = can_seal();
  for (bytes = within_limits(bytes, least); bytes >= least; bytes /= 2) {
    Fd fd(sealed ? make_memfd(label) : make_file(bytes));
    if (fd.get() < 0) return system_error(sealed ? "no shared memory: memfd_create" : "no shared memory: a file for it", errno);
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
    // The kernel may have added F_SEAL_EXEC; further seals are still possible.
    if (sealed && fcntl(region->fd(), F_ADD_SEALS, kSeals) != 0) return system_error("no shared memory: sealing it", errno);
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
  const bool nameless = S_ISREG(status.st_mode) && status.st_nlink == 0;  // only the two processes have it
  if ((seals < 0 || (seals & F_SEAL_SHRINK) == 0) && (!nameless || can_seal())) {
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
