# Language level, warnings, hardening and sanitizers, for every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# address (ASan + UBSan), thread, fuzzer (libFuzzer + ASan + UBSan; clang only) or empty.
set(BOTHY_SANITIZER "" CACHE STRING "address, thread, fuzzer or empty")

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
endif()

add_compile_options(-Wall -Wextra -Wshadow=local -Wnon-virtual-dtor -Woverloaded-virtual -Werror
                    -fno-strict-aliasing -ffile-prefix-map=${CMAKE_SOURCE_DIR}=.)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # GCC spells this one differently; clang's -Wshadow alone is close enough to "local".
  get_directory_property(options COMPILE_OPTIONS)
  list(TRANSFORM options REPLACE "-Wshadow=local" "-Wshadow-uncaptured-local")
  list(APPEND options -Wthread-safety)
  set_directory_properties(PROPERTIES COMPILE_OPTIONS "${options}")
endif()

if(BOTHY_SANITIZER STREQUAL "address")
  # UBSan's vptr check probes memory through a pipe, and takes running out of descriptors (which tests do
  # on purpose) for a bad object.
  add_compile_options(-fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all
                      -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(BOTHY_SANITIZER STREQUAL "thread")
  # GCC warns that TSan doesn't model fences; ours are documented where they stand.
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-Wno-tsan)
  endif()
  add_link_options(-fsanitize=thread)
elseif(BOTHY_SANITIZER STREQUAL "fuzzer")
  # clang 14 can't put -fsanitize=function's prologue before a coroutine.
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize=function
                      -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(BOTHY_SANITIZER)
  message(FATAL_ERROR "BOTHY_SANITIZER=${BOTHY_SANITIZER}: expected address, thread or fuzzer")
else()
  add_compile_options(-fstack-protector-strong $<$<CONFIG:Release>:-D_FORTIFY_SOURCE=2>)
  add_link_options(-Wl,-z,relro,-z,now,--as-needed,--gc-sections)
  add_compile_options(-ffunction-sections -fdata-sections)
endif()

# Executables that users run land here, whatever folder defines them.
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT BOTHY_SANITIZER)
  set(BOTHY_BIN_DIR ${CMAKE_SOURCE_DIR}/build/bin)
else()
  set(BOTHY_BIN_DIR ${CMAKE_BINARY_DIR}/bin)
endif()
