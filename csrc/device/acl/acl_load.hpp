// Getting a model into a context: from its file or from memory, with weights that it keeps in files of their own.
//
// A compiler that is asked to (ATC with --external_weight) writes the weights into files of a folder `weight` beside the model,
// and their names into the model. From a file AscendCL finds them there by itself; from memory it cannot, and either way each
// load has a copy of its own. So where the library can be told where the weights are, they are loaded here, once for all
// sessions of the process on a device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "device/acl/acl_context.hpp"
#include "device/acl/acl_share.hpp"
#include "device/device.hpp"

namespace ais::acl {

struct LoadOptions {
  std::string weight_dir;        // "": the folder `weight` beside the model's file
  bool share_workspace = false;  // works in memory of other models, which never run at the same time
};

struct Loaded {
  std::uint32_t id = 0;
  // To be kept until the model was unloaded.
  std::vector<device::Buffer> weights;
  std::shared_ptr<Workspace> workspace;  // null: it has one of its own
};

// Called inside the context. Unsupported names a model that holds several.
Result<Loaded> load_model(const Api& api, const device::ModelSource& source, const LoadOptions& options, DeviceShare* share);

}  // namespace ais::acl
