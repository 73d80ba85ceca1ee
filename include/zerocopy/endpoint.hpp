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

// A cursor whose kind is known at compile time.
template <Kind K>
struct Endpoint {
  static constexpr Kind kind = K;
  Cursor cursor;
};

template <Kind K>
Endpoint<K> fd_endpoint(BorrowedFd fd) noexcept {
  Endpoint<K> end;
  end.cursor.fd = fd.get();
  end.cursor.kind = K;
  return end;
}
// What a File is open on shows here: a regular file, or a FIFO, or a device.
template <class Handle>
Endpoint<Kind::file> file_endpoint(const Handle& file) noexcept {
  auto end = fd_endpoint<Kind::file>(file.as_fd());
  end.cursor.id = KnownId::of(file);
  end.cursor.kind = kind_of(end.cursor.id);
  return end;
}
inline Endpoint<Kind::range> range_endpoint(const FileRange& range) noexcept {
  auto end = fd_endpoint<Kind::range>(range.as_fd());
  end.cursor.positioned = true;
  end.cursor.offset = range.offset();
  end.cursor.left = range.length();
  end.cursor.id = KnownId::of(range);
  return end;
}
template <Kind K>
Endpoint<K> memory_endpoint(std::span<const std::byte> bytes) noexcept {
  Endpoint<K> end;
  end.cursor.kind = K;
  end.cursor.data = const_cast<std::byte*>(bytes.data());  // only sinks write, and they are given writable bytes
  end.cursor.left = bytes.size();
  return end;
}
template <class Handle>
Endpoint<Kind::mapping> mapping_endpoint(const Handle& file) noexcept {
  auto end = memory_endpoint<Kind::mapping>(file.bytes());
  end.cursor.fd = file.as_fd().get();
  end.cursor.positioned = true;
  end.cursor.offset = file.file_offset();
  end.cursor.id = KnownId::of(file);
  return end;
}
inline Endpoint<Kind::socket> socket_endpoint(const Socket& socket) noexcept {
  auto end = fd_endpoint<Kind::socket>(socket.as_fd());
  if (socket.type() != SocketType::stream) end.cursor.kind = Kind::messages;
  return end;
}

// One row for each type: as a source, as a sink.
template <class T>
struct builtin_endpoint {};
template <>
struct builtin_endpoint<BorrowedFd> {
  static auto source(BorrowedFd fd) noexcept { return fd_endpoint<Kind::any>(fd); }
  static auto sink(BorrowedFd fd) noexcept { return fd_endpoint<Kind::any>(fd); }
};
template <>
struct builtin_endpoint<OwnedFd> {
  static auto source(const OwnedFd& fd) noexcept { return fd_endpoint<Kind::any>(fd.as_fd()); }
  static auto sink(const OwnedFd& fd) noexcept { return fd_endpoint<Kind::any>(fd.as_fd()); }
};
template <>
struct builtin_endpoint<File> {
  static auto source(const File& file) noexcept { return file_endpoint(file); }
  static auto sink(const File& file) noexcept { return file_endpoint(file); }
};
template <>
struct builtin_endpoint<MemoryFile> {
  static auto source(const MemoryFile& file) noexcept { return file_endpoint(file); }
  static auto sink(const MemoryFile& file) noexcept { return file_endpoint(file); }
};
template <>
struct builtin_endpoint<FileRange> {
  static auto source(const FileRange& range) noexcept { return range_endpoint(range); }
  static auto sink(const FileRange& range) noexcept { return range_endpoint(range); }
};
template <>
struct builtin_endpoint<PipeReader> {
  static auto source(const PipeReader& pipe) noexcept { return fd_endpoint<Kind::pipe>(pipe.as_fd()); }
};
template <>
struct builtin_endpoint<PipeWriter> {
  static auto sink(const PipeWriter& pipe) noexcept { return fd_endpoint<Kind::pipe>(pipe.as_fd()); }
};
template <>
struct builtin_endpoint<Socket> {
  static auto source(const Socket& socket) noexcept { return socket_endpoint(socket); }
  static auto sink(const Socket& socket) noexcept { return socket_endpoint(socket); }
};
template <>
struct builtin_endpoint<MappedFile> {
  static auto source(const MappedFile& file) noexcept { return mapping_endpoint(file); }
};
template <>
struct builtin_endpoint<WritableMappedFile> {
  static auto source(const WritableMappedFile& file) noexcept { return mapping_endpoint(file); }
  static auto sink(const WritableMappedFile& file) noexcept { return mapping_endpoint(file); }
};
template <std::size_t N>
struct builtin_endpoint<std::span<const std::byte, N>> {
  static auto source(std::span<const std::byte> bytes) noexcept { return memory_endpoint<Kind::memory>(bytes); }
};
template <std::size_t N>
struct builtin_endpoint<std::span<std::byte, N>> {
  static auto source(std::span<const std::byte> bytes) noexcept { return memory_endpoint<Kind::memory>(bytes); }
  static auto sink(std::span<std::byte> bytes) noexcept { return memory_endpoint<Kind::memory>(bytes); }
};

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

}  // namespace detail

/// What `transfer` can read from.
template <class T>
concept source = !std::is_void_v<decltype(detail::as_source(std::declval<const std::remove_cvref_t<T>&>()))>;

/// What `transfer` can write to.
template <class T>
concept sink = !std::is_void_v<decltype(detail::as_sink(std::declval<const std::remove_cvref_t<T>&>()))>;

}  // namespace zerocopy::inline ZEROCOPY_ABI
