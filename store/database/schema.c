/* SPDX-License-Identifier: Apache-2.0
 *
 * schema.c - store/database/schema/NNN.sql, put into the program by the assembler: migrate.c has the
 * list.
 */

__asm__(".section .rodata\n"
        ".global migrate_001\n"
        "migrate_001:\n"
        ".incbin \"store/database/schema/001.sql\"\n"
        ".byte 0\n"
        ".previous\n");

extern const char migrate_001[]; /* a translation unit is never empty */
