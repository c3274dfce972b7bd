/* SPDX-License-Identifier: Apache-2.0
 *
 * log.c - builds a line in place and writes it at once. No allocation, no lock, no stdio.
 *
 * A field is appended whole or not at all: what does not fit leaves only cut=true behind, for
 * which room is kept. The same escapes serve both formats, since \uXXXX and \" mean the same
 * in logfmt and in JSON.
 */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

#define TAIL_BYTES 32 /* `,"cut":true}` and the newline */
#define MESSAGE_BYTES 512

/* The one mutable state: set once at the start, read by every thread. */
static atomic_int minimum_level = LOG_LEVEL_INFO;
static atomic_int line_format = LOG_FORMAT_LOGFMT;
static atomic_int log_fd = STDERR_FILENO;
static atomic_bool is_journal;

static const char *const level_names[] = {"debug", "info", "warning", "error"};

enum log_level log_level_of(const char *name) {
    int level = LOG_LEVEL_ERROR;
    while (level > LOG_LEVEL_DEBUG && strcmp(level_names[level], name) != 0)
        level--;
    return (enum log_level)level;
}

enum log_format log_format_of(const char *name) {
    return strcmp(name, "json") == 0 ? LOG_FORMAT_JSON : LOG_FORMAT_LOGFMT;
}

/* systemd names the device and inode of the stream that leads to the journal. */
static bool leads_to_journal(int fd) {
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat facts;
    char expected[64];
    if (!stream || fstat(fd, &facts) != 0)
        return false;
    snprintf(expected, sizeof expected, "%" PRIuMAX ":%" PRIuMAX,
             (uintmax_t)facts.st_dev, (uintmax_t)facts.st_ino);
    return strcmp(stream, expected) == 0;
}

void log_configure(enum log_level minimum, enum log_format format, int fd) {
    atomic_store(&minimum_level, (int)minimum);
    atomic_store(&line_format, (int)format);
    atomic_store(&log_fd, fd);
    atomic_store(&is_journal, leads_to_journal(fd));
}

bool log_is_on(enum log_level level) {
    return (int)level >= atomic_load(&minimum_level);
}

static bool append(struct log_line *line, const char *data, size_t n_bytes) {
    if (n_bytes > LOG_LINE_BYTES - TAIL_BYTES - line->n_bytes)
        return false;
    memcpy(line->text + line->n_bytes, data, n_bytes);
    line->n_bytes += n_bytes;
    return true;
}

static bool append_text(struct log_line *line, const char *text) {
    return append(line, text, strlen(text));
}

/* The code point at text[0 .. n_bytes) and its length; 0xFFFD and 1 when it is not UTF-8. */
static uint32_t decode(const char *text, size_t n_bytes, size_t *n_used) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t first = (uint8_t)text[0];
    size_t n = first < 0x80   ? 1
               : first < 0xC2 ? 0
               : first < 0xE0 ? 2
               : first < 0xF0 ? 3
                              : 4;
    uint32_t code = n == 1 ? first : first & (0xFFu >> (n + 1));
    *n_used = 1;
    if (n == 0 || first > 0xF4 || n > n_bytes)
        return 0xFFFD;
    for (size_t i = 1; i < n; i++) {
        if (((uint8_t)text[i] & 0xC0) != 0x80)
            return 0xFFFD;
        code = code << 6 | ((uint8_t)text[i] & 0x3F);
    }
    if (code < least[n] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
        return 0xFFFD;
    *n_used = n;
    return code;
}

/* Control characters of both kinds, line ends, and what turns the direction of writing. */
static bool is_dangerous(uint32_t code) {
    return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x061C ||
           code == 0x200E || code == 0x200F || (code >= 0x2028 && code <= 0x202E) ||
           (code >= 0x2066 && code <= 0x2069) || code == 0xFEFF || code == 0xFFFD;
}

static bool append_quoted(struct log_line *line, const char *value, size_t n_bytes) {
    bool is_room = append(line, "\"", 1);
    for (size_t i = 0; i < n_bytes && is_room;) {
        size_t n_used;
        uint32_t code = decode(value + i, n_bytes - i, &n_used);
        if (code == '"' || code == '\\') {
            const char escaped[] = {'\\', (char)code};
            is_room = append(line, escaped, sizeof escaped);
        } else if (is_dangerous(code)) {
            char escaped[16];
            int n = code == '\n'
                        ? snprintf(escaped, sizeof escaped, "\\n")
                        : snprintf(escaped, sizeof escaped, "\\u%04" PRIx32, code);
            is_room = append(line, escaped, (size_t)n);
        } else {
            is_room = append(line, value + i, n_used);
        }
        i += n_used;
    }
    return is_room && append(line, "\"", 1);
}

/* What logfmt may hold without quotes. */
static bool is_bare(const char *value, size_t n_bytes) {
    for (size_t i = 0; i < n_bytes; i++)
        if (value[i] <= ' ' || value[i] > '~' || value[i] == '"' || value[i] == '=' ||
            value[i] == '\\')
            return false;
    return n_bytes > 0;
}

static bool append_key(struct log_line *line, const char *key) {
    if (line->format == LOG_FORMAT_JSON)
        return (line->text[line->n_bytes - 1] == '{' || append(line, ",", 1)) &&
               append(line, "\"", 1) && append_text(line, key) &&
               append(line, "\":", 2);
    return (line->n_bytes == 0 || line->text[line->n_bytes - 1] == '>' ||
            append(line, " ", 1)) &&
           append_text(line, key) && append(line, "=", 1);
}

/* Takes a field that did not fit back out. */
static void settle(struct log_line *line, size_t n_before, bool is_room) {
    if (is_room)
        return;
    line->n_bytes = n_before;
    line->is_cut = true;
}

/* A field whose value stands as it is. */
static void append_plain(struct log_line *line, const char *key, const char *value) {
    if (!line->is_on)
        return;
    size_t n_before = line->n_bytes;
    settle(line, n_before, append_key(line, key) && append_text(line, value));
}

void log_bytes(struct log_line *line, const char *key, const char *value,
               size_t n_bytes) {
    if (!line->is_on)
        return;
    size_t n_before = line->n_bytes;
    bool is_room = append_key(line, key);
    if (is_room && line->format == LOG_FORMAT_LOGFMT && is_bare(value, n_bytes))
        is_room = append(line, value, n_bytes);
    else if (is_room)
        is_room = append_quoted(line, value, n_bytes);
    settle(line, n_before, is_room);
}

void log_string(struct log_line *line, const char *key, const char *value) {
    log_bytes(line, key, value ? value : "", value ? strlen(value) : 0);
}

void log_integer(struct log_line *line, const char *key, int64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    append_plain(line, key, text);
}

void log_number(struct log_line *line, const char *key, double value) {
    char text[40];
    snprintf(text, sizeof text, "%.6g", value);
    append_plain(line, key, isfinite(value) ? text : "null");
}

void log_boolean(struct log_line *line, const char *key, bool value) {
    append_plain(line, key, value ? "true" : "false");
}

void log_begin(struct log_line *line, enum log_level level, const char *event) {
    static const char *const priorities[] = {"<7>", "<6>", "<4>", "<3>"};
    line->n_bytes = 0;
    line->is_cut = false;
    line->is_on = log_is_on(level);
    if (!line->is_on)
        return;
    line->format = (enum log_format)atomic_load(&line_format);
    if (atomic_load(&is_journal))
        append_text(line, priorities[level]);
    if (line->format == LOG_FORMAT_JSON)
        append(line, "{", 1);
    char time[CLOCK_UTC_BYTES];
    clock_format_utc(clock_wall_ns(), time);
    log_string(line, "time", time);
    log_string(line, "level", level_names[level]);
    log_string(line, "event", event);
}

void log_end(struct log_line *line) {
    if (!line->is_on)
        return;
    bool is_json = line->format == LOG_FORMAT_JSON;
    const char *tail = line->is_cut ? (is_json ? ",\"cut\":true}\n" : " cut=true\n")
                                    : (is_json ? "}\n" : "\n");
    size_t n_tail = strlen(tail);
    memcpy(line->text + line->n_bytes, tail, n_tail); /* TAIL_BYTES were kept for it */
    line->n_bytes += n_tail;
    ssize_t n;
    do
        n = write(atomic_load(&log_fd), line->text, line->n_bytes);
    while (n < 0 && errno == EINTR);
    line->is_on = false;
}

void log_message(enum log_level level, const char *event, const char *format, ...) {
    if (!log_is_on(level))
        return;
    char message[MESSAGE_BYTES];
    struct log_line line;
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    log_begin(&line, level, event);
    log_string(&line, "message", message);
    log_end(&line);
}
