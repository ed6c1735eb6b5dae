// A child process: started by exec, watched, signalled and reaped.
//
// A signal must never reach another process that has got the child's number since. A pidfd sees to that. Without pidfds (Linux
// before 5.3, containers that refuse them) the number is used, and it cannot be given away while the child is not reaped; if
// something else in this process reaps children, the child's folder in /proc tells: it goes with the child, not with the
// number.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/process.hpp"
#include "base/status.hpp"

namespace ais {

// How a process ended: by a signal or with an exit code; -1 for what it was not. Both -1: somebody else reaped it.
struct Ending {
  int signal = -1;
  int exit_code = -1;
};

class Child {
 public:
  // Runs `argv` in a session of its own, with the standard descriptors given and, under their numbers, those in `keep`; every
  // other descriptor is closed there. The program is looked up in PATH if its name has no slash. The kernel takes the calling
  // thread for the parent (die_with_parent).
  static Result<std::unique_ptr<Child>> spawn(const std::vector<std::string>& argv, int in, int out, int err,
                                              const std::vector<int>& keep);

  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  int pid() const { return pid_; }

  // A descriptor that is readable once the child has ended; -1 after close.
  int watch_fd() const { return watch_fd_; }

  // Sends a signal. Any thread; too late is fine, and then nobody gets it.
  void kill(int signal);

  // Waits until the child has ended, and says how.
  Ending reap();

  // Closes the descriptors. The child must have been reaped, or this process is a fork of the one that started it.
  void close();

 private:
  explicit Child(int pid) : pid_(pid), generation_(fork_generation()) {}

  Status watch();
  bool keeps_number() const;
  bool is_child() const;

  const int pid_;
  const std::uint64_t generation_;
  std::mutex mutex_;  // guards what follows
  bool has_pidfd_ = false;
  bool reaped_ = false;
  int watch_fd_ = -1;
  int proc_fd_ = -1;  // in place of a pidfd: the child's folder in /proc
};

}  // namespace ais
