// zerocopy/transfer.hpp: the front door: moves bytes from any source to any sink by the cheapest way that the kernel offers,
// and says exactly how many arrived. It owns nothing: both ends are borrowed for the call.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/blocking_driver.hpp>  // run_blocking
#include <zerocopy/endpoint.hpp>                // source, sink
#include <zerocopy/options.hpp>                 // Options
#include <zerocopy/result.hpp>                  // TransferResult, TransferError

#include <string>  // the error's message

namespace zerocopy::inline ZEROCOPY_ABI {

namespace detail {

inline std::string describe(const Cursor& end) {
  std::string text = to_string(end.kind);
  if (end.fd >= 0) text += " (fd " + std::to_string(end.fd) + ")";
  if (end.kind == Kind::range) text += " at offset " + std::to_string(end.offset);
  return text;
}

// What was tried on what: "transfer from file (fd 3) to socket (fd 4), 512 bytes delivered, failed at the sink
// (sendfile: Invalid argument)".
inline std::string describe(const Cursor& from, const Cursor& to, const TransferResult& result) {
  std::string text = "transfer from " + describe(from) + " to " + describe(to) + ", " +
                     std::to_string(result.delivered) + " bytes delivered, " + std::string(to_string(result.reason));
  if (result.side != Side::none) text += " at the " + std::string(to_string(result.side));
  for (const FallbackStep step : result.trail)
    text += " (" + std::string(to_string(step.strategy)) + ": " + step.error.message() + ")";
  return text;
}

template <class Source>
inline constexpr bool is_stranded = std::is_same_v<std::remove_cvref_t<Source>, Stranded>;

struct StrandedAccess {
  template <Kind To>
  static void deliver(Stranded& bytes, Cursor& to, const Options& options, TransferResult& result) noexcept {
    Cursor from;
    from.kind = Kind::in_flight;
    const Held held{bytes.store_, bytes.buffered_, bytes.piped_};
    run_blocking<Kind::in_flight, To>(from, to, options, result, &held);
  }
};

template <class Source, class Sink>
[[gnu::always_inline]] inline TransferResult transfer(Source& from, const Sink& to, const Options& options) noexcept {
  TransferResult result;
  static_assert(sink<Sink>,
                "zerocopy: this type is not a sink. Sinks are File, FileRange, WritableMappedFile, MemoryFile, PipeWriter, "
                "Socket, std::span<std::byte>, BorrowedFd, and types with endpoint_traits<T>::sink");
  static_assert(source<Source> || is_stranded<Source>,
                "zerocopy: this type is not a source. Sources are File, FileRange, MappedFile, MemoryFile, PipeReader, "
                "Socket, std::span<const std::byte>, BorrowedFd, Stranded, and types with endpoint_traits<T>::source");
  if constexpr (sink<Sink> && is_stranded<Source>) {
    auto target = as_sink(to);
    StrandedAccess::deliver<target.kind>(from, target.cursor, options, result);
  } else if constexpr (sink<Sink> && source<Source>) {
    auto origin = as_source(from);
    auto target = as_sink(to);
    run_blocking<origin.kind, target.kind>(origin.cursor, target.cursor, options, result);
  }
  return result;
}

template <class Source>
Cursor source_cursor(const Source& from) noexcept {
  if constexpr (source<Source>) {
    return as_source(from).cursor;
  } else {
    Cursor stranded;
    stranded.kind = Kind::in_flight;
    return stranded;
  }
}

template <class Source, class Sink>
[[noreturn, gnu::cold, gnu::noinline]] void throw_transfer_error(const Source& from, const Sink& to,
                                                                 TransferResult&& result) {
  std::string what;
  if constexpr (sink<Sink>) what = describe(source_cursor(from), as_sink(to).cursor, result);
  throw TransferError(std::move(result), what);
}

}  // namespace detail

/// Moves bytes from `from` to `to`, from the source's current position (or a range's offset) on, until
/// `options.length` bytes have arrived or the source ends, and returns what happened. `delivered` is exact whatever fails
/// and wherever; what left a source that can't be rewound and did not arrive is in `stranded`.
/// Errors: TransferError, exactly when the result's `error` is set: the kernel's errno from the side named by
/// `side`, or an Errc. An end of the source before `length` is no error. Nothing else is thrown.
/// Blocking: until done, in poll(2) where an end is not ready, also if the descriptors do not block. A file that is not in
/// the page cache blocks in the call that reads it. Time limits and the stop token in `options` end it.
/// Thread safety: any thread; two transfers must not use one descriptor's position at the same time.
/// Rests on: sendfile(2), splice(2), copy_file_range(2), mmap(2), ioctl_ficlonerange(2), send(2). Linux 5.10.
template <class Source, class Sink>
TransferResult transfer(Source&& from, Sink&& to, const Options& options = {}) {
  TransferResult result = detail::transfer(from, to, options);
  if (result.error) detail::throw_transfer_error(from, to, std::move(result));
  return result;
}

/// The same, but a failure is reported in `ec` too instead of being thrown. `ec` is cleared on success.
template <class Source, class Sink>
TransferResult transfer(Source&& from, Sink&& to, const Options& options, std::error_code& ec) noexcept {
  TransferResult result = detail::transfer(from, to, options);
  ec = result.error;
  return result;
}
template <class Source, class Sink>
TransferResult transfer(Source&& from, Sink&& to, std::error_code& ec) noexcept {
  return transfer(from, to, Options{}, ec);
}

}  // namespace zerocopy::inline ZEROCOPY_ABI
