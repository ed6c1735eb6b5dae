// AscendCL: loading and unloading models.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <utility>

#include "base/file.hpp"
#include "emulator/call.hpp"
#include "emulator/graph.hpp"
#include "emulator/memory.hpp"
#include "emulator/objects.hpp"
#include "emulator/report.hpp"

namespace ais::emulator {
namespace {

aclError model_error(const Status& status, const std::string& name) {
  const bool other_soc = status.code() == Code::kUnsupported;
  return fail(other_soc ? ACL_ERROR_RT_SOC_VERSION : ACL_ERROR_GE_EXEC_MODEL_DATA_SIZE_INVALID, name + ": " + status.message());
}

}  // namespace

aclError read_spec(const void* data, std::size_t size, const std::string& name, std::shared_ptr<const ModelSpec>* out) {
  Result<std::shared_ptr<const ModelSpec>> spec = parse_container(data, size);
  if (!spec.ok()) return model_error(spec.status(), name);
  *out = spec.take();
  return ACL_SUCCESS;
}

aclError read_spec_file(const char* path, std::shared_ptr<const ModelSpec>* out) {
  if (path == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the model's path is NULL");
  Result<MappedFile> file = MappedFile::open(path);
  if (!file.ok()) return fail(ACL_ERROR_INVALID_FILE, file.status().message());
  return read_spec(file.value().data(), file.value().size(), path, out);
}

namespace {

// Checks the program's memory for work or weights: it must be memory of this device, and large enough.
aclError borrow(const Scope& scope, void* address, std::size_t given, std::size_t needed, const char* what, Model* model) {
  Range range;
  if (given < needed) {
    return fail(ACL_ERROR_GE_PARAM_INVALID,
                std::string(what) + " has " + std::to_string(given) + " bytes, the model needs " + std::to_string(needed));
  }
  if (const aclError code = memory().resolve(address, given, what, &range)) return code;
  if (!range.on_device() || range.device != scope.device_id) {
    return fail(ACL_ERROR_GE_EXEC_MODEL_ADDR_INVALID,
                std::string(what) + " is not memory of device " + std::to_string(scope.device_id));
  }
  model->borrowed.push_back(range.owner);
  return ACL_SUCCESS;
}

struct Placement {
  void* work = nullptr;
  std::size_t work_size = 0;
  void* weight = nullptr;
  std::size_t weight_size = 0;
  std::string folder;  // of separate weight files; "": unknown
  std::map<std::string, std::pair<void*, std::size_t>> external;
};

std::string folder_beside(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return (slash == std::string::npos ? std::string() : path.substr(0, slash + 1)) + "weight";
}

// Reads the weights of one file: from the program's memory if it gave some, otherwise from the file with a copy to the device.
aclError read_weights(const Scope& scope, const Placement& place, const std::string& file, std::size_t needed, Model* model,
                      std::string* out) {
  if (const auto given = place.external.find(file); given != place.external.end()) {
    const auto [address, size] = given->second;
    const std::string what = "the memory of external weights '" + file + "'";
    if (const aclError code = borrow(scope, address, size, needed, what.c_str(), model)) return code;
    Range range;
    if (const aclError code = memory().resolve(address, needed, what.c_str(), &range)) return code;
    out->assign(reinterpret_cast<const char*>(range.bytes), needed);
    return ACL_SUCCESS;
  }
  if (place.folder.empty()) {
    return fail(ACL_ERROR_GE_FAILURE, "the model's weights are in '" + file +
                                          "' and others, and it is loaded from memory: set ACL_MDL_WEIGHT_PATH_PTR, or give "
                                          "their memory with aclmdlSetExternalWeightAddress");
  }
  Result<MappedFile> read = MappedFile::open(place.folder + "/" + file);
  if (!read.ok()) return fail(ACL_ERROR_GE_FAILURE, "external weights: " + read.status().message());
  if (read.value().size() < needed) return fail(ACL_ERROR_GE_FAILURE, "the external weights '" + file + "' are too short");
  out->assign(reinterpret_cast<const char*>(read.value().data()), needed);
  model->charged += needed;
  return ACL_SUCCESS;
}

// Returns the graph with the weights in their places.
aclError whole_graph(const Scope& scope, const Placement& place, Model* model, std::string* out) {
  const ModelSpec& spec = *model->spec;
  std::map<std::string, std::size_t> needed;
  for (const WeightPiece& piece : spec.weights) needed[piece.file] = std::max(needed[piece.file], piece.bytes);
  std::map<std::string, std::string> contents;
  for (const auto& [file, bytes] : needed) {
    if (const aclError code = read_weights(scope, place, file, bytes, model, &contents[file])) return code;
  }
  std::size_t taken = 0;
  for (const WeightPiece& piece : spec.weights) {
    const std::size_t before = piece.at - out->size();
    out->append(spec.graph, taken, before);
    taken += before;
    out->append(contents[piece.file], 0, piece.bytes);
  }
  out->append(spec.graph, taken, std::string::npos);
  return ACL_SUCCESS;
}

// The description and the graph of a container must agree, because the graph is run with the description's shapes and types.
bool same_tensors(const ModelSpec& spec, const device::ModelInfo& graph) {
  if (graph.inputs.size() != spec.data_inputs() || graph.outputs.size() != spec.outputs.size()) return false;
  for (std::size_t i = 0; i < graph.inputs.size(); ++i) {
    if (graph.inputs[i].name != spec.inputs[i].name) return false;
    if (static_cast<int>(graph.inputs[i].dtype) != spec.inputs[i].graph_dtype) return false;
  }
  for (std::size_t i = 0; i < graph.outputs.size(); ++i) {
    if (graph.outputs[i].name != spec.outputs[i].name) return false;
    if (static_cast<int>(graph.outputs[i].dtype) != spec.outputs[i].dtype) return false;
  }
  return true;
}

aclError load(const Scope& scope, std::shared_ptr<const ModelSpec> spec, const Placement& place, std::uint32_t* id) {
  if (id == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the model id to fill is NULL");
  if (!spec->soc.empty() && spec->soc != settings().soc) {
    return fail(ACL_ERROR_RT_SOC_VERSION, "the model was packed for " + spec->soc + ", this is a " + settings().soc);
  }
  auto model = std::make_shared<Model>();
  model->spec = std::move(spec);
  model->context = scope.context;
  model->device = scope.device_id;
  const std::size_t work = model->spec->work_bytes();
  const std::size_t weight = model->spec->graph.size();
  if (place.work != nullptr) {
    if (const aclError code = borrow(scope, place.work, place.work_size, work, "the work memory", model.get())) return code;
    model->work = model->borrowed.back();
  } else {
    model->charged += work;
  }
  if (place.weight != nullptr) {
    if (const aclError code = borrow(scope, place.weight, place.weight_size, weight, "the weight memory", model.get()))
      return code;
  } else {
    model->charged += weight;
  }
  std::string graph_bytes;
  if (const aclError code = whole_graph(scope, place, model.get(), &graph_bytes)) return code;
  if (!memory().charge(scope.device_id, model->charged)) {
    return fail(ACL_ERROR_GE_MEMORY_ALLOCATION, "device " + std::to_string(scope.device_id) + " has no room for the " +
                                                    std::to_string(model->charged) + " bytes of the model");
  }
  Result<std::shared_ptr<device::Model>> graph = load_graph(graph_bytes);
  if (!graph.ok() || !same_tensors(*model->spec, graph.value()->info())) {
    memory().uncharge(scope.device_id, model->charged);
    return fail(ACL_ERROR_GE_LOAD_MODEL,
                graph.ok() ? "the container's description is of another model than its graph" : graph.status().message());
  }
  model->graph = graph.take();
  const std::lock_guard<std::mutex> lock(objects().models_mutex);
  model->id = *id = ++objects().last_model_id;
  objects().models.emplace(model->id, model);
  return ACL_SUCCESS;
}

aclError load_file(const Scope& scope, const char* path, Placement place, std::uint32_t* id) {
  std::shared_ptr<const ModelSpec> spec;
  const aclError code = read_spec_file(path, &spec);
  if (code == ACL_SUCCESS) place.folder = folder_beside(path);
  return code == ACL_SUCCESS ? load(scope, std::move(spec), place, id) : code;
}

// Reads a model from memory: host memory, or device memory if both are the same.
aclError read_spec_memory(const void* data, std::size_t size, std::shared_ptr<const ModelSpec>* out) {
  if (data == nullptr || size == 0) return fail(ACL_ERROR_INVALID_PARAM, "the model's address is NULL or its size 0");
  Range range;
  if (const aclError code = memory().resolve(data, size, "the model's bytes", &range)) return code;
  if (range.on_device() && !settings().host_is_device) {
    return fail(ACL_ERROR_GE_EXEC_MODEL_ADDR_INVALID, "the model's bytes are in device memory; they are read from the host's");
  }
  return read_spec(range.bytes, size, "the model in memory", out);
}

aclError load_memory(const Scope& scope, const void* data, std::size_t size, const Placement& place, std::uint32_t* id) {
  std::shared_ptr<const ModelSpec> spec;
  const aclError code = read_spec_memory(data, size, &spec);
  return code == ACL_SUCCESS ? load(scope, std::move(spec), place, id) : code;
}

aclError load_configured(const Scope& scope, const aclmdlConfigHandle* handle, std::uint32_t* id) {
  const std::shared_ptr<LoadConfig> config = objects().load_configs.find(handle);
  if (config == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "not a living load config");
  const bool from_file = config->load_type == ACL_MDL_LOAD_FROM_FILE || config->load_type == ACL_MDL_LOAD_FROM_FILE_WITH_MEM;
  const bool from_memory = config->load_type == ACL_MDL_LOAD_FROM_MEM || config->load_type == ACL_MDL_LOAD_FROM_MEM_WITH_MEM;
  if (!from_file && !from_memory)
    return fail(ACL_ERROR_INVALID_PARAM, "ACL_MDL_LOAD_TYPE_SIZET was not set, or to a type that is not emulated");
  if (from_file && config->path.empty()) return fail(ACL_ERROR_INVALID_PARAM, "ACL_MDL_PATH_PTR was not set");
  if (from_memory && (config->model == nullptr || config->model_size == 0)) {
    return fail(ACL_ERROR_INVALID_PARAM, "ACL_MDL_MEM_ADDR_PTR or ACL_MDL_MEM_SIZET was not set");
  }
  if (!config->weight_path.empty() && config->load_type != ACL_MDL_LOAD_FROM_MEM) {
    return fail(ACL_ERROR_INVALID_PARAM, "ACL_MDL_WEIGHT_PATH_PTR is for ACL_MDL_LOAD_FROM_MEM only");
  }
  Placement place;
  if (config->load_type == ACL_MDL_LOAD_FROM_FILE_WITH_MEM || config->load_type == ACL_MDL_LOAD_FROM_MEM_WITH_MEM) {
    place = {config->work, config->work_size, config->weight, config->weight_size, "", {}};
  }
  place.folder = config->weight_path;
  place.external = config->external;
  return from_file ? load_file(scope, config->path.c_str(), place, id)
                   : load_memory(scope, config->model, config->model_size, place, id);
}

template <typename T>
aclError read_option(const void* value, std::size_t size, T* out) {
  if (size != sizeof(T)) {
    return fail(ACL_ERROR_INVALID_PARAM,
                "the option takes " + std::to_string(sizeof(T)) + " bytes, not " + std::to_string(size));
  }
  std::memcpy(out, value, sizeof(T));
  return ACL_SUCCESS;
}

aclError set_load_option(aclmdlConfigHandle* handle, aclmdlConfigAttr attr, const void* value, std::size_t size) {
  const std::shared_ptr<LoadConfig> config = objects().load_configs.find(handle);
  if (config == nullptr || value == nullptr)
    return fail(ACL_ERROR_INVALID_PARAM, "not a living load config, or the value is NULL");
  std::int32_t number = 0;
  std::size_t ignored = 0;
  const char* path = nullptr;
  switch (attr) {
    case ACL_MDL_PRIORITY_INT32:
      if (const aclError code = read_option(value, size, &number)) return code;
      return number >= 0 && number <= 7 ? ACL_SUCCESS : fail(ACL_ERROR_INVALID_PARAM, "the priority must be 0 to 7");
    case ACL_MDL_LOAD_TYPE_SIZET:
      return read_option(value, size, &config->load_type);
    case ACL_MDL_PATH_PTR:
      if (const aclError code = read_option(value, size, &path)) return code;
      if (path == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the path is NULL");
      config->path = path;
      return ACL_SUCCESS;
    case ACL_MDL_WEIGHT_PATH_PTR:
      if (const aclError code = read_option(value, size, &path)) return code;
      if (path == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the path is NULL");
      config->weight_path = path;
      return ACL_SUCCESS;
    case ACL_MDL_MEM_ADDR_PTR:
      return read_option(value, size, &config->model);
    case ACL_MDL_MEM_SIZET:
      return read_option(value, size, &config->model_size);
    case ACL_MDL_WEIGHT_ADDR_PTR:
      return read_option(value, size, &config->weight);
    case ACL_MDL_WEIGHT_SIZET:
      return read_option(value, size, &config->weight_size);
    case ACL_MDL_WORKSPACE_ADDR_PTR:
      return read_option(value, size, &config->work);
    case ACL_MDL_WORKSPACE_SIZET:
      return read_option(value, size, &config->work_size);
    case ACL_MDL_WORKSPACE_MEM_OPTIMIZE:
      return read_option(value, size, &ignored);
    case ACL_MDL_WITHOUT_GRAPH_INT32:
      return read_option(value, size, &number);
  }
  return fail(ACL_ERROR_INVALID_PARAM, "the option " + std::to_string(attr) + " does not exist or is not emulated");
}

aclError set_external(aclmdlConfigHandle* handle, const char* name, void* address, std::size_t size) {
  const std::shared_ptr<LoadConfig> config = objects().load_configs.find(handle);
  if (config == nullptr || name == nullptr || address == nullptr)
    return fail(ACL_ERROR_INVALID_PARAM, "not a living load config, or the file's name or the address is NULL");
  if (size == 0 || size % 32 != 0) return fail(ACL_ERROR_INVALID_PARAM, "the size must be a multiple of 32 bytes");
  config->external[name] = {address, size};
  return ACL_SUCCESS;
}

aclError unload(const Scope& scope, std::uint32_t id) {
  const std::shared_ptr<Model> model = objects().model(id);
  if (model == nullptr)
    return fail(ACL_ERROR_GE_EXEC_MODEL_ID_INVALID, "unknown model " + std::to_string(id) + " (unloaded before?)");
  if (model->context.lock() != scope.context) {
    return fail(ACL_ERROR_RT_MODEL_CONTEXT,
                "model " + std::to_string(id) + " was loaded in another context than " + handle_name(scope.context->handle));
  }
  {
    const std::lock_guard<std::mutex> lock(model->mutex);
    if (model->in_flight > 0) violation("model#" + std::to_string(id) + " was unloaded while it runs");
  }
  unload_model(model);
  return ACL_SUCCESS;
}

aclError give_sizes(const std::shared_ptr<const ModelSpec>& spec, std::size_t* workSize, std::size_t* weightSize) {
  if (workSize == nullptr || weightSize == nullptr) return fail(ACL_ERROR_INVALID_PARAM, "the place to fill is NULL");
  *workSize = spec->work_bytes();
  *weightSize = spec->graph.size();
  return ACL_SUCCESS;
}

}  // namespace
}  // namespace ais::emulator

using namespace ais::emulator;

ACL_API aclError aclmdlLoadFromFile(const char* modelPath, std::uint32_t* modelId) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return load_file(scope, modelPath, {}, modelId); }, modelPath, filled(modelId));
}

ACL_API aclError aclmdlLoadFromMem(const void* model, std::size_t modelSize, std::uint32_t* modelId) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return load_memory(scope, model, modelSize, {}, modelId); }, model, modelSize,
                 filled(modelId));
}

ACL_API aclError aclmdlLoadFromFileWithMem(const char* modelPath, std::uint32_t* modelId, void* workPtr, std::size_t workSize,
                                           void* weightPtr, std::size_t weightSize) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        return load_file(scope, modelPath, {workPtr, workSize, weightPtr, weightSize, "", {}}, modelId);
      },
      modelPath, filled(modelId), workPtr, workSize, weightPtr, weightSize);
}

ACL_API aclError aclmdlLoadFromMemWithMem(const void* model, std::size_t modelSize, std::uint32_t* modelId, void* workPtr,
                                          std::size_t workSize, void* weightPtr, std::size_t weightSize) {
  static Function fn(__func__, Need::kContext);
  return fn.call(
      [&](const Scope& scope) {
        return load_memory(scope, model, modelSize, {workPtr, workSize, weightPtr, weightSize, "", {}}, modelId);
      },
      model, modelSize, filled(modelId), workPtr, workSize, weightPtr, weightSize);
}

ACL_API aclmdlConfigHandle* aclmdlCreateConfigHandle() {
  static Function fn(__func__, Need::kNothing);
  return fn.call_or(static_cast<aclmdlConfigHandle*>(nullptr), [&](const Scope&) {
    return static_cast<aclmdlConfigHandle*>(objects().load_configs.add(std::make_shared<LoadConfig>()));
  });
}

ACL_API aclError aclmdlDestroyConfigHandle(aclmdlConfigHandle* handle) {
  static Function fn(__func__, Need::kNothing);
  return fn.call(
      [&](const Scope&) {
        return objects().load_configs.take(handle) != nullptr ? aclError{ACL_SUCCESS}
                                                              : fail(ACL_ERROR_INVALID_PARAM, "not a living load config");
      },
      handle);
}

ACL_API aclError aclmdlSetConfigOpt(aclmdlConfigHandle* handle, aclmdlConfigAttr attr, const void* attrValue,
                                    std::size_t valueSize) {
  static Function fn(__func__, Need::kNothing);
  return fn.call([&](const Scope&) { return set_load_option(handle, attr, attrValue, valueSize); }, handle, attr, attrValue,
                 valueSize);
}

ACL_API aclError aclmdlSetExternalWeightAddress(aclmdlConfigHandle* handle, const char* weightFileName, void* devPtr,
                                                std::size_t size) {
  static Function fn(__func__, Need::kNothing);
  return fn.call([&](const Scope&) { return set_external(handle, weightFileName, devPtr, size); }, handle, weightFileName,
                 devPtr, size);
}

ACL_API aclError aclmdlLoadWithConfig(const aclmdlConfigHandle* handle, std::uint32_t* modelId) {
  static Function fn(__func__, Need::kContext);
  return fn.call([&](const Scope& scope) { return load_configured(scope, handle, modelId); }, handle, filled(modelId));
}

ACL_API aclError aclmdlUnload(std::uint32_t modelId) {
  static Function fn(__func__, Need::kRelease);
  return fn.call([&](const Scope& scope) { return unload(scope, modelId); }, modelId);
}

ACL_API aclError aclmdlQuerySize(const char* fileName, std::size_t* workSize, std::size_t* weightSize) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) {
        std::shared_ptr<const ModelSpec> spec;
        const aclError code = read_spec_file(fileName, &spec);
        return code == ACL_SUCCESS ? give_sizes(spec, workSize, weightSize) : code;
      },
      fileName, filled(workSize), filled(weightSize));
}

ACL_API aclError aclmdlQuerySizeFromMem(const void* model, std::size_t modelSize, std::size_t* workSize,
                                        std::size_t* weightSize) {
  static Function fn(__func__, Need::kInit);
  return fn.call(
      [&](const Scope&) {
        std::shared_ptr<const ModelSpec> spec;
        const aclError code = read_spec_memory(model, modelSize, &spec);
        return code == ACL_SUCCESS ? give_sizes(spec, workSize, weightSize) : code;
      },
      model, modelSize, filled(workSize), filled(weightSize));
}
