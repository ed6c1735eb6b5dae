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

#ifdef AIS_NON_TEMPORAL
namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kPage = 4096;

void stream_line(std::uint8_t* to, const std::uint8_t* from) {
  for (std::size_t part = 0; part < kLine; part += sizeof(__m128i)) {
    const __m128i value = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + part));
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + part), value);
  }
}

// Takes a line of each of several pages in turn: processors fetch ahead within a page, so they then fetch from all these pages.
void stream_pages(std::uint8_t* to, const std::uint8_t* from) {
  for (std::size_t line = 0; line < kPage; line += kLine) {
    for (std::size_t page = 0; page < tuning::kPagesAtOnce; ++page) {
      stream_line(to + page * kPage + line, from + page * kPage + line);
    }
  }
}

void stream(std::uint8_t* to, const std::uint8_t* from, std::size_t bytes) {
  constexpr std::size_t kBlock = tuning::kPagesAtOnce * kPage;
  std::size_t at = 0;
  if (bytes >= tuning::kPastCacheBytes) {
    for (; bytes - at >= kBlock; at += kBlock) stream_pages(to + at, from + at);
  }
  for (; bytes - at >= kLine; at += kLine) stream_line(to + at, from + at);
  std::memcpy(to + at, from + at, bytes - at);
  _mm_sfence();
}

}  // namespace
#endif

void copy_across(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
#ifdef AIS_NON_TEMPORAL
  const std::size_t least = plain_copies() ? tuning::kPastCacheBytes : tuning::kNonTemporalBytes;
  if (bytes >= least && reinterpret_cast<std::uintptr_t>(to) % kLine == 0) {
    return stream(static_cast<std::uint8_t*>(to), static_cast<const std::uint8_t*>(from), bytes);
  }
#endif
  std::memcpy(to, from, bytes);
}

}  // namespace ais::shm
