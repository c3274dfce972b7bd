/* SPDX-License-Identifier: Apache-2.0
 *
 * fail.cc - one line on stderr that says what went wrong, and where in which kernel.
 *
 * Kernels are static functions, which the dynamic loader knows nothing of; their names are
 * in .symtab of the object that they lie in, and are looked up there, when a line is due.
 */
#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cuda/emulation/internal.h"

static void say(const char *format, va_list arguments) {
    char where[700], what[1200];
    emulation_where(where, sizeof where);
    vsnprintf(what, sizeof what, format, arguments);
    fprintf(stderr, "cuda emulation: %s%s\n", where, what);
    fflush(stderr);
}

void emulation_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
    abort();
}

void emulation_warn(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
}

/* ---- names -------------------------------------------------------------------------- */

/* The function that covers address (of the file's own count) in an ELF file of n bytes. */
static const char *find_symbol(const char *file, size_t n_bytes, uint64_t address) {
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)file;
    if (n_bytes < sizeof *header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
        header->e_shoff + header->e_shnum * sizeof(Elf64_Shdr) > n_bytes)
        return nullptr;
    const Elf64_Shdr *sections = (const Elf64_Shdr *)(file + header->e_shoff);
    for (int i = 0; i < header->e_shnum; i++) {
        const Elf64_Shdr *s = &sections[i];
        if (s->sh_type != SHT_SYMTAB || s->sh_offset + s->sh_size > n_bytes)
            continue;
        const Elf64_Sym *symbols = (const Elf64_Sym *)(file + s->sh_offset);
        for (size_t j = 0; j < s->sh_size / sizeof *symbols; j++)
            if (ELF64_ST_TYPE(symbols[j].st_info) == STT_FUNC &&
                address >= symbols[j].st_value &&
                address < symbols[j].st_value + symbols[j].st_size)
                return file + sections[s->sh_link].sh_offset + symbols[j].st_name;
    }
    return nullptr;
}

/* "void f<(kind)1>(int)" to "f<(kind)1>". */
static void shorten(const char *symbol, char *name, size_t name_bytes) {
    const char *begin = strncmp(symbol, "void ", 5) == 0 ? symbol + 5 : symbol;
    int depth = 0;
    const char *end = begin;
    for (; *end && (*end != '(' || depth > 0); end++)
        depth += *end == '<' ? 1 : *end == '>' ? -1 : 0;
    snprintf(name, name_bytes, "%.*s", (int)(end - begin), begin);
}

void emulation_symbol(const void *function, char *name, size_t name_bytes) {
    Dl_info info;
    struct stat stat;
    snprintf(name, name_bytes, "kernel %p", function);
    if (!dladdr(function, &info) || !info.dli_fname)
        return;
    int fd = open(info.dli_fname, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &stat) != 0) {
        if (fd >= 0)
            close(fd);
        return;
    }
    size_t n_bytes = (size_t)stat.st_size;
    void *file = mmap(nullptr, n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (file == MAP_FAILED)
        return;
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)file;
    uint64_t base = header->e_type == ET_DYN ? (uint64_t)info.dli_fbase : 0;
    const char *symbol =
        find_symbol((const char *)file, n_bytes, (uint64_t)function - base);
    if (symbol) {
        int status = 0;
        char *plain = abi::__cxa_demangle(symbol, nullptr, nullptr, &status);
        shorten(plain ? plain : symbol, name, name_bytes);
        free(plain);
    }
    munmap(file, n_bytes);
}
