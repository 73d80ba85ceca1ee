// zerocopy/endpoint.hpp: what can be a source and what can be a sink, and how a user's own type joins.
// It borrows: an endpoint must outlive the transfer.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/cursor.hpp>  // Kind, Cursor
#include <zerocopy/fd.hpp>             // BorrowedFd, OwnedFd
#include <zerocopy/file.hpp>           // File, FileRange
#include <zerocopy/mapped_file.hpp>    // MappedFile, WritableMappedFile
#include <zerocopy/memory_file.hpp>    // MemoryFile
#include <zerocopy/pipe.hpp>           // PipeReader, PipeWriter
#include <zerocopy/socket.hpp>         // Socket

#include <concepts>     // the concepts below
#include <cstddef>      // std::byte
#include <span>         // memory
#include <type_traits>  // std::remove_cvref_t

namespace zerocopy::inline ZEROCOPY_ABI {

/// The customisation point. A user's own type joins by naming the endpoint of the library that it stands for:
///
///     template <>
///     struct zerocopy::endpoint_traits<Upload> {
///       static zerocopy::FileRange source(const Upload& u) { return {u.fd(), u.start(), u.size()}; }
///     };
///
/// `source` makes it a source, `sink` a sink; each returns a BorrowedFd, a FileRange or a std::span of std::byte
/// (const std::byte for a source), or a reference to any other endpoint, and must not throw.
template <class T>
struct endpoint_traits {};

namespace detail {

template <Kind K>
Cursor fd_cursor(BorrowedFd fd) noexcept {
  return {.fd = fd.get(), .kind = K};
}
// What a File is open on shows here: a regular file, or a FIFO, or a device.
template <class Handle>
Cursor file_cursor(const Handle& file) noexcept {
  const FileId& id = KnownId::of(file);
  return {.fd = file.as_fd().get(), .kind = kind_of(id), .id = id};
}
inline Cursor range_cursor(const FileRange& range) noexcept {
  return {.fd = range.as_fd().get(),
          .kind = Kind::range,
          .positioned = true,
          .offset = range.offset(),
          .left = range.length(),
          .id = KnownId::of(range)};
}
inline Cursor memory_cursor(std::span<const std::byte> bytes) noexcept {
  // Only sinks write, and they are given writable bytes.
  return {.kind = Kind::memory, .left = bytes.size(), .data = const_cast<std::byte*>(bytes.data())};
}
template <class Handle>
Cursor mapping_cursor(const Handle& file) noexcept {
  return {.fd = file.as_fd().get(),
          .kind = Kind::mapping,
          .positioned = true,
          .offset = file.file_offset(),
          .left = file.size(),
          .data = const_cast<std::byte*>(file.bytes().data()),
          .id = KnownId::of(file)};
}
inline Cursor socket_cursor(const Socket& socket) noexcept {
  return {.fd = socket.as_fd().get(), .kind = socket.type() == SocketType::stream ? Kind::socket : Kind::messages};
}

// One row for each type: its kind, and the cursor that it is as a source, as a sink.
template <class T>
struct builtin_endpoint {};
template <>
struct builtin_endpoint<BorrowedFd> {
  static constexpr Kind kind = Kind::any;
  static Cursor source(BorrowedFd fd) noexcept { return fd_cursor<kind>(fd); }
  static Cursor sink(BorrowedFd fd) noexcept { return fd_cursor<kind>(fd); }
};
template <>
struct builtin_endpoint<OwnedFd> {
  static constexpr Kind kind = Kind::any;
  static Cursor source(const OwnedFd& fd) noexcept { return fd_cursor<kind>(fd.as_fd()); }
  static Cursor sink(const OwnedFd& fd) noexcept { return fd_cursor<kind>(fd.as_fd()); }
};
template <>
struct builtin_endpoint<File> {
  static constexpr Kind kind = Kind::file;
  static Cursor source(const File& file) noexcept { return file_cursor(file); }
  static Cursor sink(const File& file) noexcept { return file_cursor(file); }
};
template <>
struct builtin_endpoint<MemoryFile> {
  static constexpr Kind kind = Kind::file;
  static Cursor source(const MemoryFile& file) noexcept { return file_cursor(file); }
  static Cursor sink(const MemoryFile& file) noexcept { return file_cursor(file); }
};
template <>
struct builtin_endpoint<FileRange> {
  static constexpr Kind kind = Kind::range;
  static Cursor source(const FileRange& range) noexcept { return range_cursor(range); }
  static Cursor sink(const FileRange& range) noexcept { return range_cursor(range); }
};
template <>
struct builtin_endpoint<PipeReader> {
  static constexpr Kind kind = Kind::pipe;
  static Cursor source(const PipeReader& pipe) noexcept { return fd_cursor<kind>(pipe.as_fd()); }
};
template <>
struct builtin_endpoint<PipeWriter> {
  static constexpr Kind kind = Kind::pipe;
  static Cursor sink(const PipeWriter& pipe) noexcept { return fd_cursor<kind>(pipe.as_fd()); }
};
template <>
struct builtin_endpoint<Socket> {
  static constexpr Kind kind = Kind::socket;
  static Cursor source(const Socket& socket) noexcept { return socket_cursor(socket); }
  static Cursor sink(const Socket& socket) noexcept { return socket_cursor(socket); }
};
template <>
struct builtin_endpoint<MappedFile> {
  static constexpr Kind kind = Kind::mapping;
  static Cursor source(const MappedFile& file) noexcept { return mapping_cursor(file); }
};
template <>
struct builtin_endpoint<WritableMappedFile> {
  static constexpr Kind kind = Kind::mapping;
  static Cursor source(const WritableMappedFile& file) noexcept { return mapping_cursor(file); }
  static Cursor sink(const WritableMappedFile& file) noexcept { return mapping_cursor(file); }
};
template <std::size_t N>
struct builtin_endpoint<std::span<const std::byte, N>> {
  static constexpr Kind kind = Kind::memory;
  static Cursor source(std::span<const std::byte> bytes) noexcept { return memory_cursor(bytes); }
};
template <std::size_t N>
struct builtin_endpoint<std::span<std::byte, N>> {
  static constexpr Kind kind = Kind::memory;
  static Cursor source(std::span<const std::byte> bytes) noexcept { return memory_cursor(bytes); }
  static Cursor sink(std::span<std::byte> bytes) noexcept { return memory_cursor(bytes); }
};

// The cursor of a type as a source (or a sink); void where it can't be one.
template <class T>
decltype(auto) as_source(const T& end) noexcept {
  if constexpr (requires { builtin_endpoint<T>::source(end); }) {
    return builtin_endpoint<T>::source(end);
  } else if constexpr (requires { endpoint_traits<T>::source(end); }) {
    return as_source(endpoint_traits<T>::source(end));
  }
}
template <class T>
decltype(auto) as_sink(const T& end) noexcept {
  if constexpr (requires { builtin_endpoint<T>::sink(end); }) {
    return builtin_endpoint<T>::sink(end);
  } else if constexpr (requires { endpoint_traits<T>::sink(end); }) {
    return as_sink(endpoint_traits<T>::sink(end));
  }
}
template <class T>
consteval Kind source_kind() noexcept {
  if constexpr (requires { builtin_endpoint<T>::kind; }) {
    return builtin_endpoint<T>::kind;
  } else {
    return source_kind<std::remove_cvref_t<decltype(endpoint_traits<T>::source(std::declval<const T&>()))>>();
  }
}
template <class T>
consteval Kind sink_kind() noexcept {
  if constexpr (requires { builtin_endpoint<T>::kind; }) {
    return builtin_endpoint<T>::kind;
  } else {
    return sink_kind<std::remove_cvref_t<decltype(endpoint_traits<T>::sink(std::declval<const T&>()))>>();
  }
}

// A cursor whose kind is known at compile time.
template <Kind K>
struct Endpoint {
  static constexpr Kind kind = K;
  Cursor cursor;
};

}  // namespace detail

/// What `transfer` can read from.
template <class T>
concept source = !std::is_void_v<decltype(detail::as_source(std::declval<const std::remove_cvref_t<T>&>()))>;

/// What `transfer` can write to.
template <class T>
concept sink = !std::is_void_v<decltype(detail::as_sink(std::declval<const std::remove_cvref_t<T>&>()))>;

}  // namespace zerocopy::inline ZEROCOPY_ABI
