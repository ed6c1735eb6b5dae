// Lists and empties the tables of objects.
#include "emulator/objects.hpp"

#include "emulator/memory.hpp"
#include "emulator/stream.hpp"

namespace ais::emulator {
namespace {

std::string model_name(const Model& model) { return "model#" + std::to_string(model.id) + " (" + model.spec->name + ")"; }

template <typename Table>
void collect(Table* table, bool take, std::vector<std::string>* names) {
  for (const auto& entry : table->all()) {
    names->push_back(handle_name(entry.first));
    if (take) table->take(entry.first);
  }
}

std::vector<std::string> without_context(bool take) {
  Objects& all = objects();
  std::vector<std::string> names;
  collect(&all.datasets, take, &names);
  collect(&all.buffers, take, &names);
  collect(&all.model_descs, take, &names);
  for (const auto& entry : all.tensor_descs.all()) {
    if (!entry.second->in_dataset) names.push_back(handle_name(entry.first));
    if (take) all.tensor_descs.take(entry.first);
  }
  collect(&all.aipp, take, &names);
  collect(&all.load_configs, take, &names);
  collect(&all.exec_configs, take, &names);
  collect(&all.prof_configs, take, &names);
  collect(&all.prof_stamps, take, &names);
  return names;
}

std::vector<std::shared_ptr<Model>> all_models() {
  const std::lock_guard<std::mutex> lock(objects().models_mutex);
  std::vector<std::shared_ptr<Model>> found;
  for (const auto& entry : objects().models) found.push_back(entry.second);
  return found;
}

}  // namespace

Objects& objects() {
  static auto* const instance = new Objects;
  return *instance;
}

std::shared_ptr<Model> Objects::model(std::uint32_t id) {
  const std::lock_guard<std::mutex> lock(models_mutex);
  const auto found = models.find(id);
  return found == models.end() ? nullptr : found->second;
}

void unload_model(const std::shared_ptr<Model>& model) {
  {
    const std::lock_guard<std::mutex> lock(objects().models_mutex);
    if (objects().models.erase(model->id) == 0) return;
  }
  memory().uncharge(model->device, model->charged);
}

void replace_desc(Dataset* dataset, std::size_t index, std::shared_ptr<TensorDesc> desc) {
  if (dataset->descs[index] != nullptr) objects().tensor_descs.take(dataset->descs[index]);
  dataset->descs[index] = nullptr;
  if (desc == nullptr) return;
  desc->in_dataset = true;
  desc->array.clear();
  dataset->descs[index] = static_cast<aclTensorDesc*>(objects().tensor_descs.add(std::move(desc)));
}

std::vector<std::string> release_objects_of(const std::shared_ptr<Context>& context) {
  std::vector<std::string> names;
  for (const auto& entry : streams().all()) {
    if (entry.second->context() != context) continue;
    names.push_back(handle_name(entry.first));
    entry.second->stop(false);
    streams().take(entry.first);
  }
  for (const auto& entry : events().all()) {
    if (entry.second->context.lock() != context) continue;
    names.push_back(handle_name(entry.first));
    events().take(entry.first);
  }
  for (const auto& model : all_models()) {
    if (model->context.lock() != context) continue;
    names.push_back(model_name(*model));
    unload_model(model);
  }
  return names;
}

std::vector<std::string> release_objects() { return without_context(true); }

std::vector<std::string> living_objects() {
  std::vector<std::string> names = without_context(false);
  collect(&streams(), false, &names);
  collect(&events(), false, &names);
  for (const auto& model : all_models()) names.push_back(model_name(*model));
  return names;
}

std::shared_ptr<const ModelSpec> spec_of(const aclmdlDesc* handle) {
  const std::shared_ptr<ModelDesc> desc = objects().model_descs.find(handle);
  if (desc == nullptr) {
    fail(ACL_ERROR_INVALID_PARAM, handle == nullptr ? "the model desc is NULL" : "not a living model desc (destroyed before?)");
    return nullptr;
  }
  if (desc->spec == nullptr) fail(ACL_ERROR_INVALID_PARAM, "the model desc describes nothing yet (aclmdlGetDesc)");
  return desc->spec;
}

}  // namespace ais::emulator
