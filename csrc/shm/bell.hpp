// The parent's doorbell: one word in a separate region, which all workers of a pool attach, so one wait covers all of them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include "shm/futex.hpp"
#include "shm/memfd.hpp"

namespace ais::shm {

class Bell {
 public:
  static Result<std::shared_ptr<Bell>> create() {
    AIS_ASSIGN(std::shared_ptr<Region> region, Region::create("ais_bench-bell", kBytes, kBytes));
    new (region->data()) std::atomic<std::uint64_t>(0);
    return std::shared_ptr<Bell>(new Bell(std::move(region)));
  }
  static Result<std::shared_ptr<Bell>> attach(Fd fd) {
    AIS_ASSIGN(std::shared_ptr<Region> region, Region::attach(std::move(fd), kBytes));
    return std::shared_ptr<Bell>(new Bell(std::move(region)));
  }

  Doorbell doorbell() const { return Doorbell(reinterpret_cast<std::atomic<std::uint64_t>*>(region_->data())); }
  int fd() const { return region_->fd(); }

 private:
  static constexpr std::size_t kBytes = 1 << 16;  // a whole page for any page size
  explicit Bell(std::shared_ptr<Region> region) : region_(std::move(region)) {}
  std::shared_ptr<Region> region_;
};

}  // namespace ais::shm
