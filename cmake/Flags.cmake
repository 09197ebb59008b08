# SPDX-License-Identifier: Apache-2.0
# mooring_flags: every warning, hardening and sanitizer flag, for all targets.
# Each flag is probed: clang 14 lacks some of gcc's.

add_library(mooring_flags INTERFACE)
target_compile_definitions(mooring_flags INTERFACE _GNU_SOURCE MR_VERSION="${PROJECT_VERSION}")
target_include_directories(mooring_flags INTERFACE ${PROJECT_SOURCE_DIR})

function(mr_add_flag flag)
    string(MAKE_C_IDENTIFIER "MR_HAVE${flag}" var)
    check_c_compiler_flag(${flag} ${var})
    if(${var})
        target_compile_options(mooring_flags INTERFACE ${flag})
    endif()
endfunction()

foreach(flag
        -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wformat=2 -Wundef -Wvla -Wcast-qual
        -Wcast-align=strict -Wpointer-arith -Wwrite-strings -Wstrict-prototypes -Wmissing-prototypes
        -Wold-style-definition -Wswitch-enum -Wimplicit-fallthrough -Wnull-dereference
        -Wdouble-promotion -Wduplicated-cond -Wduplicated-branches -Wlogical-op -Walloca
        -Wframe-larger-than=32768
        -fno-common -fno-strict-aliasing -fstack-protector-strong)
    mr_add_flag(${flag})
endforeach()
if(MR_WERROR)
    target_compile_options(mooring_flags INTERFACE -Werror)
endif()

if(MR_SANITIZE)
    target_compile_options(mooring_flags INTERFACE
        -fsanitize=${MR_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
    target_link_options(mooring_flags INTERFACE -fsanitize=${MR_SANITIZE})
else()
    foreach(flag -fstack-clash-protection -fcf-protection=full -ftrivial-auto-var-init=zero)
        mr_add_flag(${flag})
    endforeach()
    target_compile_options(mooring_flags INTERFACE
        $<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE> $<$<NOT:$<CONFIG:Debug>>:-D_FORTIFY_SOURCE=3>)
endif()
if(MR_FAULTS)
    target_compile_definitions(mooring_flags INTERFACE MR_FAULTS)
endif()
if(MR_FUZZ)
    # The libraries need coverage feedback too, or the fuzzer is blind.
    target_compile_options(mooring_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

set(CMAKE_POSITION_INDEPENDENT_CODE ON)
include(CheckPIESupported)
check_pie_supported(LANGUAGES C)
target_link_options(mooring_flags INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack)
