/* SPDX-License-Identifier: Apache-2.0
 *
 * openapi.c - server/openapi.json, put into the program by the assembler.
 */
#include "server/service.h"

__asm__(".section .rodata\n"
        ".global service_openapi\n"
        ".global service_openapi_end\n"
        "service_openapi:\n"
        ".incbin \"server/openapi.json\"\n"
        "service_openapi_end:\n"
        ".byte 0\n"
        ".previous\n");
