// zerocopy/tee.hpp: several sinks as one: every byte goes to each of them.
// It borrows its sinks: they must outlive the transfer.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/endpoint.hpp>  // sink
#include <zerocopy/result.hpp>    // TransferResult, TransferError

#include <array>        // a result for each sink
#include <optional>     // the failed sink, stranded bytes
#include <tuple>        // the sinks
#include <type_traits>  // std::is_lvalue_reference_v

namespace zerocopy::inline ZEROCOPY_ABI {

/// What happened at one sink of a tee.
struct SinkResult {
  std::uint64_t delivered = 0;               ///< bytes that reached this sink: the first ones of the source
  StopReason reason = StopReason::complete;  ///< why nothing more was sent to it; stopped: another sink's failure
  std::error_code error;                     ///< of this sink; not another's
  std::optional<Stranded> stranded;          ///< bytes that left the source for it and did not arrive
};

/// What a transfer into a tee says. As a TransferResult: `consumed` bytes left the source; `delivered` of them reached every
/// sink that did not fail, or, if all failed, every sink; `error` is the source's or the first failed sink's. What a sink
/// still lacks of `consumed` is in its `stranded`, then in the common `stranded`; one that dropped out also lacks all that
/// was read after its failure. A source that can be rewound stands at
/// start + consumed.
template <std::size_t N>
struct TeeResult : TransferResult {
  std::array<SinkResult, N> sinks;  ///< in the order in which `tee` was given them
  std::optional<std::size_t>
      failed_sink;  ///< the first that failed, or that was waited for when time was up or it was stopped
};

/// Thrown by a transfer into a tee; a TransferError whose result also tells of each sink.
template <std::size_t N>
class TeeError : public TransferError {
 public:
  TeeError(TeeResult<N> result, const std::string& what)
      : TeeError(std::make_shared<TeeResult<N>>(std::move(result)), what) {}
  [[nodiscard]] TeeResult<N>& result() const noexcept { return *result_; }

 private:
  TeeError(std::shared_ptr<TeeResult<N>> result, const std::string& what)
      : TransferError(result, what), result_(std::move(result)) {}
  std::shared_ptr<TeeResult<N>> result_;
};

/// Made by `tee`.
template <class... Ends>
class Tee {
 public:
  static constexpr std::size_t size = sizeof...(Ends);
  explicit constexpr Tee(Ends... sinks) noexcept : sinks_(sinks...) {}
  [[nodiscard]] constexpr const std::tuple<Ends...>& sinks() const noexcept { return sinks_; }

 private:
  std::tuple<Ends...> sinks_;
};

/// Several sinks as one: `transfer(socket, tee(file, other_socket))` sends every byte to each of them, by tee(2) through
/// pipes, which copies nothing; where there are no pipes, or splice is refused, by copying. The slowest sink sets the pace:
/// nothing new is read before every sink has what was read. A sink that fails stops the transfer, or, with
/// `Options::dead_sink = DeadSink::go_on`, drops out while the others go on; `TeeResult::sinks` tells of each.
/// Time limits count bytes to any sink. A range or memory sink bounds the length for all. Datagram and seqpacket sinks,
/// gathers and Stranded as the source: `strategy_unavailable`, or they do not compile.
/// Sinks are taken as lvalues only, since they are borrowed; spans, FileRanges and BorrowedFds as values too.
/// Errors: none here. Blocking: no. Thread safety: a value. Rests on: tee(2). Linux 2.6.17.
template <class... Sinks>
[[nodiscard]] constexpr auto tee(Sinks&&... sinks) noexcept {
  static_assert(sizeof...(Sinks) > 0, "zerocopy: a tee needs at least one sink");
  static_assert((sink<Sinks> && ...), "zerocopy: every end of a tee must be a sink");
  static_assert(((std::is_lvalue_reference_v<Sinks> || std::is_trivially_destructible_v<Sinks>)&&...),
                "zerocopy: a tee borrows its sinks: give handles a name first");
  return Tee(detail::Endpoint<detail::sink_kind<std::remove_cvref_t<Sinks>>()>{detail::as_sink(sinks)}...);
}

}  // namespace zerocopy::inline ZEROCOPY_ABI
