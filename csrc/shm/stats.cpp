// Histograms of times: buckets, merging, quantiles.
#include "shm/stats.hpp"

#include <algorithm>
#include <cmath>

#include "shm/layout.hpp"

namespace ais::shm {
namespace {

void join(Occupied* sum, const Occupied& other) {
  sum->queued += other.queued;
  sum->copy_in += other.copy_in;
  sum->callables += other.callables;
  sum->execute += other.execute;
  sum->copy_out += other.copy_out;
}

}  // namespace

// Each value below 32 has its own bucket. For other values the highest bit selects the row, the next five bits the column.
int Histogram::bucket_of(std::uint64_t ns) {
  if (ns < (1u << kSubBits)) return static_cast<int>(ns);
  const int shift = 63 - __builtin_clzll(ns) - kSubBits;
  return ((shift + 1) << kSubBits) + static_cast<int>((ns >> shift) & ((1u << kSubBits) - 1));
}

double Histogram::middle_of(int bucket) {
  if (bucket < (1 << kSubBits)) return bucket;
  const int shift = (bucket >> kSubBits) - 1;
  const double low = std::ldexp((1 << kSubBits) + (bucket & ((1 << kSubBits) - 1)), shift);
  return low + std::ldexp(0.5, shift);
}

void Histogram::record(std::int64_t ns) {
  ns = std::max<std::int64_t>(ns, 0);
  ++count_;
  sum_ += ns;
  max_ = std::max(max_, ns);
  ++buckets_[static_cast<std::size_t>(std::min(bucket_of(static_cast<std::uint64_t>(ns)), kBuckets - 1))];
}

void Histogram::add(const Histogram& other) {
  count_ += other.count_;
  sum_ += other.sum_;
  max_ = std::max(max_, other.max_);
  for (std::size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
}

double Histogram::quantile(double q) const {
  if (count_ == 0) return 0;
  const auto wanted = static_cast<std::uint64_t>(std::ceil(q * static_cast<double>(count_)));
  std::uint64_t seen = 0;
  for (int i = 0; i < kBuckets; ++i) {
    seen += buckets_[static_cast<std::size_t>(i)];
    if (seen >= std::max<std::uint64_t>(wanted, 1)) return std::min(middle_of(i), static_cast<double>(max_));
  }
  return static_cast<double>(max_);
}

void Stats::record(const TaskTimes& times, bool failed) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++sum_.tasks;
  sum_.failures += failed ? 1 : 0;
  sum_.busy_ns += std::max<std::int64_t>(times.busy, 0);
  sum_.stages[kQueued].record(times.queued);
  if ((times.unknown & kCopyInUnknown) == 0) sum_.stages[kCopyIn].record(times.copy_in);
  if ((times.unknown & kExecuteUnknown) == 0) sum_.stages[kExecute].record(times.execute);
  if ((times.unknown & kCopyOutUnknown) == 0) sum_.stages[kCopyOut].record(times.copy_out);
  sum_.stages[kEndToEnd].record(times.end_to_end);
  sum_.stages[kPreprocess].record(times.preprocess);
  sum_.stages[kPostprocess].record(times.postprocess);
}

void Stats::add_busy(std::int64_t ns) {
  const std::lock_guard<std::mutex> lock(mutex_);
  sum_.busy_ns += std::max<std::int64_t>(ns, 0);
}

void Stats::occupy(const Occupied& occupied, std::int64_t before_ns) {
  const std::lock_guard<std::mutex> lock(mutex_);
  sum_.before_ns += before_ns;
  join(&sum_.occupied, occupied);
}

void Stats::add(const Snapshot& other) {
  const std::lock_guard<std::mutex> lock(mutex_);
  sum_.before_ns += other.before_ns;
  join(&sum_.occupied, other.occupied);
  sum_.tasks += other.tasks;
  sum_.failures += other.failures;
  sum_.busy_ns += other.busy_ns;
  for (std::size_t i = 0; i < kStages; ++i) sum_.stages[i].add(other.stages[i]);
}

void Stats::reset() {
  const std::lock_guard<std::mutex> lock(mutex_);
  sum_ = Snapshot();
}

Stats::Snapshot Stats::snapshot() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return sum_;
}

}  // namespace ais::shm
