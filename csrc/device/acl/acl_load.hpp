// Loads a model into a context: from its file or from memory, with weights in separate files.
//
// With --external_weight ATC writes the weights into files in a folder `weight` beside the model, and their names into the
// model. If a model is loaded from a file, AscendCL finds them there; from memory it does not. In both cases each load has its
// own copy. So if the library accepts the memory of weights, they are loaded here, once for all sessions of the process on a
// device.
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
  bool share_workspace = false;  // shares a workspace with models that never run at the same time
};

struct Loaded {
  std::uint32_t id = 0;
  // Must be kept until the model is unloaded.
  std::vector<device::Buffer> weights;
  std::shared_ptr<Workspace> workspace;  // null: the model has its own
};

// Call it during a use of the context. Unsupported: a bundle of several models.
Result<Loaded> load_model(const AclApi& api, const device::ModelSource& source, const LoadOptions& options, DeviceShare* share);

}  // namespace ais::acl
