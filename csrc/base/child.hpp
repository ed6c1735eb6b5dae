// A child process: started by exec, watched, signalled and reaped.
//
// A signal must never reach another process that has received the child's process id since. A pidfd ensures this. Without
// pidfds (Linux before 5.3, containers that refuse them) the process id is used. The kernel does not assign it again before the
// child is reaped. If something else in this process reaps children, the child's open folder in /proc shows it: the folder
// belongs to the child, not to the process id.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/process.hpp"
#include "base/status.hpp"

namespace ais {

// How a process ended: the signal or the exit code; the other is -1. Both are -1 if other code reaped the process.
struct Ending {
  int signal = -1;
  int exit_code = -1;
};

class Child {
 public:
  // Runs `argv` in a new session. The child gets the three standard descriptors, and those in `keep` under the same numbers;
  // all others are closed. A program name without a slash is searched in PATH. For the kernel the calling thread is the parent
  // (die_with_parent).
  static Result<std::unique_ptr<Child>> spawn(const std::vector<std::string>& argv, int in, int out, int err,
                                              const std::vector<int>& keep);

  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();

  int pid() const { return pid_; }

  // A descriptor that is readable once the child has ended; -1 after close.
  int watch_fd() const { return watch_fd_; }

  // Sends a signal. Has no effect if the child has ended. Any thread.
  void kill(int signal);

  // Waits until the child has ended, and returns how.
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
  std::mutex mutex_;  // guards the members below
  bool has_pidfd_ = false;
  bool reaped_ = false;
  int watch_fd_ = -1;
  int proc_fd_ = -1;  // if there is no pidfd: the child's folder in /proc
};

}  // namespace ais
