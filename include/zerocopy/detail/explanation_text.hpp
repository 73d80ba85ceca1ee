// zerocopy/detail/explanation_text.hpp: an Explanation as a table to read. Included by explanation.hpp, whose member it defines.
#pragma once

#include <zerocopy/config.hpp>

#include <zerocopy/explanation.hpp>  // Explanation

#include <iterator>  // std::size
#include <string>    // the text

namespace zerocopy::inline ZEROCOPY_ABI {

namespace detail {

inline std::string size_as_text(std::uint64_t bytes) {
  constexpr const char* units[] = {" bytes", " KiB", " MiB", " GiB", " TiB"};
  std::size_t unit = 0;
  for (; unit + 1 < std::size(units) && bytes >= 1024 && bytes % 1024 == 0; ++unit) bytes /= 1024;
  return std::to_string(bytes) + units[unit];
}
inline std::string end_as_text(const Explanation::End& end) {
  std::string text(end.kind);
  if (end.fd >= 0) text += " (fd " + std::to_string(end.fd) + ")";
  if (end.offset) text += " at offset " + std::to_string(*end.offset);
  return text;
}
inline std::string padded(std::string text, std::size_t width) {
  return text.size() < width ? text.append(width - text.size(), ' ') : text;
}
inline std::string right(const std::string& text, std::size_t width) {
  return text.size() < width ? std::string(width - text.size(), ' ') + text : text;
}
inline std::string row_as_text(const ExplainedStrategy& entry, std::uint64_t bytes) {
  const ExpectedCalls calls = entry.calls(bytes);
  std::string count = std::to_string(calls.moving);
  if (calls.ending > 0) count += " + " + std::to_string(calls.ending);
  std::string row = padded(entry.position ? std::to_string(*entry.position + 1) : "-", 3);
  row += padded(std::string(to_string(entry.strategy)), 17);
  row += right(std::to_string(entry.cpu_copies), 10) + right(std::to_string(entry.dma_copies), 12);
  row += right(count, 14) + right(std::to_string(calls.switches), 10);
  if (entry.refused) row += "  refused here: " + entry.refused.message();
  if (!entry.position) row += "  " + entry.passed_over.message();
  return row + "\n";
}
inline std::string flag_as_text(std::optional<bool> flag) { return !flag ? "not known" : *flag ? "on" : "off"; }
inline std::string route_as_text(const Explanation& explanation) {
  const Route& route = *explanation.route;
  std::string text = "leaves through " + route.device + ": scatter-gather " + flag_as_text(route.scatter_gather) +
                     ", checksum offload " + flag_as_text(route.checksum_offload);
  if (!explanation[Strategy::sendfile].serves && !explanation[Strategy::splice].serves) return text + "\n";
  text += route.scatter_gather.value_or(false) ? ": pages are sent where they lie, without a copy into packets"
                                               : ": pages are copied into packets";
  return text + "\n";
}

}  // namespace detail

inline std::string Explanation::text() const {
  std::string text = detail::end_as_text(source) + " to " + detail::end_as_text(sink);
  if (error) {
    text += ": " + error.message();
    if (side != Side::none) text += " (at the " + std::string(to_string(side)) + ")";
  } else {
    text += ", " + detail::size_as_text(bytes);
    if (const auto first = chosen()) text += ": by " + std::string(to_string(*first));
  }
  text += "\n";
  std::string rows;
  std::string never;
  for (const ExplainedStrategy& entry : strategies) {
    if (entry.serves) rows += detail::row_as_text(entry, bytes);
    if (!entry.serves && entry.passed_over == Errc::not_for_this_pair)
      never += (never.empty() ? "" : ", ") + std::string(to_string(entry.strategy));
  }
  if (!rows.empty()) text += "   strategy         CPU copies  DMA copies  calls (+ end)  switches\n" + rows;
  if (!never.empty()) text += "-  never for this pair: " + never + "\n";
  if (route) text += detail::route_as_text(*this);
  return text;
}

}  // namespace zerocopy::inline ZEROCOPY_ABI
