// zerocopy/transfer.hpp: the front door: moves bytes from any source to any sink by the cheapest way that the kernel offers,
// and says exactly how many arrived. It owns nothing: both ends are borrowed for the call.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/detail/driver.hpp>           // run_blocking
#include <zerocopy/detail/sequence.hpp>         // a gather's parts
#include <zerocopy/detail/stranded_access.hpp>  // the bytes of an earlier transfer
#include <zerocopy/detail/tee_run.hpp>          // a tee's sinks
#include <zerocopy/endpoint.hpp>                // source, sink
#include <zerocopy/gather.hpp>                  // Gather
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
inline std::string describe(const Cursor& from, const std::string& to, const TransferResult& result) {
  std::string text = "transfer from " + describe(from) + " to " + to + ", " + std::to_string(result.delivered) +
                     " bytes delivered, " + std::string(to_string(result.reason));
  if (result.side != Side::none) text += " at the " + std::string(to_string(result.side));
  for (const FallbackStep step : result.trail)
    text += " (" + std::string(to_string(step.strategy)) + ": " + step.error.message() + ")";
  return text;
}

template <class T>
inline constexpr bool is_gather = false;
template <class... Ends>
inline constexpr bool is_gather<Gather<Ends...>> = true;

// The three shapes of a source: one endpoint, the bytes of an earlier transfer, several parts.
template <class Source, class Sink>
[[gnu::always_inline]] inline TransferResult deliver(const Source& from, const Sink& to,
                                                     const Options& options) noexcept {
  Job job(
      options, [&] { return as_source(from); }, [&] { return as_sink(to); });
  return run_blocking<source_kind<Source>(), sink_kind<Sink>()>(job);
}
template <class Sink>
TransferResult deliver(Stranded& from, const Sink& to, const Options& options) noexcept {
  Job job(
      options, [] { return Cursor{.kind = Kind::in_flight}; }, [&] { return as_sink(to); });
  StrandedAccess::lend(from, job);
  TransferResult result = run_blocking<Kind::in_flight, sink_kind<Sink>()>(job);
  StrandedAccess::take_back(from, job);
  return result;
}
struct ToTheEnd {
  static constexpr bool steps = false;
  template <Kind From, Kind To>
  Step operator()(Driver<From, To> driver) const noexcept {
    return driver.run(), Step::done;
  }
};
template <class... Ends, class Sink>
TransferResult deliver(const Gather<Ends...>& from, const Sink& to, const Options& options) noexcept {
  Sequence<sink_kind<Sink>(), Ends...> sequence(from, as_sink(to), options);
  sequence.go(ToTheEnd());
  return sequence.conclude();
}

template <class Source, class... Ends>
TeeResult<sizeof...(Ends)> deliver(const Source& from, const Tee<Ends...>& to, const Options& options) noexcept {
  return TeeRun<source_kind<Source>(), Ends...>(as_source(from), to, options).run();
}

template <class T>
inline constexpr bool is_tee = false;
template <class... Ends>
inline constexpr bool is_tee<Tee<Ends...>> = true;

template <class Source>
inline constexpr bool is_source =
    source<Source> || std::same_as<std::remove_cvref_t<Source>, Stranded> || is_gather<std::remove_cvref_t<Source>>;

template <class Source, class Sink>
[[gnu::always_inline]] inline auto transfer(Source& from, const Sink& to, const Options& options) noexcept {
  static_assert(
      sink<Sink> || is_tee<Sink>,
      "zerocopy: this type is not a sink. Sinks are File, FileRange, WritableMappedFile, MemoryFile, PipeWriter, "
      "Socket, std::span<std::byte>, BorrowedFd, tee(...), and types with endpoint_traits<T>::sink");
  static_assert(is_source<Source>,
                "zerocopy: this type is not a source. Sources are File, FileRange, MappedFile, MemoryFile, PipeReader, "
                "Socket, std::span<const std::byte>, BorrowedFd, Stranded, gather(...), and types with "
                "endpoint_traits<T>::source");
  static_assert(!is_tee<Sink> || source<Source>, "zerocopy: a tee takes one source, no gather and no Stranded");
  if constexpr ((sink<Sink> && is_source<Source>) || (is_tee<Sink> && source<Source>)) {
    return deliver(from, to, options);
  } else {
    return TransferResult();
  }
}

template <class Source>
Cursor source_cursor(const Source& from) noexcept {
  Cursor cursor;
  if constexpr (source<Source>) {
    return as_source(from);
  } else if constexpr (is_gather<Source>) {
    from.each([&](const auto& part) { return cursor = part.cursor, false; });
    return cursor;
  } else {
    cursor.kind = Kind::in_flight;
    return cursor;
  }
}

template <class Source, class Sink>
[[noreturn, gnu::cold, gnu::noinline]] void throw_transfer_error(const Source& from, const Sink& to,
                                                                 TransferResult&& result) {
  std::string what;
  if constexpr (sink<Sink>) what = describe(source_cursor(from), describe(as_sink(to)), result);
  throw TransferError(std::move(result), what);
}
template <class Source, class... Ends>
[[noreturn, gnu::cold, gnu::noinline]] void throw_transfer_error(const Source& from, const Tee<Ends...>& to,
                                                                 TeeResult<sizeof...(Ends)>&& result) {
  Cursor cursor = std::get<0>(to.sinks()).cursor;
  std::string which = "all sinks of a tee, first ";
  if (result.failed_sink) {
    which = "sink " + std::to_string(*result.failed_sink) + " of a tee, ";
    std::size_t at = 0;
    std::apply([&](const auto&... end) { ((at++ == *result.failed_sink ? void(cursor = end.cursor) : void()), ...); },
               to.sinks());
  }
  std::string what = describe(source_cursor(from), which + describe(cursor), result);
  throw TeeError<sizeof...(Ends)>(std::move(result), what);
}

}  // namespace detail

/// Moves bytes from `from` to `to`, from the source's current position (or a range's offset) on, until
/// `options.length` bytes have arrived or the source ends, and returns what happened. `delivered` is exact whatever fails
/// and wherever; what left a source that can't be rewound and did not arrive is in `stranded`. Returns a TransferResult; into a
/// `tee` a TeeResult, which is one too (and throws a TeeError, which is a TransferError).
/// Errors: TransferError, exactly when the result's `error` is set: the kernel's errno from the side named by
/// `side`, or an Errc. An end of the source before `length` is no error. Nothing else is thrown.
/// Blocking: until done, in poll(2) where an end is not ready, also if the descriptors do not block. A file that is not in
/// the page cache blocks in the call that reads it. Time limits and the stop token in `options` end it.
/// Thread safety: any thread; two transfers must not use one descriptor's position at the same time.
/// Rests on: sendfile(2), splice(2), copy_file_range(2), mmap(2), ioctl_ficlonerange(2), send(2). Linux 5.10.
template <class Source, class Sink>
auto transfer(Source&& from, Sink&& to, const Options& options = {}) {
  auto result = detail::transfer(from, to, options);
  if (result.error) detail::throw_transfer_error(from, to, std::move(result));
  return result;
}

/// The same, but a failure is reported in `ec` too instead of being thrown. `ec` is cleared on success.
template <class Source, class Sink>
auto transfer(Source&& from, Sink&& to, const Options& options, std::error_code& ec) noexcept {
  auto result = detail::transfer(from, to, options);
  ec = result.error;
  return result;
}
template <class Source, class Sink>
auto transfer(Source&& from, Sink&& to, std::error_code& ec) noexcept {
  return transfer(from, to, Options{}, ec);
}

}  // namespace zerocopy::inline ZEROCOPY_ABI
