// expect: conversion from .*int.* to .*BorrowedFd
// Borrowed is said, never guessed.
#include <zerocopy/fd.hpp>

zerocopy::BorrowedFd fd = 3;
