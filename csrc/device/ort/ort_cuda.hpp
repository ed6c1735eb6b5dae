// Registers host memory with CUDA, so that a GPU copies from and to it directly. ONNX Runtime has no call for this.
//
// The calls are those of the CUDA runtime library that the provider's library has loaded into this process; no other copy of it
// is loaded. Registered memory is page-locked for all GPUs of the process. CUDA keeps the error of a call until a program asks
// for it, and ONNX Runtime asks after each kernel; so an error of a call here is taken back at once.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "base/dylib.hpp"
#include "base/status.hpp"

namespace ais::ort {

class CudaHost {
 public:
  // Null: the provider is not one for CUDA, or it has loaded no CUDA runtime library that has these calls.
  static std::unique_ptr<CudaHost> find(const std::string& provider, int device);

  // Makes the device the current one of this thread. Without it a thread that copies would open device 0, too.
  Status enter() const;
  Status register_memory(void* host, std::size_t bytes) const;
  Status unregister_memory(void* host) const;

 private:
  explicit CudaHost(int device) : device_(device) {}
  Status check(int answer, const char* call) const;

  const int device_;
  Dylib library_;
  int (*set_device_)(int) = nullptr;
  int (*register_)(void*, std::size_t, unsigned) = nullptr;
  int (*unregister_)(void*) = nullptr;
  int (*last_error_)() = nullptr;
  const char* (*text_)(int) = nullptr;
};

}  // namespace ais::ort
