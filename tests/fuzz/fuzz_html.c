/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_html.c - HTML to text: never longer, no white space at the ends or folded wrongly, and
 * text that looks like none of it stays as it is.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/net/html.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void require(bool is_true) {
    if (!is_true)
        abort();
}

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    struct arena arena = {.max_bytes = 1 << 22};
    struct view html = view_of((const char *)data, n_bytes), out;
    require(html_to_text(html, &arena, &out, NULL) == STATUS_OK);
    require(out.n_bytes <= n_bytes && out.data[out.n_bytes] == 0);
    if (out.n_bytes > 0)
        require(!is_space(out.data[0]) && !is_space(out.data[out.n_bytes - 1]));
    bool is_plain = true;
    for (size_t i = 0; i + 1 < out.n_bytes; i++)
        if (is_space(out.data[i]))
            require(out.data[i] == '\n'
                        ? out.data[i + 1] != ' '
                        : out.data[i] == ' ' && !is_space(out.data[i + 1]));
    for (size_t i = 0; i < n_bytes; i++)
        is_plain &= data[i] != '<' && data[i] != '&' && !is_space((char)data[i]);
    if (is_plain)
        require(view_equal(html, out));
    arena_free(&arena);
    return 0;
}
