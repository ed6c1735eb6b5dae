// Inspects the model, chooses how to load it, and loads it.
#include "device/acl/acl_load.hpp"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/file.hpp"

namespace ais::acl {
namespace {

constexpr std::size_t kModelTypeAt = 82;  // in the header of a compiled model
constexpr char kBundle = 5;
constexpr std::size_t kShortestName = 8;          // of a weight file; shorter names may be in a model by chance
constexpr const char* kWeightPrefix = "weight_";  // the prefix of the compiler's names; a digest of 64 digits follows
constexpr std::size_t kDigest = 64;

bool is_bundle(std::string_view model) {
  return model.size() > kModelTypeAt && model.substr(0, 4) == "IMOD" && model[kModelTypeAt] == kBundle;
}

bool is_folder(const std::string& path) {
  struct stat info = {};
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

bool is_file(const std::string& path) {
  struct stat info = {};
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0;
}

std::string folder_beside(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return (slash == std::string::npos ? std::string() : path.substr(0, slash + 1)) + "weight";
}

// Returns the files of the folder whose names are in the model, sorted.
std::vector<std::string> weights_in(const std::string& folder, std::string_view model) {
  std::vector<std::string> found;
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(opendir(folder.c_str()), closedir);
  if (entries == nullptr) return found;
  while (const dirent* entry = readdir(entries.get())) {
    const std::string_view name = entry->d_name;
    if (name.size() < kShortestName || memmem(model.data(), model.size(), name.data(), name.size()) == nullptr) continue;
    if (is_file(folder + "/" + entry->d_name)) found.emplace_back(name);
  }
  std::sort(found.begin(), found.end());
  return found;
}

// Returns the name of a weight file that is in the model; "" if there is none.
std::string weight_name(std::string_view model) {
  for (std::size_t at = model.find(kWeightPrefix); at != std::string_view::npos; at = model.find(kWeightPrefix, at + 1)) {
    const std::string_view name = model.substr(at, std::strlen(kWeightPrefix) + kDigest);
    const std::string_view digest = name.substr(std::strlen(kWeightPrefix));
    if (digest.size() == kDigest && digest.find_first_not_of("0123456789abcdefABCDEF") == std::string_view::npos)
      return std::string(name);
  }
  return "";
}

// AscendCL's load configuration.
class Config {
 public:
  explicit Config(const AclApi& api) : api_(api), handle_(api.aclmdlCreateConfigHandle()) {}
  ~Config() {
    if (handle_ != nullptr) ACL_RELEASE(api_, aclmdlDestroyConfigHandle, handle_);
  }
  Config(const Config&) = delete;
  Config& operator=(const Config&) = delete;

  aclmdlConfigHandle* get() const { return handle_; }
  template <typename T>
  Status set(LoadAttr attr, const T& value) {
    return api_.check(api_.aclmdlSetConfigOpt(handle_, attr, &value, sizeof(value)), "aclmdlSetConfigOpt", Code::kModelLoad);
  }

 private:
  const AclApi& api_;
  aclmdlConfigHandle* const handle_;
};

bool can_configure(const AclApi& api) {
  return api.aclmdlCreateConfigHandle != nullptr && api.aclmdlDestroyConfigHandle != nullptr &&
         api.aclmdlSetConfigOpt != nullptr && api.aclmdlLoadWithConfig != nullptr;
}

// Returns a shared workspace for the model; null if AscendCL does not report its size, as for models with open shapes.
Result<std::shared_ptr<Workspace>> find_workspace(const AclApi& api, const device::ModelSource& source, DeviceShare* share) {
  const bool file = source.bytes == nullptr;
  const bool able = file ? api.aclmdlQuerySize != nullptr && api.aclmdlLoadFromFileWithMem != nullptr
                         : api.aclmdlQuerySizeFromMem != nullptr && api.aclmdlLoadFromMemWithMem != nullptr;
  std::size_t work = 0;
  std::size_t weights = 0;
  if (!able) return std::shared_ptr<Workspace>();
  const aclError number = file ? api.aclmdlQuerySize(source.path.c_str(), &work, &weights)
                               : api.aclmdlQuerySizeFromMem(source.bytes, source.size, &work, &weights);
  if (number != 0) static_cast<void>(api.aclGetRecentErrMsg());  // loading the model reports the error
  if (number != 0 || work == 0) return std::shared_ptr<Workspace>();
  return share->workspace(work);
}

Status load_plainly(const AclApi& api, const device::ModelSource& source, Loaded* loaded) {
  std::uint32_t* id = &loaded->id;
  if (loaded->workspace == nullptr) {
    return source.bytes == nullptr
               ? api.check(api.aclmdlLoadFromFile(source.path.c_str(), id), "aclmdlLoadFromFile", Code::kModelLoad)
               : api.check(api.aclmdlLoadFromMem(source.bytes, source.size, id), "aclmdlLoadFromMem", Code::kModelLoad);
  }
  void* work = loaded->workspace->memory.data.get();
  const std::size_t size = loaded->workspace->memory.bytes;
  return source.bytes == nullptr
             ? api.check(api.aclmdlLoadFromFileWithMem(source.path.c_str(), id, work, size, nullptr, 0),
                         "aclmdlLoadFromFileWithMem", Code::kModelLoad)
             : api.check(api.aclmdlLoadFromMemWithMem(source.bytes, source.size, id, work, size, nullptr, 0),
                         "aclmdlLoadFromMemWithMem", Code::kModelLoad);
}

Status set_source(const device::ModelSource& source, const Workspace* workspace, Config* config) {
  const LoadType from_file = workspace == nullptr ? kFromFile : kFromFileWithMemory;
  const LoadType from_memory = workspace == nullptr ? kFromMemory : kFromMemoryWithMemory;
  if (workspace != nullptr) {
    AIS_TRY(config->set(kWorkAddress, workspace->memory.data.get()));
    AIS_TRY(config->set(kWorkSize, workspace->memory.bytes));
  }
  AIS_TRY(config->set(kLoadType, std::size_t{source.bytes == nullptr ? from_file : from_memory}));
  if (source.bytes == nullptr) return config->set(kModelPath, source.path.c_str());
  AIS_TRY(config->set(kModelAddress, source.bytes));
  return config->set(kModelSize, source.size);
}

Status load_configured(const AclApi& api, const Config& config, std::uint32_t* id) {
  return api.check(api.aclmdlLoadWithConfig(config.get(), id), "aclmdlLoadWithConfig", Code::kModelLoad);
}

struct Weights {
  std::string folder;
  std::vector<std::string> names;
};

// Loads the model with weights that all sessions share.
Status load_with_shared(const AclApi& api, const device::ModelSource& source, const Weights& weights, DeviceShare* share,
                        Loaded* loaded) {
  Config config(api);
  if (config.get() == nullptr) return api.failed("aclmdlCreateConfigHandle", Code::kOutOfMemory);
  AIS_TRY(set_source(source, loaded->workspace.get(), &config));
  for (const std::string& name : weights.names) {
    AIS_ASSIGN(device::Buffer buffer, share->weights(weights.folder + "/" + name));
    AIS_TRY(api.check(api.aclmdlSetExternalWeightAddress(config.get(), name.c_str(), buffer.data.get(), buffer.bytes),
                      "aclmdlSetExternalWeightAddress", Code::kModelLoad));
    loaded->weights.push_back(std::move(buffer));
  }
  return load_configured(api, config, &loaded->id);
}

// Loads the model with its own weights, which AscendCL reads from a folder. It accepts a folder only for models from memory.
Status load_with_folder(const AclApi& api, const device::ModelSource& bytes, const std::string& folder, std::uint32_t* id) {
  if (!can_configure(api)) {
    return Status(Code::kUnsupported,
                  "the model's weights are in files of their own, and this AscendCL has no aclmdlLoadWithConfig to name their "
                  "folder with; put it beside the model's file, as 'weight', and load the model from the file");
  }
  Config config(api);
  if (config.get() == nullptr) return api.failed("aclmdlCreateConfigHandle", Code::kOutOfMemory);
  AIS_TRY(set_source(bytes, nullptr, &config));
  AIS_TRY(config.set(kWeightPath, folder.c_str()));
  return load_configured(api, config, id);
}

Status load_as_wanted(const AclApi& api, const device::ModelSource& source, std::string_view model, const LoadOptions& options,
                      DeviceShare* share, Loaded* loaded) {
  const std::string beside = source.bytes == nullptr ? folder_beside(source.path) : "";
  Weights weights;
  weights.folder = options.weight_dir.empty() ? beside : options.weight_dir;
  if (!weights.folder.empty()) weights.names = weights_in(weights.folder, model);
  if (options.share_workspace) {
    AIS_ASSIGN(loaded->workspace, find_workspace(api, source, share));
  }
  if (weights.names.empty()) return load_plainly(api, source, loaded);
  if (can_configure(api) && api.aclmdlSetExternalWeightAddress != nullptr)
    return load_with_shared(api, source, weights, share, loaded);
  if (weights.folder == beside) return load_plainly(api, source, loaded);
  loaded->workspace.reset();  // AscendCL does not accept both
  device::ModelSource bytes = source;
  bytes.bytes = model.data();
  bytes.size = model.size();
  return load_with_folder(api, bytes, weights.folder, &loaded->id);
}

// Adds advice to an error that may be caused by missing weights.
Status explain(Status status, std::string_view model, const LoadOptions& options) {
  if (status.ok() || status.code() == Code::kOutOfMemory || status.code() == Code::kDeviceLost) return status;
  const std::string name = weight_name(model);
  if (name.empty()) return status;
  const std::string where = options.weight_dir.empty() ? "in a folder 'weight' beside its file, or where weight_dir says"
                                                       : "in weight_dir '" + options.weight_dir + "'";
  return Status(status.code(),
                status.message() + "\nThe model keeps weights in files of their own, such as '" + name +
                    "'; they are looked for " + where,
                status.vendor_code());
}

}  // namespace

Result<Loaded> load_model(const AclApi& api, const device::ModelSource& source, const LoadOptions& options,
                          DeviceShare* share) {
  if (!options.weight_dir.empty() && !is_folder(options.weight_dir))
    return Status(Code::kInvalidArgument, "weight_dir must be the path of a folder, got '" + options.weight_dir + "'");
  std::string_view model(static_cast<const char*>(source.bytes), source.bytes == nullptr ? 0 : source.size);
  Result<MappedFile> file = source.bytes == nullptr ? MappedFile::open(source.path) : Status(Code::kClosed, "");
  if (file.ok()) model = {reinterpret_cast<const char*>(file.value().data()), file.value().size()};
  if (is_bundle(model)) {
    return Status(Code::kUnsupported,
                  "it is a bundle of several models (saved by aclgrphBundleSaveModel), and a session runs one; save each "
                  "graph as a model of its own (aclgrphSaveModel), or compile it with ATC");
  }
  Loaded loaded;
  AIS_TRY(explain(load_as_wanted(api, source, model, options, share, &loaded), model, options));
  return loaded;
}

}  // namespace ais::acl
