/* SPDX-License-Identifier: Apache-2.0
 *
 * svg.h - draws latency against throughput, one line a percentile, as a picture that stands
 * alone: light and dark by the reader's setting, no scripts, no fonts of its own.
 */
#ifndef VIGIL_BENCH_SVG_H
#define VIGIL_BENCH_SVG_H

#include <stddef.h>

#include "base/memory.h"

#define SVG_LINES 3

struct svg_point {
    double x;            /* texts answered a second */
    double y[SVG_LINES]; /* ms; 0: none */
};

struct svg_chart {
    const char *title, *subtitle, *x_title, *y_title;
    const char *names[SVG_LINES]; /* of the lines, lowest first */
    const struct svg_point *points;
    size_t n_points;
    double limit; /* a vertical line where throughput ends; 0: none */
    const char *limit_name;
};

/* Appends the picture to *out. STATUS_INVALID when no point can be drawn. */
enum status svg_draw(const struct svg_chart *chart, struct buffer *out,
                     struct error *err);

#endif
