// Finds ONNX Runtime without a Python interpreter.
#include "emulator/graph.hpp"

#include <dlfcn.h>
#include <glob.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <mutex>
#include <sstream>
#include <vector>

#include "device/runtimes.hpp"
#include "emulator/settings.hpp"

namespace ais::emulator {
namespace {

std::vector<std::string> matches(const std::string& pattern) {
  std::vector<std::string> found;
  glob_t result = {};
  if (glob(pattern.c_str(), 0, nullptr, &result) == 0) found.assign(result.gl_pathv, result.gl_pathv + result.gl_pathc);
  globfree(&result);
  return found;
}

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

// Returns the program's path as it was called. A virtual environment's `bin/python` is a link, and this path shows which one.
std::string called_as() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string name;
  std::getline(file, name, '\0');
  if (name.find('/') != std::string::npos) return name;
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (std::ifstream(folder + "/" + name)) return folder + "/" + name;
  }
  return name;
}

// Returns the candidates, best first: the setting, the folder beside this package, the running Python's environment, the
// loader.
std::vector<std::string> candidates() {
  const std::string library = "/onnxruntime/capi/libonnxruntime.so.*";
  if (!settings().ort_library.empty()) return {settings().ort_library};
  std::vector<std::string> found;
  const auto add = [&found](const std::vector<std::string>& more) { found.insert(found.end(), more.begin(), more.end()); };
  Dl_info self = {};
  if (dladdr(reinterpret_cast<const void*>(&load_graph), &self) != 0 && self.dli_fname != nullptr) {
    add(matches(folder_of(folder_of(folder_of(self.dli_fname))) + library));
  }
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    if (const char* prefix = std::getenv(name)) add(matches(std::string(prefix) + "/lib/python3*/site-packages" + library));
  }
  const std::string prefix = folder_of(folder_of(called_as()));
  for (const char* packages :
       {"/lib/python3*/site-packages", "/lib64/python3*/site-packages", "/local/lib/python3*/dist-packages"}) {
    add(matches(prefix + packages + library));
  }
  found.emplace_back("libonnxruntime.so.1");
  return found;
}

Result<std::shared_ptr<device::Device>> open_cpu() {
  // Never destroyed, because models may outlive static destructors.
  static auto* const mutex = new std::mutex;
  static auto* const cpu = new std::shared_ptr<device::Device>;
  const std::lock_guard<std::mutex> lock(*mutex);
  if (*cpu == nullptr) {
    AIS_ASSIGN(std::unique_ptr<device::Runtime> runtime, device::open_ort(candidates()));
    AIS_ASSIGN(*cpu, runtime->open(0, {}));
    runtime.release();  // its device refers to it
  }
  return *cpu;
}

}  // namespace

Result<std::shared_ptr<device::Model>> load_graph(const std::string& onnx) {
  AIS_ASSIGN(const std::shared_ptr<device::Device> cpu, open_cpu());
  device::ModelSource source;
  source.bytes = onnx.data();
  source.size = onnx.size();
  return cpu->load(source, {{"threads", std::to_string(settings().threads)}, {"session.intra_op.allow_spinning", "0"}});
}

}  // namespace ais::emulator
