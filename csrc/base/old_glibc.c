// For wheels: the few functions whose newest version in glibc is younger than 2.28, bound to their old one. Linked into a
// library that is compiled with -static-libstdc++, it makes a library that loads on glibc 2.28 and newer. auditwheel checks the
// result.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/random.h>
#include <time.h>

struct stat;

#if defined(__x86_64__)
#define OLDEST "GLIBC_2.2.5"
#define SETNAME "GLIBC_2.12"
#define STAT_VERSION 1
#elif defined(__aarch64__)
#define OLDEST "GLIBC_2.17"
#define SETNAME "GLIBC_2.17"
#define STAT_VERSION 0
#else
#error "wheels are for x86-64 and aarch64"
#endif
#define HIDDEN __attribute__((visibility("hidden")))

// What programs on glibc 2.33 and older find in libc, libdl, libm and libpthread; all of these are loaded with Python.
#define OLD_OF(version, result, name, parameters, arguments) \
  extern result old_##name parameters;                       \
  __asm__(".symver old_" #name "," #name "@" version);       \
  HIDDEN result name parameters { return old_##name arguments; }
#define OLD(result, name, parameters, arguments) OLD_OF(OLDEST, result, name, parameters, arguments)

OLD(void*, dlopen, (const char* path, int mode), (path, mode))
OLD(void*, dlsym, (void* handle, const char* name), (handle, name))
OLD(int, dladdr, (const void* address, Dl_info* info), (address, info))
OLD(char*, dlerror, (void), ())
OLD(int, pthread_create, (pthread_t * thread, const pthread_attr_t* attr, void* (*run)(void*), void* arg),
    (thread, attr, run, arg))
OLD(int, pthread_join, (pthread_t thread, void** result), (thread, result))
OLD(int, pthread_detach, (pthread_t thread), (thread))
OLD_OF(SETNAME, int, pthread_setname_np, (pthread_t thread, const char* name), (thread, name))
OLD(int, pthread_once, (pthread_once_t * once, void (*run)(void)), (once, run))
OLD(int, pthread_key_create, (pthread_key_t * key, void (*end)(void*)), (key, end))
OLD(int, pthread_key_delete, (pthread_key_t key), (key))
OLD(void*, pthread_getspecific, (pthread_key_t key), (key))
OLD(int, pthread_setspecific, (pthread_key_t key, const void* value), (key, value))
OLD(int, pthread_mutex_trylock, (pthread_mutex_t * mutex), (mutex))
OLD(int, pthread_rwlock_rdlock, (pthread_rwlock_t * lock), (lock))
OLD(int, pthread_rwlock_wrlock, (pthread_rwlock_t * lock), (lock))
OLD(int, pthread_rwlock_unlock, (pthread_rwlock_t * lock), (lock))
OLD(int, pthread_sigmask, (int how, const sigset_t* set, sigset_t* old), (how, set, old))
OLD(double, exp, (double x), (x))
OLD(double, log, (double x), (x))
OLD(int, __fxstat, (int version, int fd, struct stat* out), (version, fd, out))
OLD(int, __xstat, (int version, const char* path, struct stat* out), (version, path, out))
OLD(int, __lxstat, (int version, const char* path, struct stat* out), (version, path, out))

// Functions since 2.33 only; struct stat and struct stat64 are the same on 64 bits.
HIDDEN int fstat(int fd, struct stat* out) { return __fxstat(STAT_VERSION, fd, out); }
HIDDEN int fstat64(int fd, struct stat* out) { return __fxstat(STAT_VERSION, fd, out); }
HIDDEN int stat(const char* path, struct stat* out) { return __xstat(STAT_VERSION, path, out); }
HIDDEN int lstat(const char* path, struct stat* out) { return __lxstat(STAT_VERSION, path, out); }

// Since 2.32; false is always right.
HIDDEN char __libc_single_threaded = 0;

// Since 2.30. Without it the wait is on the wall clock, from now on: a jump of that clock makes it longer or shorter.
HIDDEN int pthread_cond_clockwait(pthread_cond_t* cond, pthread_mutex_t* mutex, clockid_t clock, const struct timespec* until) {
  typedef int (*Wait)(pthread_cond_t*, pthread_mutex_t*, clockid_t, const struct timespec*);
  static Wait found;  // the same for all threads, so a race finds it twice
  static int looked;
  if (!__atomic_load_n(&looked, __ATOMIC_ACQUIRE)) {
    __atomic_store_n(&found, (Wait)dlsym(RTLD_DEFAULT, "pthread_cond_clockwait"), __ATOMIC_RELAXED);
    __atomic_store_n(&looked, 1, __ATOMIC_RELEASE);
  }
  const Wait wait = __atomic_load_n(&found, __ATOMIC_RELAXED);
  if (wait != NULL) return wait(cond, mutex, clock, until);
  if (clock == CLOCK_REALTIME) return pthread_cond_timedwait(cond, mutex, until);
  struct timespec now, wall;
  clock_gettime(clock, &now);
  clock_gettime(CLOCK_REALTIME, &wall);
  int64_t left = (until->tv_sec - now.tv_sec) * INT64_C(1000000000) + (until->tv_nsec - now.tv_nsec);
  if (left <= 0) return ETIMEDOUT;
  const int64_t at = wall.tv_nsec + left;
  wall.tv_sec += at / 1000000000;
  wall.tv_nsec = at % 1000000000;
  return pthread_cond_timedwait(cond, mutex, &wall);
}

// Since 2.36, for std::random_device.
HIDDEN uint32_t arc4random(void) {
  uint32_t value = 0;
  while (getentropy(&value, sizeof value) != 0) {
  }
  return value;
}
