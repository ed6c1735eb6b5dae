// The CUDA runtime library: cudaSetDevice, cudaHostRegister, cudaHostUnregister.
#include "device/ort/ort_cuda.hpp"

#include <utility>

namespace ais::ort {
namespace {

constexpr unsigned kPortable = 1;  // cudaHostRegisterPortable: for all contexts of the process

template <typename F>
bool resolve(const Dylib& library, const char* name, F* out) {
  *out = reinterpret_cast<F>(library.symbol(name));
  return *out != nullptr;
}

}  // namespace

std::unique_ptr<CudaHost> CudaHost::find(const std::string& provider, int device) {
  if (provider != "CUDAExecutionProvider" && provider != "NvTensorRTRTXExecutionProvider") return nullptr;
  auto made = std::unique_ptr<CudaHost>(new CudaHost(device));
  made->library_ = Dylib::find_loaded({"libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"});
  const Dylib& library = made->library_;
  const bool has_all =
      resolve(library, "cudaSetDevice", &made->set_device_) && resolve(library, "cudaHostRegister", &made->register_) &&
      resolve(library, "cudaHostUnregister", &made->unregister_) && resolve(library, "cudaGetLastError", &made->last_error_) &&
      resolve(library, "cudaGetErrorString", &made->text_);
  return has_all ? std::move(made) : nullptr;
}

Status CudaHost::check(int answer, const char* call) const {
  if (answer == 0) return Status();
  static_cast<void>(last_error_());
  return Status(Code::kUnsupported, std::string(call) + " returned " + std::to_string(answer) + " (" + text_(answer) + ")",
                answer);
}

Status CudaHost::enter() const { return check(set_device_(device_), "cudaSetDevice"); }

Status CudaHost::register_memory(void* host, std::size_t bytes) const {
  AIS_TRY(enter());
  return check(register_(host, bytes, kPortable), "cudaHostRegister");
}

Status CudaHost::unregister_memory(void* host) const {
  AIS_TRY(enter());
  return check(unregister_(host), "cudaHostUnregister");
}

}  // namespace ais::ort
