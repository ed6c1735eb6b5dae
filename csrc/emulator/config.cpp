// Checks the sections of the configuration.
#include "emulator/config.hpp"

#include <sys/stat.h>

#include <fstream>
#include <iterator>
#include <set>

#include "emulator/error.hpp"
#include "emulator/json.hpp"

namespace ais::emulator {
namespace {

using Words = std::set<std::string>;

// The error in a section; "" if there is none.
using Complaint = std::string;

bool is_folder(const std::string& path) {
  struct stat info = {};
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

Complaint one_of(const Json& section, const std::string& key, const Words& allowed) {
  const Json* value = section.find(key);
  if (value == nullptr || allowed.count(value->text) != 0) return "";
  std::string words;
  for (const std::string& word : allowed) words += (words.empty() ? "" : ", ") + word;
  return key + " must be one of: " + words;
}

Complaint check_layers(const Json& dump) {
  const Json* list = dump.find("dump_list");
  if (list == nullptr) return "";
  if (!list->is(Json::Type::kArray)) return "dump_list must be an array";
  for (const Json& item : list->items) {
    if (!item.is(Json::Type::kObject)) return "dump_list must hold objects";
    if (const Json* name = item.find("model_name"); name != nullptr && !name->is(Json::Type::kString))
      return "model_name must be a string";
    if (const Json* layer = item.find("layer"); layer != nullptr && !layer->is(Json::Type::kArray))
      return "layer must be an array";
  }
  return "";
}

Complaint check_dump(const Json& dump) {
  static const Words kScenes = {"aic_err_brief_dump", "lite_exception", "aic_err_norm_dump", "aic_err_detail_dump", "watcher"};
  if (!dump.is(Json::Type::kObject)) return "it must be an object";
  for (const auto& rule : {std::pair<const char*, Words>{"dump_mode", {"input", "output", "all"}},
                           {"dump_data", {"tensor", "stats"}},
                           {"dump_level", {"op", "kernel", "all"}},
                           {"dump_op_switch", {"on", "off"}},
                           {"dump_debug", {"on", "off"}},
                           {"dump_scene", kScenes}}) {
    if (Complaint complaint = one_of(dump, rule.first, rule.second); !complaint.empty()) return complaint;
  }
  const std::string& scene = dump.at("dump_scene").text;
  const bool debug = dump.at("dump_debug").text == "on";
  if (!scene.empty() && debug) return "dump_scene and dump_debug exclude each other";
  if (!scene.empty() && dump.at("dump_op_switch").text == "on") return "dump_scene and dump_op_switch exclude each other";
  if (dump.find("dump_kernel_data") != nullptr && dump.members.size() <= 2) return "";
  if (scene.empty() || scene == "watcher") {
    const std::string& path = dump.at("dump_path").text;
    if (path.empty()) return "dump_path is missing";
    if (!is_folder(path)) return "dump_path '" + path + "' is not an existing folder";
    if (!debug && dump.find("dump_list") == nullptr && dump.at("dump_op_switch").text != "on") return "dump_list is missing";
  }
  return check_layers(dump);
}

Complaint check_profiler(const Json& profiler) {
  static const Words kTexts = {"switch",
                               "output",
                               "aic_metrics",
                               "aicpu",
                               "l2",
                               "storage_limit",
                               "hccl",
                               "msproftx",
                               "task_tsfw",
                               "instr_profiling",
                               "ascendcl",
                               "task_time",
                               "runtime_api",
                               "ge_api",
                               "task_memory",
                               "sys_mem_serviceflow",
                               "llc_profiling",
                               "host_sys",
                               "host_sys_usage",
                               "optype"};
  static const Words kFrequencies = {"instr_profiling_freq", "sys_hardware_mem_freq",
                                     "sys_io_sampling_freq", "sys_interconnection_freq",
                                     "sys_cpu_freq",         "dvpp_freq",
                                     "host_sys_usage_freq",  "sys_lp_freq"};
  if (!profiler.is(Json::Type::kObject)) return "it must be an object";
  if (profiler.at("switch").text != "on") return "";  // the section is ignored
  for (const auto& member : profiler.members) {
    const bool text = kTexts.count(member.first) != 0;
    if (!text && kFrequencies.count(member.first) == 0) return "unknown key '" + member.first + "'";
    if (text && !member.second.is(Json::Type::kString)) return member.first + " must be a string";
    if (!text && !member.second.is(Json::Type::kNumber)) return member.first + " must be a number (Hz)";
  }
  if (const Json* output = profiler.find("output"); output != nullptr && !output->text.empty() && !is_folder(output->text)) {
    return "output '" + output->text + "' is not an existing folder";
  }
  return one_of(
      profiler, "aic_metrics",
      {"", "ArithmeticUtilization", "PipeUtilization", "Memory", "MemoryL0", "MemoryUB", "L2Cache", "ResourceConflictRatio"});
}

aclError read_json(const char* path, std::string* text, Json* out) {
  std::ifstream file(path, std::ios::binary);
  if (!file || is_folder(path))
    return fail(ACL_ERROR_INVALID_FILE, "the configuration '" + std::string(path) + "' cannot be read");
  text->assign(std::istreambuf_iterator<char>(file), {});
  // The real parser takes a byte order mark, which editors on Windows write.
  const std::size_t mark = text->rfind("\xEF\xBB\xBF", 0) == 0 ? 3 : 0;
  Result<Json> parsed = parse_json(std::string_view(*text).substr(mark), 10);
  if (!parsed.ok()) return fail(ACL_ERROR_PARSE_FILE, std::string(path) + ": " + parsed.status().message());
  *out = parsed.take();
  return out->is(Json::Type::kObject) ? ACL_SUCCESS : fail(ACL_ERROR_PARSE_FILE, std::string(path) + ": not a JSON object");
}

}  // namespace

aclError read_init_config(const char* path, InitConfig* out) {
  if (path == nullptr || *path == '\0') return ACL_SUCCESS;
  Json json;
  if (const aclError code = read_json(path, &out->text, &json)) return code;
  if (const Json* dump = json.find("dump")) {
    const Complaint complaint = check_dump(*dump);
    if (!complaint.empty()) return fail(ACL_ERROR_INVALID_DUMP_CONFIG, std::string(path) + ": dump: " + complaint);
    out->dumping = true;
  }
  if (const Json* profiler = json.find("profiler")) {
    const Complaint complaint = check_profiler(*profiler);
    if (!complaint.empty()) return fail(ACL_ERROR_INVALID_PROFILING_CONFIG, std::string(path) + ": profiler: " + complaint);
    out->profiling = profiler->at("switch").text == "on";
  }
  if (const Complaint complaint = one_of(json, "err_msg_mode", {"0", "1"}); !complaint.empty()) {
    return fail(ACL_ERROR_INVALID_PARAM, std::string(path) + ": " + complaint);
  }
  out->share_errors = json.at("err_msg_mode").text == "1";
  return ACL_SUCCESS;
}

aclError check_dump_file(const char* path) {
  std::string text;
  Json json;
  if (const aclError code = read_json(path, &text, &json)) return code;
  const Complaint complaint = check_dump(json.at("dump"));
  return complaint.empty() ? ACL_SUCCESS : fail(ACL_ERROR_INVALID_DUMP_CONFIG, std::string(path) + ": dump: " + complaint);
}

}  // namespace ais::emulator
