/* SPDX-License-Identifier: Apache-2.0
 *
 * svg.c - x is linear from 0, y is logarithmic in steps of 1, 2, 5.
 */
#include "bench/svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    WIDTH = 760,
    HEIGHT = 456,
    LEFT = 72,
    RIGHT = 84,
    TOP = 92,
    BOTTOM = 64,
    MAX_TICKS = 7,
    LABEL_GAP = 16 /* least distance of two labels */
};

struct scale {
    double x_end, x_step;
    double y_low, y_high; /* log10 */
};

/* Plain rules first: not every viewer knows CSS variables or media queries. */
#define COLOURS(paper, ink, soft, grid, c0, c1, c2)                                    \
    ".p{fill:" paper "} circle{fill:" paper "}\n"                                      \
    "text{fill:" soft "} .t{fill:" ink "}\n"                                           \
    ".g{stroke:" grid "} .a,.e{stroke:" soft "}\n"                                     \
    ".c0{stroke:" c0 "} .c1{stroke:" c1 "} .c2{stroke:" c2 "}\n"                       \
    ".n0{fill:" c0 "} .n1{fill:" c1 "} .n2{fill:" c2 "}\n"
static const char STYLE[] =
    "<style>\n"
    "text{font:13px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif}\n"
    ".t{font-size:17px;font-weight:600} .n0,.n1,.n2{font-weight:600}\n"
    ".e{stroke-dasharray:4 4} circle{stroke-width:2}\n"
    ".l{fill:none;stroke-width:2.25;stroke-linejoin:round;stroke-linecap:round}"
    "\n" COLOURS(
        "#ffffff", "#1c2024", "#60646c", "#e4e7eb", "#0b7285", "#b35900",
        "#a61e4d") "@media (prefers-color-scheme:dark){\n" COLOURS("#16181b", "#eceef0",
                                                                   "#a0a6ad", "#2e3238",
                                                                   "#4cc9dd", "#ffa94d",
                                                                   "#f783ac") "}\n</"
                                                                              "style>"
                                                                              "\n";

/* The step of 1, 2 or 5 times a power of ten that cuts span into at most MAX_TICKS. */
static double nice_step(double span) {
    double step = pow(10, floor(log10(span / MAX_TICKS)));
    const double factors[] = {1, 2, 5, 10};
    for (size_t i = 0; i < 4; i++)
        if (span / (step * factors[i]) <= MAX_TICKS)
            return step * factors[i];
    return step * 10;
}

/* The 1-2-5 number at or below (above) a value. */
static double nice_bound(double value, bool is_above) {
    const double factors[] = {1, 2, 5, 10};
    double power = pow(10, floor(log10(value) + 1e-9));
    for (size_t i = 0; i < 4; i++)
        if (is_above ? power * factors[i] >= value * (1 - 1e-9)
                     : i < 3 && power * factors[i + 1] > value * (1 + 1e-9))
            return power * factors[i];
    return power;
}

static bool find_scale(const struct svg_chart *chart, struct scale *s) {
    double x = chart->limit, low = INFINITY, high = 0;
    for (size_t i = 0; i < chart->n_points; i++) {
        const struct svg_point *p = &chart->points[i];
        x = fmax(x, p->x);
        for (size_t j = 0; j < SVG_LINES; j++) {
            if (!(p->y[j] > 0) || !isfinite(p->y[j]))
                continue;
            low = fmin(low, p->y[j]);
            high = fmax(high, p->y[j]);
        }
    }
    if (!(x > 0) || !isfinite(x) || high <= 0)
        return false;
    s->x_step = nice_step(x);
    s->x_end = ceil(x / s->x_step - 1e-9) * s->x_step;
    s->y_low = log10(nice_bound(low * 0.95, false));
    s->y_high = log10(nice_bound(high * 1.05, true));
    if (s->y_high - s->y_low < 0.5)
        s->y_high = s->y_low + 1;
    return true;
}

static double at_x(const struct scale *s, double x) {
    return LEFT + (WIDTH - LEFT - RIGHT) * x / s->x_end;
}

static double at_y(const struct scale *s, double y) {
    double part = (log10(y) - s->y_low) / (s->y_high - s->y_low);
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part;
}

/* Text from outside, with what XML minds replaced. */
static enum status put_text(struct buffer *b, const char *text, struct error *err) {
    enum status status = STATUS_OK;
    for (; *text && !status; text++)
        if (*text == '<' || *text == '&')
            status = buffer_printf(b, err, *text == '<' ? "&lt;" : "&amp;");
        else
            status = buffer_append(b, text, 1, err);
    return status;
}

static enum status put_label(struct buffer *b, const char *attributes, double x,
                             double y, const char *text, struct error *err) {
    enum status status =
        buffer_printf(b, err, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes);
    if (!status)
        status = put_text(b, text, err);
    return status ? status : buffer_printf(b, err, "</text>\n");
}

static enum status put_line(struct buffer *b, const char *class, double x1, double y1,
                            double x2, double y2, struct error *err) {
    return buffer_printf(
        b, err,
        "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", class,
        x1, y1, x2, y2);
}

/* 12000 as 12,000; 0.5 as it is. */
static void format_number(double value, char *out, size_t cap_bytes) {
    char digits[32];
    snprintf(digits, sizeof digits, "%.10g", value);
    size_t n = strcspn(digits, "."), at = 0;
    for (size_t i = 0; digits[i] && at + 2 < cap_bytes; i++) {
        if (i > 0 && i < n && (n - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
}

static enum status draw_axes(const struct svg_chart *chart, const struct scale *s,
                             struct buffer *b, struct error *err) {
    const double factors[] = {1, 2, 5};
    double bottom = HEIGHT - BOTTOM, right = WIDTH - RIGHT;
    char label[32];
    enum status status = STATUS_OK;
    for (int power = (int)floor(s->y_low); power <= s->y_high && !status; power++)
        for (size_t i = 0; i < 3 && !status; i++) {
            double value = pow(10, power) * factors[i];
            if (log10(value) < s->y_low - 1e-6 || log10(value) > s->y_high + 1e-6)
                continue;
            double y = at_y(s, value);
            format_number(value, label, sizeof label);
            status = put_line(b, "g", LEFT, y, right, y, err);
            if (!status)
                status =
                    put_label(b, "text-anchor=\"end\"", LEFT - 10, y + 4.5, label, err);
        }
    for (int i = 0; i * s->x_step <= s->x_end * (1 + 1e-9) && !status; i++) {
        double x = at_x(s, i * s->x_step);
        format_number(i * s->x_step, label, sizeof label);
        status = put_line(b, "a", x, bottom, x, bottom + 5, err);
        if (!status)
            status = put_label(b, "text-anchor=\"middle\"", x, bottom + 22, label, err);
    }
    if (!status)
        status = put_line(b, "a", LEFT, bottom, right, bottom, err);
    if (!status)
        status = put_label(b, "text-anchor=\"middle\"", (LEFT + right) / 2, HEIGHT - 16,
                           chart->x_title, err);
    return status ? status : put_label(b, "", LEFT - 56, TOP - 18, chart->y_title, err);
}

static enum status draw_limit(const struct svg_chart *chart, const struct scale *s,
                              struct buffer *b, struct error *err) {
    if (!(chart->limit > 0))
        return STATUS_OK;
    double x = at_x(s, chart->limit);
    enum status status = put_line(b, "e", x, TOP, x, HEIGHT - BOTTOM, err);
    return status ? status
                  : put_label(b, "text-anchor=\"end\"", x + 6, TOP - 8,
                              chart->limit_name, err);
}

static enum status draw_line(const struct svg_chart *chart, const struct scale *s,
                             size_t line, struct buffer *b, struct error *err) {
    const char *separator = "";
    enum status status =
        buffer_printf(b, err, "<polyline class=\"l c%zu\" points=\"", line);
    for (size_t i = 0; i < chart->n_points && !status; i++, separator = " ")
        if (chart->points[i].y[line] > 0)
            status = buffer_printf(b, err, "%s%.1f,%.1f", separator,
                                   at_x(s, chart->points[i].x),
                                   at_y(s, chart->points[i].y[line]));
    if (!status)
        status = buffer_printf(b, err, "\"/>\n");
    for (size_t i = 0; i < chart->n_points && !status; i++) {
        const struct svg_point *p = &chart->points[i];
        if (p->y[line] > 0)
            status = buffer_printf(
                b, err,
                "<circle class=\"c%zu\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>%s at "
                "%.0f: %.2f</title></circle>\n",
                line, at_x(s, p->x), at_y(s, p->y[line]), chart->names[line], p->x,
                p->y[line]);
    }
    return status;
}

/* Names beside the rightmost point, apart from each other: past it a server that is overrun
 * answers less, and the lines turn back. */
static enum status draw_names(const struct svg_chart *chart, const struct scale *s,
                              struct buffer *b, struct error *err) {
    const struct svg_point *last = &chart->points[0];
    for (size_t i = 1; i < chart->n_points; i++)
        if (chart->points[i].x >= last->x)
            last = &chart->points[i];
    double previous = HEIGHT;
    enum status status = STATUS_OK;
    for (size_t line = 0; line < SVG_LINES && !status; line++) {
        char attributes[32];
        if (!(last->y[line] > 0))
            continue;
        double y = fmin(at_y(s, last->y[line]) + 4.5, previous - LABEL_GAP);
        previous = y;
        snprintf(attributes, sizeof attributes, "class=\"n%zu\"", line);
        status =
            put_label(b, attributes, at_x(s, last->x) + 12, y, chart->names[line], err);
    }
    return status;
}

enum status svg_draw(const struct svg_chart *chart, struct buffer *out,
                     struct error *err) {
    struct scale s;
    if (chart->n_points == 0 || !find_scale(chart, &s))
        return error_set(err, STATUS_INVALID, "there is no answered request to draw");
    enum status status = buffer_printf(
        out, err,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
        "height=\"%d\" role=\"img\">\n<title>",
        WIDTH, HEIGHT, WIDTH, HEIGHT);
    if (!status)
        status = put_text(out, chart->title, err);
    if (!status)
        status = buffer_printf(out, err,
                               "</title>\n%s<rect width=\"100%%\" height=\"100%%\" "
                               "class=\"p\"/>\n",
                               STYLE);
    if (!status)
        status = put_label(out, "class=\"t\"", LEFT - 56, 28, chart->title, err);
    if (!status)
        status = put_label(out, "", LEFT - 56, 46, chart->subtitle, err);
    if (!status)
        status = draw_axes(chart, &s, out, err);
    if (!status)
        status = draw_limit(chart, &s, out, err);
    for (size_t line = 0; line < SVG_LINES && !status; line++)
        status = draw_line(chart, &s, line, out, err);
    if (!status)
        status = draw_names(chart, &s, out, err);
    return status ? status : buffer_printf(out, err, "</svg>\n");
}
