/* SPDX-License-Identifier: Apache-2.0
 *
 * log.h - one line a record on stderr, logfmt or JSON, never with the text of a post.
 *
 *   struct log_line line;
 *   log_begin(&line, LOG_LEVEL_INFO, "request");
 *   log_string(&line, "route", "/v1/classify");
 *   log_integer(&line, "code", 200);
 *   log_end(&line);
 *
 * A line is built on the caller's stack and leaves in a single write(2) of fewer than 4096
 * bytes, which a pipe takes whole: lines of several threads never mix. Values are escaped, so
 * that whoever chooses one (a path, a header) can neither begin a line of his own nor reach
 * the terminal with escape sequences. Under systemd a line starts with its priority, "<6>".
 *
 * Threads: any, at any time; log_configure first.
 * Call order: log_begin (log_string | log_integer | log_number | log_boolean)* log_end
 */
#ifndef VIGIL_BASE_LOG_H
#define VIGIL_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON };

/* For an option table: OPTION_CHOICE with these choices, read back by the functions below. */
#define LOG_LEVEL_CHOICES "debug|info|warning|error"
#define LOG_FORMAT_CHOICES "logfmt|json"
enum log_level log_level_of(const char *name);
enum log_format log_format_of(const char *name);

#define LOG_LINE_BYTES 2048

struct log_line {
    size_t n_bytes;
    bool is_on;  /* its level is logged at all */
    bool is_cut; /* a field did not fit and was left out */
    enum log_format format;
    char text[LOG_LINE_BYTES];
};

/* Until it is called: level info, logfmt, file descriptor 2. */
void log_configure(enum log_level minimum, enum log_format format, int fd);
bool log_is_on(enum log_level level);

/* event is a constant of the program, as are all keys: letters, digits, '_' and '.'. */
void log_begin(struct log_line *line, enum log_level level, const char *event);
void log_string(struct log_line *line, const char *key, const char *value);
void log_bytes(struct log_line *line, const char *key, const char *value,
               size_t n_bytes);
void log_integer(struct log_line *line, const char *key, int64_t value);
void log_number(struct log_line *line, const char *key, double value);
void log_boolean(struct log_line *line, const char *key, bool value);
void log_end(struct log_line *line);

/* A record with one field, "message", made by the format. */
void log_message(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
