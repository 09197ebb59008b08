/* SPDX-License-Identifier: Apache-2.0
 *
 * /openapi.yaml: the contract, as built into this binary.
 */
#include "api/internal.h"

__asm__(".section .rodata\n"
        "mr_openapi_begin: .incbin \"" MR_OPENAPI_PATH "\"\n"
        "mr_openapi_end: .byte 0\n"
        ".previous\n");
extern const char mr_openapi_begin[];
extern const char mr_openapi_end[];

void mr_handle_openapi(struct mr_request *req)
{
    /* One array for the compiler, two symbols for the assembler. */
    size_t bytes = (size_t)((uintptr_t)mr_openapi_end - (uintptr_t)mr_openapi_begin);
    /* Never written: libmicrohttpd's parameter just lacks the const. */
    void *text = (void *)(uintptr_t)mr_openapi_begin;

    mr_reply(req, MHD_HTTP_OK,
             MHD_create_response_from_buffer(bytes, text, MHD_RESPMEM_PERSISTENT));
    mr_reply_header(req, "Content-Type", "application/yaml");
}
