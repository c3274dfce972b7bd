/* SPDX-License-Identifier: Apache-2.0 */
#include "base/format.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

enum format format_of(const char *name) {
    if (!name)
        return FORMAT_AUTO;
    if (strcmp(name, "jsonl") == 0)
        return FORMAT_JSONL;
    if (strcmp(name, "csv") == 0)
        return FORMAT_CSV;
    return strcmp(name, "lines") == 0 ? FORMAT_LINES : FORMAT_AUTO;
}

static bool has_ending(const char *path, const char *ending) {
    size_t n = path ? strlen(path) : 0, m = strlen(ending);
    return n >= m && strcasecmp(path + n - m, ending) == 0;
}

char format_separator(const char *path) {
    return has_ending(path, ".tsv") ? '\t' : ',';
}

enum status format_check(const char *name, const char *data, size_t n_bytes,
                         size_t *n_mark, struct error *err) {
    const unsigned char *p = (const unsigned char *)data;
    *n_mark = n_bytes >= 3 && p[0] == 0xEF && p[1] == 0xBB && p[2] == 0xBF ? 3 : 0;
    if (n_bytes >= 2 &&
        ((p[0] == 0xFF && p[1] == 0xFE) || (p[0] == 0xFE && p[1] == 0xFF)))
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s is UTF-16; expected UTF-8 (iconv)", name);
    if (n_bytes >= 2 && p[0] == 0x1F && p[1] == 0x8B)
        return error_set(err, STATUS_UNSUPPORTED, "%s is compressed; pipe it in (zcat)",
                         name);
    return STATUS_OK;
}

/* Does the first line look like a CSV header that names the text column? */
static bool is_csv_header(const char *p, size_t n_bytes, const char *text_field,
                          char separator) {
    const char *end = p + n_bytes;
    const char *newline = memchr(p, '\n', n_bytes);
    size_t n = strlen(text_field);
    end = newline ? newline : end;
    if (!memchr(p, separator, (size_t)(end - p)))
        return false;
    while (p < end) {
        const char *stop = memchr(p, separator, (size_t)(end - p));
        if (!stop)
            stop = end;
        size_t len = (size_t)(stop - p);
        while (len && (p[len - 1] == '\r' || p[len - 1] == '"'))
            len--;
        const char *from = p;
        if (len && *from == '"') {
            from++;
            len--;
        }
        if (len == n && memcmp(from, text_field, n) == 0)
            return true;
        p = stop + (stop < end);
    }
    return false;
}

enum format format_guess(const char *path, const char *data, size_t n_bytes,
                         const char *text_field, char separator) {
    if (has_ending(path, ".jsonl") || has_ending(path, ".ndjson"))
        return FORMAT_JSONL;
    if (has_ending(path, ".csv") || has_ending(path, ".tsv"))
        return FORMAT_CSV;
    if (has_ending(path, ".txt"))
        return FORMAT_LINES;
    size_t at = 0;
    while (at < n_bytes && data[at] && strchr(" \t\r\n", data[at]))
        at++;
    if (at < n_bytes && data[at] == '{')
        return FORMAT_JSONL;
    return n_bytes && is_csv_header(data, n_bytes, text_field, separator)
               ? FORMAT_CSV
               : FORMAT_LINES;
}
