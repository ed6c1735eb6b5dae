// State that threads share, and that a forked child must not touch.
//
// A lock that another thread held during a fork is never released in the child. So Access is the only way to the state, it is
// false in a child, and every user must handle this case.
#pragma once

#include <cstdint>
#include <mutex>
#include <utility>

#include "base/process.hpp"

namespace ais {

template <typename T>
class Guarded {
 public:
  // Access to the state, which is locked while this object lives; false in a forked child.
  class Access {
   public:
    explicit operator bool() const { return value_ != nullptr; }
    T* operator->() const { return value_; }
    T& operator*() const { return *value_; }

   private:
    friend class Guarded;
    Access() = default;
    Access(std::mutex* lock, T* value) : lock_(*lock), value_(value) {}
    std::unique_lock<std::mutex> lock_;
    T* value_ = nullptr;
  };

  Guarded() = default;
  explicit Guarded(T value) : value_(std::move(value)) {}
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  bool inherited() const { return generation_ != fork_generation(); }
  Access lock() const {
    if (inherited()) return Access();
    return Access(&lock_, &value_);
  }

 private:
  const std::uint64_t generation_ = fork_generation();
  mutable std::mutex lock_;
  mutable T value_;  // guarded by lock_
};

}  // namespace ais
