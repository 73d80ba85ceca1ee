// zerocopy/gather.hpp: several sources as one: header bytes, a file range, trailer bytes, sent back to back.
// It borrows its parts: they must outlive the transfer.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/endpoint.hpp>  // source

#include <tuple>        // the parts
#include <type_traits>  // std::is_lvalue_reference_v
#include <utility>      // std::forward

namespace zerocopy::inline ZEROCOPY_ABI {

/// Made by `gather`.
template <class... Ends>
class Gather {
 public:
  static constexpr std::size_t size = sizeof...(Ends);
  explicit constexpr Gather(Ends... parts) noexcept : parts_(parts...) {}

  // Calls `use(part)` for each part in order until it returns false.
  template <class Use>
  void each(Use use) const noexcept {
    std::apply([&](const Ends&... parts) { (void)(use(parts) && ...); }, parts_);
  }
  // Calls `use(part)` for the part that stands at `at`.
  template <class Use>
  void visit(std::size_t at, Use use) const noexcept {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (void)((I == at && (use(std::get<I>(parts_)), true)) || ...);
    }(std::make_index_sequence<size>{});
  }

 private:
  std::tuple<Ends...> parts_;
};

/// Several sources as one: `transfer(gather(header, file.range(0, n), trailer), socket)` sends them in order, into
/// a TCP socket under TCP_CORK, which is taken off at the end, so that no partial packet goes between them; a cork that the
/// caller has set stays. With a pipe or a socket among the parts, which may be silent, there is no cork: every part but the
/// last is sent with a promise of more (MSG_MORE, SPLICE_F_MORE), which holds a partial packet back only until the next
/// acknowledgement.
/// A part that ends before its own length (a range longer than its file) ends the transfer with `end_of_source`.
/// `length` counts over all parts. All parts are checked before the first byte. A gather without a part: `empty_gather`,
/// nothing moved. A part that is the sink's own file: `same_file`. A message sink takes one part: else `strategy_unavailable`.
/// Handles are taken as lvalues only, since they are borrowed; spans, FileRanges and BorrowedFds as values too.
/// Errors: none here. Blocking: no. Thread safety: a value. Rests on: tcp(7) TCP_CORK, send(2) MSG_MORE.
template <class... Parts>
[[nodiscard]] constexpr auto gather(Parts&&... parts) noexcept {
  static_assert((source<Parts> && ...),
                "zerocopy: every part of a gather must be a source, and not a gather or Stranded");
  static_assert(((std::is_lvalue_reference_v<Parts> || std::is_trivially_destructible_v<Parts>)&&...),
                "zerocopy: a gather borrows its parts: give handles a name first");
  return Gather(detail::Endpoint<detail::source_kind<std::remove_cvref_t<Parts>>()>{detail::as_source(parts)}...);
}

}  // namespace zerocopy::inline ZEROCOPY_ABI
