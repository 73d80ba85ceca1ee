// tests/catch.hpp: Catch2 in whichever version is installed: 3 (everybody) or 2 (Debian 12).
// Tests use what both have: no SKIP (use WARN and return) and no string matchers.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#elif __has_include(<catch2/catch.hpp>)
#include <catch2/catch.hpp>
#else
#error "the tests need Catch2, version 2 or 3"
#endif
