# cmake -DSOURCE=file.cpp -DINCLUDE=dir -DCXX=compiler -P check.cmake
file(STRINGS ${SOURCE} expected REGEX "^// expect: ")
string(REGEX REPLACE "^// expect: *" "" expected "${expected}")
if(NOT expected)
  message(FATAL_ERROR "${SOURCE} has no line '// expect: REGEX'")
endif()

execute_process(COMMAND ${CXX} -std=c++20 -I${INCLUDE} -c ${SOURCE} -o /dev/null
  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(result EQUAL 0)
  message(FATAL_ERROR "${SOURCE} compiles, and must not")
elseif(NOT output MATCHES "${expected}")
  message(FATAL_ERROR "the compiler does not say '${expected}', but:\n${output}")
endif()
