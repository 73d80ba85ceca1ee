// zerocopy/detail/diagnosis.hpp: what a hop's outcome does not say: whether the source became shorter, which end an errno came
// from, how many bytes there are to move. Asked when something went wrong or somebody wants to know, never per hop.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/job.hpp>  // Job

#include <algorithm>  // std::min
#include <cstddef>    // std::byte
#include <optional>   // a total that may not be known

namespace zerocopy::inline ZEROCOPY_ABI::detail {

class Diagnosis {
 public:
  explicit Diagnosis(Job& job) noexcept : job_(job) {}

  // Of the next byte, or a negated errno.
  [[nodiscard]] sys::Count source_offset() const noexcept {
    return job_.from.positioned ? static_cast<sys::Count>(job_.from.offset) : sys::seek(job_.from.fd, 0, SEEK_CUR);
  }
  // The bytes that there are to move, where that is known.
  [[nodiscard]] std::optional<std::uint64_t> total() noexcept {
    const std::uint64_t limit = std::min({job_.options.length, job_.from.left, job_.to.left});
    if (job_.from.kind == Kind::in_flight) return std::min(limit, job_.machine.consumed());
    look_at_size();
    if (!is_file(job_.from.kind) || job_.source_size == 0 || job_.source_size == to_end)
      return limit == to_end ? std::nullopt : std::optional(limit);
    const sys::Count at = std::max<sys::Count>(source_offset(), 0);
    return std::min(limit, job_.source_size - std::min(job_.source_size, static_cast<std::uint64_t>(at)));
  }

  // What a source that becomes shorter is measured against.
  [[gnu::noinline]] void look_at_size() noexcept {
    if (job_.source_size != to_end || !is_file(job_.from.kind)) return;
    struct stat file;
    const bool has_size = job_.from.id.type != FileId::Type::block_device && sys::stat(job_.from.fd, file) == 0;
    job_.source_size = has_size ? static_cast<std::uint64_t>(file.st_size) : 0;
  }
  // Longer when the transfer began, and not merely a file whose size is a lie.
  [[nodiscard]] bool is_truncated() const noexcept {
    if (job_.from.kind == Kind::mapping) return job_.from.left > 0;
    if (!is_file(job_.from.kind) || job_.source_size == to_end || job_.machine.consumed() >= job_.source_size)
      return false;
    const sys::Count at = source_offset();
    struct stat file;
    if (at < 0 || sys::stat(job_.from.fd, file) < 0) return false;
    return static_cast<std::uint64_t>(at) < job_.source_size && file.st_size <= at;
  }

  // The end that a direct hop failed at.
  [[nodiscard]] Side blame(Cause cause) const noexcept {
    if (is_memory(job_.from.kind)) return Side::sink;
    // A fault is the sink's: its mapped file became shorter.
    if (is_memory(job_.to.kind)) return cause.is(EFAULT) ? Side::sink : Side::source;
    const bool sinks = cause.is(EPIPE) || cause.is(ENOSPC) || cause.is(EDQUOT) || cause.is(EFBIG) ||
                       cause.is(EMSGSIZE) || cause.is(EDESTADDRREQ) || cause.is(ETXTBSY);
    if (sinks) return Side::sink;
    if (cause.is(EISDIR)) return Side::source;
    if (cause.is(EBADF)) return is_readable_fd() ? Side::sink : Side::source;
    if (is_file(job_.from.kind)) return cause.is(EIO) && !is_readable_here() ? Side::source : Side::sink;
    if (job_.from.kind == Kind::pipe) return Side::sink;  // a pipe has nothing that could fail
    return is_socket(job_.to.kind) ? Side::sink : Side::source;
  }

 private:
  [[nodiscard]] bool is_readable_fd() const noexcept {
    const sys::Count flags = sys::status_flags(job_.from.fd);
    return flags >= 0 && (flags & O_ACCMODE) != O_WRONLY && (flags & O_PATH) == 0;
  }
  [[nodiscard]] bool is_readable_here() const noexcept {
    const sys::Count at = source_offset();
    std::byte one;
    return at >= 0 && sys::pread(job_.from.fd, &one, 1, static_cast<std::uint64_t>(at)) >= 0;
  }

  Job& job_;
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
