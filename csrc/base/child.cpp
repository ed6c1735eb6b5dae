// Starts children with vfork and exec, and watches them with pidfds, or with a thread if there are none.
#include "base/child.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "base/tuning.hpp"

extern char** environ;

namespace ais {
namespace {

// System call numbers, equal on all architectures, for C libraries that do not define them.
constexpr long kPidfdSendSignal = 424;
constexpr long kPidfdOpen = 434;
constexpr long kCloseRange = 436;
constexpr int kPPidfd = 3;  // P_PIDFD

Status refused(const std::string& what, int number) {
  return Status(Code::kSystem, what + ": " + std::strerror(number) + " (errno " + std::to_string(number) + ")");
}

// Returns the files that a program's name may mean, in the order of a shell.
std::vector<std::string> places_of(const std::string& program) {
  if (program.find('/') != std::string::npos) return {program};
  const char* const path = std::getenv("PATH");
  const std::string all = path == nullptr ? "/usr/local/bin:/bin:/usr/bin" : path;
  std::vector<std::string> places;
  for (std::size_t begin = 0; begin <= all.size();) {
    const std::size_t end = std::min(all.find(':', begin), all.size());
    const std::string folder = all.substr(begin, end - begin);
    places.push_back((folder.empty() ? "." : folder) + "/" + program);
    begin = end + 1;
  }
  return places;
}

// The data for the child. The parent prepares it, because nothing may allocate between vfork and exec.
struct StartPlan {
  std::vector<std::string> places;
  std::vector<char*> argv;
  int stdio[3];
  std::vector<int> keep;  // ascending
  sigset_t mask;
  volatile int reason = 0;  // why exec failed; the child writes into the parent's memory
};

// For systems without close_range: closes the descriptors in [low, high] that /proc lists, with a buffer on the stack.
void close_listed(unsigned low, unsigned high) {
  const int folder = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
  if (folder < 0) {  // without /proc try every possible number
    const long most = std::min(sysconf(_SC_OPEN_MAX), 65536L);
    for (unsigned fd = low; fd <= high && fd < most; ++fd) ::close(static_cast<int>(fd));
    return;
  }
  struct Entry {  // linux_dirent64
    std::uint64_t inode;
    std::int64_t offset;
    unsigned short bytes;
    unsigned char type;
    char name[1];
  };
  alignas(Entry) char buffer[4096];
  // Closing changes the listing while it is read: repeat until a whole pass closes nothing.
  for (bool changed = true; changed;) {
    changed = false;
    lseek(folder, 0, SEEK_SET);
    for (long bytes; (bytes = syscall(SYS_getdents64, folder, buffer, sizeof buffer)) > 0;) {
      for (long at = 0; at < bytes;) {
        const auto* const entry = reinterpret_cast<const Entry*>(buffer + at);
        unsigned fd = 0;
        const char* digit = entry->name;
        for (; *digit >= '0' && *digit <= '9'; ++digit) fd = fd * 10 + static_cast<unsigned>(*digit - '0');
        if (digit != entry->name && fd >= low && fd <= high && static_cast<int>(fd) != folder) {
          changed = ::close(static_cast<int>(fd)) == 0 || changed;
        }
        at += entry->bytes;
      }
    }
  }
  ::close(folder);
}

void close_between(unsigned low, unsigned high) {
  if (low <= high && syscall(kCloseRange, low, high, 0U) != 0) close_listed(low, high);
}

// Runs in the child, on the parent's memory.
[[noreturn]] void become(StartPlan& plan) {
  // Signals are still blocked, because no handler of the parent may run here.
  struct sigaction usual{};
  usual.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) {
    struct sigaction now{};
    if (sigaction(number, nullptr, &now) != 0) continue;
    // Python ignores two signals by which programs expect to be ended: reset them. Other ignored signals stay ignored.
    if (now.sa_handler != SIG_IGN || number == SIGPIPE || number == SIGXFSZ) sigaction(number, &usual, nullptr);
  }
  setsid();
  bool good = true;
  for (int fd = 0; fd < 3; ++fd) good = good && dup2(plan.stdio[fd], fd) == fd;
  unsigned next = 3;
  for (const int fd : plan.keep) {
    if (fd > 3) close_between(next, static_cast<unsigned>(fd) - 1);
    good = good && fcntl(fd, F_SETFD, 0) == 0;
    next = static_cast<unsigned>(fd) + 1;
  }
  close_between(next, ~0U);
  sigprocmask(SIG_SETMASK, &plan.mask, nullptr);
  if (!good) {
    plan.reason = errno;
    _exit(127);
  }
  int reason = ENOENT;
  for (const std::string& place : plan.places) {
    execve(place.c_str(), plan.argv.data(), environ);
    if (errno != ENOENT && errno != ENOTDIR) reason = errno;
  }
  plan.reason = reason;
  _exit(127);
}

// When this returns, the child no longer uses the parent's memory: it runs another program, or has ended.
int start(StartPlan& plan) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &plan.mask);
  const int pid = vfork();
  if (pid == 0) become(plan);
  const int number = errno;
  pthread_sigmask(SIG_SETMASK, &plan.mask, nullptr);
  errno = number;
  return pid;
}

bool has_ended(int pid) {
  siginfo_t info{};
  return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == pid;
}

// Returns whether a process is not reaped yet, by its open folder in /proc, which belongs to this process only.
bool in_proc(int folder) { return folder < 0 || faccessat(folder, "stat", F_OK, 0) == 0; }

// Copies the standard descriptors in `fds` to higher numbers, because dup2 onto them would close them. `copies`: the copies.
bool lift(int* fds, std::vector<int>& copies) {
  for (int place = 0; place < 3; ++place) {
    if (fds[place] > 2) continue;
    const int higher = fcntl(fds[place], F_DUPFD_CLOEXEC, 3);
    if (higher < 0) return false;
    copies.push_back(higher);
    fds[place] = higher;
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<Child>> Child::spawn(const std::vector<std::string>& argv, int in, int out, int err,
                                            const std::vector<int>& keep) {
  if (argv.empty()) return Status(Code::kInvalidArgument, "a program to run must be given");
  StartPlan plan;
  plan.places = places_of(argv.front());
  for (const std::string& word : argv) plan.argv.push_back(const_cast<char*>(word.c_str()));
  plan.argv.push_back(nullptr);
  plan.keep = keep;
  std::sort(plan.keep.begin(), plan.keep.end());
  if (!plan.keep.empty() && plan.keep.front() < 3) {
    return Status(Code::kInvalidArgument, "descriptors 0 to 2 are the standard ones and cannot be kept");
  }
  std::copy_n(std::begin({in, out, err}), 3, plan.stdio);
  std::vector<int> copies;
  const bool lifted = lift(plan.stdio, copies);
  int number = errno;
  const int pid = lifted ? start(plan) : -1;
  if (lifted) number = errno;
  for (const int fd : copies) ::close(fd);
  if (pid < 0) return refused("the system refuses another process", number);
  std::unique_ptr<Child> child(new Child(pid));
  if (plan.reason != 0) {
    child->reap();
    return refused("cannot run " + argv.front(), plan.reason);
  }
  Status status = child->watch();
  if (!status.ok()) {
    child->kill(SIGKILL);
    child->reap();
    return status;
  }
  return child;
}

Child::~Child() { close(); }

Status Child::watch() {
  const long fd = syscall(kPidfdOpen, pid_, 0U);
  if (fd >= 0) {
    has_pidfd_ = true;
    watch_fd_ = static_cast<int>(fd);
    return Status();
  }
  if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) return refused("no descriptor for a new process", errno);
  proc_fd_ = open(("/proc/" + std::to_string(pid_)).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  watch_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const int mine = watch_fd_ < 0 ? -1 : fcntl(watch_fd_, F_DUPFD_CLOEXEC, 3);
  if (mine < 0) return refused("no descriptor for a new process", errno);
  const int folder = proc_fd_ < 0 ? -1 : fcntl(proc_fd_, F_DUPFD_CLOEXEC, 3);
  try {
    // The thread does not use this object, which may be destroyed first. It does not reap, so the process id stays reserved.
    std::thread([pid = pid_, mine, folder] {
      sigset_t all;
      sigfillset(&all);
      pthread_sigmask(SIG_SETMASK, &all, nullptr);
      siginfo_t info{};
      while (in_proc(folder) && waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR)
        continue;
      eventfd_write(mine, 1);
      ::close(mine);
      if (folder >= 0) ::close(folder);
    }).detach();
  } catch (const std::system_error& error) {
    ::close(mine);
    if (folder >= 0) ::close(folder);
    return refused("no thread to wait for a new process", error.code().value());
  }
  return Status();
}

bool Child::keeps_number() const { return in_proc(proc_fd_); }

bool Child::is_child() const { return !reaped_ && !has_ended(pid_) && keeps_number(); }

void Child::kill(int signal) {
  const std::lock_guard<std::mutex> guard(mutex_);
  if (has_pidfd_ && watch_fd_ >= 0) {
    if (syscall(kPidfdSendSignal, watch_fd_, signal, nullptr, 0U) == 0 || errno == ESRCH) return;
  }
  if (is_child()) ::kill(pid_, signal);
}

Ending Child::reap() {
  int fd = -1;
  {
    const std::lock_guard<std::mutex> guard(mutex_);
    fd = watch_fd_;
  }
  pollfd ready{fd, POLLIN, 0};
  // Without a pidfd: if other code has reaped the child, the waiting thread may wait for a new process with its id.
  while (fd >= 0) {
    const int found = poll(&ready, 1, has_pidfd_ ? -1 : tuning::kChildLookMs);
    if (found > 0 || (found < 0 && errno != EINTR) || (found == 0 && !keeps_number())) break;
  }
  const std::lock_guard<std::mutex> guard(mutex_);
  siginfo_t info{};
  int result = -1;
  errno = ENOSYS;
  if (reaped_) return Ending{};
  if (has_pidfd_) result = waitid(static_cast<idtype_t>(kPPidfd), static_cast<id_t>(watch_fd_), &info, WEXITED);
  // Without a pidfd use the process id. If other code has reaped the child, the id may belong to another process now.
  if (result != 0 && errno != ECHILD && keeps_number()) {
    while ((result = waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED)) != 0 && errno == EINTR) continue;
  }
  reaped_ = true;
  if (result != 0) return Ending{};
  return info.si_code == CLD_EXITED ? Ending{-1, info.si_status} : Ending{info.si_status, -1};
}

void Child::close() {
  std::unique_lock<std::mutex> guard(mutex_, std::defer_lock);
  if (generation_ == fork_generation()) guard.lock();  // in a forked child the lock may never be released
  for (int* fd : {&watch_fd_, &proc_fd_}) {
    if (*fd >= 0) ::close(*fd);
    *fd = -1;
  }
}

}  // namespace ais
