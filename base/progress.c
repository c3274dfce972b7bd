/* SPDX-License-Identifier: Apache-2.0
 *
 * progress.c - draws over one line of a terminal. The rate is an exponential mean of the
 * rates between drawings, so that the time left follows a change within a few seconds and
 * does not jump.
 */
#include "base/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"

#define DRAW_EVERY_NS (CLOCK_NS_PER_SECOND / 10)
#define NEWEST_SHARE 0.1 /* of one drawing in the rate: a half-life of about 0.7 s */
#define MAX_BAR_COLUMNS 30
#define MIN_BAR_COLUMNS 8
#define DEFAULT_COLUMNS 80
#define MAX_COLUMNS 200

static bool can_draw(void) {
    const char *terminal = getenv("TERM");
    return isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") != 0;
}

static size_t terminal_columns(void) {
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return DEFAULT_COLUMNS;
    return size.ws_col < MAX_COLUMNS ? size.ws_col : MAX_COLUMNS;
}

/* 1234567 -> "1,234,567" */
static void group_digits(int64_t value, char out[32]) {
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%" PRId64, value < 0 ? 0 : value);
    int used = 0;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            out[used++] = ',';
        out[used++] = digits[i];
    }
    out[used] = '\0';
}

/* 42 s, 3 min 5 s, 2 h 10 min */
static void show_seconds(double seconds, char out[48]) {
    int64_t s = seconds < 1e9 ? (int64_t)(seconds + 0.5) : INT64_C(1000000000);
    if (s < 60)
        snprintf(out, 48, "%" PRId64 " s", s);
    else if (s < 3600)
        snprintf(out, 48, "%" PRId64 " min %" PRId64 " s", s / 60, s % 60);
    else
        snprintf(out, 48, "%" PRId64 " h %" PRId64 " min", s / 3600, s / 60 % 60);
}

/* "[====>     ]  45 %", or nothing where there is no room for it. */
static void show_bar(const struct progress *p, size_t room, char *out,
                     size_t cap_bytes) {
    double share = (double)p->done / (double)p->total;
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    size_t n = room < MAX_BAR_COLUMNS ? room : MAX_BAR_COLUMNS;
    char bar[MAX_BAR_COLUMNS + 1];
    size_t n_full = (size_t)(share * (double)n);
    for (size_t i = 0; i < n; i++)
        bar[i] = i < n_full ? '=' : i == n_full ? '>' : ' ';
    bar[n] = '\0';
    if (n < MIN_BAR_COLUMNS)
        snprintf(out, cap_bytes, "%3d %%", (int)(share * 100));
    else
        snprintf(out, cap_bytes, "[%s] %3d %%", bar, (int)(share * 100));
}

size_t progress_render(const struct progress *p, int64_t now_ns, size_t columns,
                       char *out, size_t cap_bytes) {
    char done[32], total[40] = "", rate[48] = "", left[64] = "", bar[64] = "",
                   text[320];
    double elapsed = (double)(now_ns - p->start_ns) / (double)CLOCK_NS_PER_SECOND;
    group_digits(p->done, done);
    if (p->total > 0) {
        memcpy(total, " / ", 4);
        group_digits(p->total, total + 3);
    }
    if (p->rate > 0) {
        group_digits((int64_t)(p->rate + 0.5), rate);
        if (p->total > p->done) {
            show_seconds((double)(p->total - p->done) / p->rate, left);
            strncat(left, " left", sizeof left - strlen(left) - 1);
        }
    }
    if (*left == '\0')
        show_seconds(elapsed, left);
    int n = snprintf(text, sizeof text, "%s%s %s  %s%s%s", done, total, p->unit, rate,
                     *rate ? "/s  " : "", left);
    size_t n_fixed = strlen(p->what) + 1 + (size_t)n;
    if (p->total > 0)
        show_bar(p, columns > n_fixed + 11 ? columns - n_fixed - 11 : 0, bar,
                 sizeof bar);
    n = snprintf(out, cap_bytes, "%s %s%s%s", p->what, bar, *bar ? "  " : "", text);
    size_t n_out = n < 0 ? 0 : (size_t)n;
    if (n_out >= cap_bytes)
        n_out = cap_bytes ? cap_bytes - 1 : 0;
    if (n_out >= columns && columns > 0) {
        n_out = columns - 1; /* the last column would wrap the line */
        out[n_out] = '\0';
    }
    return n_out;
}

static void draw(struct progress *p, int64_t now_ns) {
    char line[MAX_COLUMNS + 1];
    size_t columns = terminal_columns();
    size_t n = progress_render(p, now_ns, columns, line, sizeof line);
    if (p->has_colour)
        fprintf(stderr, "\r\033[36m%s\033[0m\033[K", line);
    else
        fprintf(stderr, "\r%s%*s", line, (int)(columns - 1 - n), "");
    fflush(stderr);
}

void progress_begin(struct progress *p, const char *what, const char *unit,
                    int64_t total) {
    const char *no_colour = getenv("NO_COLOR");
    *p = (struct progress){.what = what, .unit = unit, .total = total};
    p->start_ns = p->drawn_ns = clock_now_ns();
    p->is_shown = can_draw();
    p->has_colour = !no_colour || *no_colour == '\0';
}

void progress_update(struct progress *p, int64_t done, int64_t total) {
    p->done = done;
    if (total > 0)
        p->total = total;
    if (!p->is_shown)
        return;
    int64_t now_ns = clock_now_ns();
    if (now_ns - p->drawn_ns < DRAW_EVERY_NS)
        return;
    double newest = (double)(done - p->drawn_done) * (double)CLOCK_NS_PER_SECOND /
                    (double)(now_ns - p->drawn_ns);
    p->rate = p->rate > 0 ? p->rate + NEWEST_SHARE * (newest - p->rate) : newest;
    p->drawn_ns = now_ns;
    p->drawn_done = done;
    draw(p, now_ns);
}

void progress_end(struct progress *p) {
    if (!p->is_shown)
        return;
    if (p->has_colour)
        fputs("\r\033[K", stderr);
    else
        fprintf(stderr, "\r%*s\r", (int)terminal_columns() - 1, "");
    fflush(stderr);
    p->is_shown = false;
}
