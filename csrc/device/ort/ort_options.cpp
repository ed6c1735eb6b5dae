// The table of options. For an unknown option the error lists the known ones.
#include "device/ort/ort_options.hpp"

#include <cerrno>
#include <cstdlib>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

#include "base/dylib.hpp"
#include "base/process.hpp"
#include "base/words.hpp"
#include "device/ort/ort_provider.hpp"
#include "device/runtimes.hpp"

namespace ais::ort {
namespace {

// ONNX Runtime's session configuration entries that are useful for a session; they are passed unchanged.
const std::set<std::string> kConfigEntries = {
    "session.disable_prepacking",
    "session.dynamic_block_base",
    "session.force_spinning_stop",
    "session.inter_op.allow_spinning",
    "session.intra_op.allow_spinning",
    "session.intra_op_thread_affinities",
    "session.set_denormal_as_zero",
    "session.use_device_allocator_for_initializers",
    "session.use_env_allocators",
    "optimization.minimal_build_optimizations",
    "mlas.enable_gemm_fastmath_arm64_bfloat16",
};
const std::set<std::string> kOwnOptions = {"custom_ops",
                                           "devices",
                                           "enable_cpu_mem_arena",
                                           "enable_mem_pattern",
                                           "execution_mode",
                                           "graph_optimization_level",
                                           "inter_op_num_threads",
                                           "profile",
                                           "threads",
                                           "weight_dir"};
const std::set<std::string> kInternalOptions = {kPrepare, kPrepared, kProvider, kProviderLibrary, kFallback};

Status invalid(const std::string& name, const std::string& value, const std::string& wanted) {
  return Status(Code::kInvalidArgument, name + " must be " + wanted + ", got '" + value + "'");
}

Result<int> one_of(const device::Options& options, const std::string& name, const std::string& fallback,
                   const std::map<std::string, int>& choices) {
  const auto given = options.find(name);
  const std::string value = given == options.end() ? fallback : given->second;
  const auto choice = choices.find(value);
  if (choice != choices.end()) return choice->second;
  std::vector<std::string> names;
  for (const auto& entry : choices) names.push_back(entry.first);
  return invalid(name, value, "one of " + quoted_list(names));
}

Status check_names(const device::Options& options) {
  for (const auto& option : options) {
    if (kOwnOptions.count(option.first) != 0 || kConfigEntries.count(option.first) != 0) continue;
    if (kInternalOptions.count(option.first) != 0 || option.first.rfind(kProviderPrefix, 0) == 0) continue;
    std::vector<std::string> names;
    for (const auto* set : {&kOwnOptions, &kConfigEntries}) names.insert(names.end(), set->begin(), set->end());
    const std::string near = nearest(option.first, names);
    return Status(Code::kInvalidArgument, "unknown option '" + option.first + "' for an ONNX model on a CPU device" +
                                              (near.empty() ? "; use " + quoted_list(names) : near));
  }
  return Status();
}

// Registers libraries of operators, with one path in each line. Each exports ONNX Runtime's RegisterCustomOps; they stay
// loaded.
Status register_custom_ops(const OrtApi& api, const std::string& lines, OrtSessionOptions* out) {
  using Register = OrtStatus* (*)(OrtSessionOptions*, const void*);
  std::istringstream paths(lines);
  for (std::string path; std::getline(paths, path);) {
    Result<Dylib> library = Dylib::open_first("the library of custom operators", {path}, [](const Dylib& opened) {
      return opened.symbol("RegisterCustomOps") == nullptr ? "it exports no RegisterCustomOps" : "";
    });
    if (!library.ok()) return Status(Code::kInvalidArgument, library.status().message());
    const auto entry = reinterpret_cast<Register>(library.value().symbol("RegisterCustomOps"));
    Status status = api.check(entry(out, api.base), Code::kInvalidArgument);
    if (!status.ok()) return std::move(status).with_context("custom operators of '" + path + "'");
  }
  return Status();
}

bool has(const device::Options& options, const std::string& name) { return options.count(name) != 0; }

// Saves the weights in the layout of this machine's kernels, so that a later load can map them.
Status save_prepared(const OrtApi& api, const std::string& path, OrtSessionOptions* out) {
  const Code bad = Code::kInvalidArgument;
  AIS_TRY(api.check(api.SetOptimizedModelFilePath(out, path.c_str()), bad));
  for (const auto& [entry, value] : {std::pair{"session.optimized_model_external_initializers_file_name", "weights"},
                                     std::pair{"session.optimized_model_external_initializers_min_size_in_bytes", "1024"},
                                     std::pair{"session.save_external_prepacked_constant_initializers", "1"}}) {
    AIS_TRY(api.check(api.AddSessionConfigEntry(out, entry, value), bad));
  }
  return Status();
}

// When such a model is loaded, kernels still pack each weight, and then use the file's data. Outside of the arena this memory
// returns to the system.
Status load_prepared(const OrtApi& api, const device::Options& options, OrtSessionOptions* out) {
  const char* const entry = "session.use_device_allocator_for_initializers";
  if (has(options, entry)) return Status();
  return api.check(api.AddSessionConfigEntry(out, entry, "1"), Code::kInvalidArgument);
}

Status fill(const OrtApi& api, const device::Options& options, OrtSessionOptions* out) {
  AIS_ASSIGN(const int threads, option_int(options, "threads", usable_cpu_count(), 1, 1024));
  AIS_ASSIGN(const int inter_threads, option_int(options, "inter_op_num_threads", 1, 1, 1024));
  AIS_ASSIGN(const int level, one_of(options, "graph_optimization_level", "all",
                                     {{"disable", 0}, {"basic", 1}, {"extended", 2}, {"layout", 3}, {"all", 99}}));
  AIS_ASSIGN(const int mode, one_of(options, "execution_mode", "sequential", {{"sequential", 0}, {"parallel", 1}}));
  AIS_ASSIGN(const int arena, one_of(options, "enable_cpu_mem_arena", "1", {{"0", 0}, {"1", 1}}));
  AIS_ASSIGN(const int pattern, one_of(options, "enable_mem_pattern", "1", {{"0", 0}, {"1", 1}}));
  const Code bad = Code::kInvalidArgument;
  AIS_TRY(api.check(api.SetIntraOpNumThreads(out, threads), bad));
  AIS_TRY(api.check(api.SetInterOpNumThreads(out, inter_threads), bad));
  const bool prepared = has(options, kPrepared);
  AIS_TRY(api.check(api.SetSessionGraphOptimizationLevel(out, prepared ? 0 : level), bad));  // once is enough
  AIS_TRY(api.check(api.SetSessionExecutionMode(out, mode), bad));
  AIS_TRY(api.check(api.SetSessionLogSeverityLevel(out, kLogFatal), bad));
  AIS_TRY(api.check(arena != 0 ? api.EnableCpuMemArena(out) : api.DisableCpuMemArena(out), bad));
  AIS_TRY(api.check(pattern != 0 ? api.EnableMemPattern(out) : api.DisableMemPattern(out), bad));
  if (const auto profile = options.find("profile"); profile != options.end()) {
    AIS_TRY(api.check(api.EnableProfiling(out, profile->second.c_str()), bad));
  }
  if (const auto libraries = options.find("custom_ops"); libraries != options.end()) {
    AIS_TRY(register_custom_ops(api, libraries->second, out));
  }
  for (const auto& option : options) {
    const bool folder = option.first == "weight_dir" && !prepared;
    if (!folder && kConfigEntries.count(option.first) == 0) continue;
    const char* entry = folder ? "session.model_external_initializers_file_folder_path" : option.first.c_str();
    AIS_TRY(api.check(api.AddSessionConfigEntry(out, entry, option.second.c_str()), bad));
  }
  if (prepared) return load_prepared(api, options, out);
  if (const auto path = options.find(kPrepare); path != options.end()) return save_prepared(api, path->second, out);
  return Status();
}

}  // namespace

Result<int> option_int(const device::Options& options, const std::string& name, int fallback, int low, int high) {
  const auto given = options.find(name);
  if (given == options.end()) return fallback;
  errno = 0;
  char* end = nullptr;
  const long value = std::strtol(given->second.c_str(), &end, 10);
  if (errno != 0 || end == given->second.c_str() || *end != '\0' || value < low || value > high) {
    return invalid(name, given->second, "an integer from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return static_cast<int>(value);
}

Result<OrtSessionOptions*> make_session_options(const OrtApi& api, const device::Options& options, int id) {
  AIS_TRY(check_names(options));
  OrtSessionOptions* out = nullptr;
  AIS_TRY(api.check(api.CreateSessionOptions(&out), Code::kSystem));
  Status status = fill(api, options, out);
  if (status.ok()) status = append_provider(api, options, id, out);
  if (!status.ok()) {
    api.ReleaseSessionOptions(out);
    return status;
  }
  return out;
}

}  // namespace ais::ort

namespace ais::device {

// For configuration entries the part before the first dot decides, so that entries without a use are refused as such.
bool is_ort_option(const std::string& name) {
  if (ort::kOwnOptions.count(name) != 0) return true;
  const std::string group = name.substr(0, name.find('.') + 1);
  if (group.empty()) return false;
  const auto first = ort::kConfigEntries.lower_bound(group);
  return first != ort::kConfigEntries.end() && first->compare(0, group.size(), group) == 0;
}

}  // namespace ais::device
