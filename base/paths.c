/* SPDX-License-Identifier: Apache-2.0
 *
 * paths.c - finds files from /proc/self/exe, which is right whatever argv[0] and the
 * working directory are.
 */
#include "base/paths.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum status paths_beside(const char *name, char *out, size_t cap_bytes,
                         struct error *err) {
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0)
        return error_set(err, STATUS_IO, "cannot read /proc/self/exe: %s",
                         strerror(errno));
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    int used = snprintf(out, cap_bytes, "%s/%s", self, name);
    if (used < 0 || (size_t)used >= cap_bytes)
        return error_set(err, STATUS_LIMIT, "the path of %s is over %zu bytes", name,
                         cap_bytes);
    return STATUS_OK;
}

enum status paths_default_model(char *out, size_t cap_bytes, struct error *err) {
    /* build/bin/vigil-serve, build/asan/bin/vigil-serve, PREFIX/bin/vigil-serve */
    static const char *const from_program[] = {
        "../share/vigil/weights/ade", "../../weights/ade", "../../../weights/ade"};
    struct stat facts;
    int used = snprintf(out, cap_bytes, "weights/ade");
    if (used > 0 && (size_t)used < cap_bytes && stat(out, &facts) == 0 &&
        S_ISDIR(facts.st_mode))
        return STATUS_OK;
    for (size_t i = 0; i < sizeof from_program / sizeof from_program[0]; i++) {
        enum status status = paths_beside(from_program[i], out, cap_bytes, err);
        if (status != STATUS_OK)
            return status;
        if (stat(out, &facts) == 0 && S_ISDIR(facts.st_mode))
            return STATUS_OK;
    }
    return error_set(err, STATUS_NOT_FOUND,
                     "no default model: expected weights/ade here or in %s",
                     "../share/vigil beside the program; name one with --model DIR");
}
