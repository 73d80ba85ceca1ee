// zerocopy/detail/cursor.hpp: where a transfer is in its source or its sink.
// The only owner of offsets: strategies read a cursor, the mover advances it by what an outcome says.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/file_id.hpp>  // FileId
#include <zerocopy/detail/syscall.hpp>  // sys::seek
#include <zerocopy/file.hpp>            // to_end

#include <cstddef>  // std::byte
#include <cstdint>  // std::uint64_t

namespace zerocopy::inline ZEROCOPY_ABI::detail {

// What an end of a transfer is. Types tell `file`, `range`, `pipe`, `socket`, `memory`, `mapping`, `in_flight`; one fstat
// tells the kind behind `any`, and turns `socket` into `messages` where a socket keeps message boundaries.
enum class Kind : std::uint8_t {
  file,       // regular file or block device, at its own position
  range,      // the same at an explicit offset
  pipe,       // pipe or FIFO
  socket,     // stream socket
  messages,   // datagram or seqpacket socket
  device,     // anything else with a descriptor: tty, /dev/zero, eventfd
  memory,     // a span
  mapping,    // a mapped file
  in_flight,  // bytes of an earlier transfer: a Stranded
  any,        // not known before run time
};
inline constexpr std::size_t kind_count = 10;

constexpr const char* to_string(Kind kind) noexcept {
  constexpr const char* names[kind_count] = {"file",   "file range", "pipe",        "socket",         "message socket",
                                             "device", "memory",     "mapped file", "stranded bytes", "descriptor"};
  return names[static_cast<std::size_t>(kind)];
}

// What a descriptor that is no socket turns out to be.
constexpr Kind kind_of(const FileId& id) noexcept {
  constexpr Kind kinds[] = {Kind::file, Kind::file, Kind::file, Kind::file, Kind::pipe, Kind::device, Kind::device};
  return kinds[static_cast<std::size_t>(id.type)];
}
constexpr bool is_file(Kind kind) noexcept { return kind == Kind::file || kind == Kind::range; }
constexpr bool is_socket(Kind kind) noexcept { return kind == Kind::socket || kind == Kind::messages; }
constexpr bool is_memory(Kind kind) noexcept { return kind == Kind::memory || kind == Kind::mapping; }
constexpr bool is_bounded(Kind kind) noexcept { return kind == Kind::range || is_memory(kind); }
// After a failure its position can be set to what was delivered.
constexpr bool is_rewindable(Kind kind) noexcept { return is_file(kind) || is_memory(kind); }

struct Cursor {
  int fd = -1;  // of a mapping: the file that is mapped
  Kind kind = Kind::any;
  bool positioned = false;      // `offset` counts, not the position in the kernel
  bool pinned = false;          // positioned for a strategy that needs it; the kernel's position must follow at the end
  bool stays_pinned = false;    // until the end of the transfer
  bool large_messages = false;  // AF_UNIX: a message may be larger than our buffer
  std::uint64_t offset = 0;     // of the next byte in the file
  std::uint64_t left = to_end;  // bytes that this end can still give or take
  std::byte* data = nullptr;    // the next byte in memory
  FileId id{};                  // where a handle knows it, or fstat was asked

  // `K`: what the types say.
  template <Kind K>
  [[gnu::always_inline]] void advance(std::uint64_t n) noexcept {
    if constexpr (is_memory(K)) {
      data += n;
      left -= n;
    }
    if (positioned) offset += n;
  }

  // The offset as the system calls want it: null for the position in the kernel. `copy` takes what they write back.
  off_t* call_offset(off_t& copy) const noexcept {
    copy = static_cast<off_t>(offset);
    return positioned ? &copy : nullptr;
  }

  // From the file's own position to an explicit one, and back. 0 or a negated errno.
  sys::Count pin() noexcept {
    if (positioned) return 0;
    const sys::Count at = sys::seek(fd, 0, SEEK_CUR);
    if (at < 0) return at;
    offset = static_cast<std::uint64_t>(at);
    positioned = pinned = true;
    return 0;
  }
  sys::Count unpin() noexcept {
    if (!pinned) return 0;
    positioned = pinned = false;
    return sys::seek(fd, static_cast<std::int64_t>(offset), SEEK_SET);
  }
};

}  // namespace zerocopy::inline ZEROCOPY_ABI::detail
