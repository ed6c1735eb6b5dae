// Several runs of a model under way at once, each in a thread of its own.
//
// A provider copies inputs in and results out as a part of a run, on streams of that run where it has several. So while one run
// executes, the copies of others can go on. Providers that take one run at a time lose nothing. The times are the host's: a run
// is timed as a whole, and may have waited for others.
#pragma once

#include <memory>

#include "device/device.hpp"

namespace ais::ort {

Result<std::unique_ptr<device::Pipeline>> make_pipeline(std::shared_ptr<device::Model> model,
                                                        std::shared_ptr<device::Device> device, std::size_t depth);

}  // namespace ais::ort
