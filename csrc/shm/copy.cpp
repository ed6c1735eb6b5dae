// Uses non-temporal stores if the processor has them; memcpy otherwise, and for small or unaligned data.
#include "shm/copy.hpp"

#include <atomic>
#include <cstdint>
#include <cstring>

#include "base/process.hpp"

// ThreadSanitizer does not see these stores, so it gets memcpy.
#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__)
#include <emmintrin.h>

#include "base/tuning.hpp"
#define AIS_NON_TEMPORAL 1
#endif

namespace ais::shm {
namespace {

std::atomic<bool>& plain() {
  static std::atomic<bool> chosen{share_a_cache(allowed_cpus())};
  return chosen;
}

}  // namespace

// Relaxed: any choice is correct.
bool plain_copies() { return plain().load(std::memory_order_relaxed); }
void set_plain_copies(bool chosen) { plain().store(chosen, std::memory_order_relaxed); }

void copy_across(void* to, const void* from, std::size_t bytes) {
#ifdef AIS_NON_TEMPORAL
  constexpr std::size_t kLine = 64;
  if (bytes >= tuning::kNonTemporalBytes && !plain_copies() && reinterpret_cast<std::uintptr_t>(to) % kLine == 0) {
    auto* target = static_cast<std::uint8_t*>(to);
    const auto* source = static_cast<const std::uint8_t*>(from);
    const std::size_t whole = bytes / kLine * kLine;
    for (std::size_t at = 0; at < whole; at += kLine) {
      for (std::size_t part = 0; part < kLine; part += sizeof(__m128i)) {
        const __m128i value = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + at + part));
        _mm_stream_si128(reinterpret_cast<__m128i*>(target + at + part), value);
      }
    }
    std::memcpy(target + whole, source + whole, bytes - whole);
    _mm_sfence();
    return;
  }
#endif
  if (bytes != 0) std::memcpy(to, from, bytes);
}

}  // namespace ais::shm
