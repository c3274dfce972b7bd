/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c - vigil-tokenize: lines of text in, token ids out, a line each.
 *
 * Memory is bounded by the longest line, which is bounded by --max-line. Answers are written
 * before the program waits for more input, so that it can be talked to through pipes.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/paths.h"
#include "tokenizer/tokenizer.h"

#define READ_BYTES (64u << 10)
#define FLUSH_BYTES (64u << 10)

struct tokenize_options {
    const char *model;
    bool is_jsonl;
    int64_t max_tokens, max_line;
};

static const struct option TABLE[] = {
    {"model", 'm', OPTION_STRING, offsetof(struct tokenize_options, model), "DIR", NULL,
     0, 0, NULL,
     "model directory with vocab.txt or tokenizer.json (default: weights/ade)", NULL},
    {"jsonl", 'j', OPTION_FLAG, offsetof(struct tokenize_options, is_jsonl), NULL, NULL,
     0, 0, NULL,
     "read {\"text\":...} and write ids, tokens and offsets, an object a line", NULL},
    {"max-tokens", 0, OPTION_INTEGER, offsetof(struct tokenize_options, max_tokens),
     "N", "0", 0, 1 << 30, NULL,
     "cut a text to N tokens, [CLS] and [SEP] included; 0: never", NULL},
    {"max-line", 0, OPTION_BYTES, offsetof(struct tokenize_options, max_line), "BYTES",
     "16M", 1, 1 << 30, NULL, "longest line that is read", NULL},
};

static const char *const EXAMPLES[] = {
    "echo 'this drug gave me a rash' | vigil tokenize", "ids of one line",
    "vigil tokenize --jsonl posts.jsonl",
    "ids, tokens and offsets of {\"text\":...} lines", NULL};

static const struct program PROGRAM = {
    .name = "vigil-tokenize",
    .summary = "turn lines of text into token ids",
    .usage = "[options] [FILE]",
    .description =
        "Reads FILE, or standard input, and writes for each line the ids of its "
        "tokens, "
        "separated by spaces, [CLS] and [SEP] included: the ids that a DistilBERT "
        "model "
        "reads. With --jsonl every line is an object with a \"text\", and so is every "
        "answer: {\"ids\":[...],\"tokens\":[...],\"offsets\":[[begin,end],...]}; "
        "offsets "
        "count code points of the text. A line that cannot be read is answered with "
        "{\"error\":...}, and the exit status is 1 at the end.",
    .options = TABLE,
    .n_options = sizeof TABLE / sizeof *TABLE,
    .examples = EXAMPLES,
    .max_arguments = 1,
    .argument_kind = "file",
};

struct run {
    const struct tokenize_options *options;
    struct tokenizer *tokenizer;
    int in;
    const char *in_name;
    char *line; /* [cap_line]: what was read and is not answered yet */
    size_t n_line, cap_line;
    int32_t *ids;
    struct token_span *spans;
    size_t cap_tokens;
    struct buffer out;
    size_t n_lines; /* read so far */
    bool has_failed,
        is_skipping; /* is_skipping: in the rest of a line that is too long */
};

/* ---- output ---- */

static enum status flush(struct run *r, struct error *err) {
    for (size_t at = 0; at < r->out.n_bytes;) {
        ssize_t n = write(STDOUT_FILENO, r->out.data + at, r->out.n_bytes - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, errno == EPIPE ? STATUS_CANCELLED : STATUS_IO,
                             "cannot write: %s", strerror(errno));
        at += (size_t)n;
    }
    buffer_clear(&r->out);
    return STATUS_OK;
}

static enum status flush_full(struct run *r, struct error *err) {
    return r->out.n_bytes < FLUSH_BYTES ? STATUS_OK : flush(r, err);
}

static enum status put_id(struct run *r, int32_t id, char before, struct error *err) {
    char digits[16];
    size_t at = sizeof digits;
    uint32_t rest = (uint32_t)id;
    do
        digits[--at] = (char)('0' + rest % 10);
    while ((rest /= 10) != 0);
    if (before)
        digits[--at] = before;
    enum status status = buffer_append(&r->out, digits + at, sizeof digits - at, err);
    return status == STATUS_OK ? flush_full(r, err) : status;
}

static enum status put_ids(struct run *r, size_t n, char separator, struct error *err) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < n && status == STATUS_OK; i++)
        status = put_id(r, r->ids[i], i ? separator : 0, err);
    return status;
}

static enum status put_object(struct run *r, size_t n, struct error *err) {
    enum status status = buffer_printf(&r->out, err, "{\"ids\":[");
    if (status == STATUS_OK)
        status = put_ids(r, n, ',', err);
    if (status == STATUS_OK)
        status = buffer_printf(&r->out, err, "],\"tokens\":");
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        const char *token = tokenizer_token(r->tokenizer, r->ids[i]);
        status = buffer_append(&r->out, i ? "," : "[", 1, err);
        if (status == STATUS_OK)
            status = json_append_string(&r->out, token, strlen(token), err);
        if (status == STATUS_OK)
            status = flush_full(r, err);
    }
    if (status == STATUS_OK)
        status = buffer_printf(&r->out, err, "],\"offsets\":");
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        status = buffer_printf(&r->out, err, "%s[%u,%u]", i ? "," : "[",
                               r->spans[i].begin, r->spans[i].end);
        if (status == STATUS_OK)
            status = flush_full(r, err);
    }
    return status == STATUS_OK ? buffer_printf(&r->out, err, "]}\n") : status;
}

/* Answers a line with what is wrong with it. */
static enum status put_error(struct run *r, struct error *why, struct error *err) {
    error_prefix(why, "line %zu", r->n_lines);
    r->has_failed = true;
    enum status status = buffer_printf(&r->out, err, "{\"error\":");
    if (status == STATUS_OK)
        status = json_append_string(&r->out, why->message, strlen(why->message), err);
    return status == STATUS_OK ? buffer_printf(&r->out, err, "}\n") : status;
}

/* ---- a text ---- */

static enum status encode(struct run *r, const char *text, size_t n_bytes,
                          struct error *err) {
    size_t cap = tokenizer_max_tokens(n_bytes);
    size_t max_tokens = (size_t)r->options->max_tokens;
    if (max_tokens > 0 && cap > max_tokens)
        cap = max_tokens;
    if (cap > r->cap_tokens) {
        size_t grown = cap + cap / 2;
        free(r->ids);
        free(r->spans);
        r->ids = calloc(grown, sizeof *r->ids);
        r->spans = r->options->is_jsonl ? calloc(grown, sizeof *r->spans) : NULL;
        r->cap_tokens = 0;
        if (!r->ids || (r->options->is_jsonl && !r->spans))
            return error_set(err, STATUS_NO_MEMORY, "line %zu: out of memory",
                             r->n_lines);
        r->cap_tokens = grown;
    }
    struct encoding e;
    tokenizer_encode(r->tokenizer, text, n_bytes, r->ids, r->spans, cap, &e);
    if (r->options->is_jsonl)
        return put_object(r, e.n_tokens, err);
    enum status status = put_ids(r, e.n_tokens, ' ', err);
    return status == STATUS_OK ? buffer_append(&r->out, "\n", 1, err) : status;
}

static enum status answer_json(struct run *r, const char *line, size_t n_bytes,
                               struct error *err) {
    const struct json_limits limits = {.max_bytes = (size_t)r->options->max_line,
                                       .max_depth = 32,
                                       .max_values = 4096,
                                       .max_key_bytes = 1000};
    struct error why;
    json_t *root = NULL;
    enum status status = json_parse(line, n_bytes, &limits, &root, &why);
    const json_t *text = json_object_get(root, "text");
    if (status == STATUS_OK && !json_is_string(text))
        status = error_set(&why, STATUS_INVALID,
                           "expected an object with a string under \"text\"");
    if (status == STATUS_NO_MEMORY)
        *err = why;
    else if (status == STATUS_OK)
        status = encode(r, json_string_value(text), json_string_length(text), err);
    else
        status = put_error(r, &why, err);
    json_decref(root);
    return status;
}

static enum status answer(struct run *r, const char *line, size_t n_bytes,
                          struct error *err) {
    r->n_lines++;
    enum status status = r->options->is_jsonl ? answer_json(r, line, n_bytes, err)
                                              : encode(r, line, n_bytes, err);
    return status == STATUS_OK ? flush_full(r, err) : status;
}

/* ---- input ---- */

/* Makes room for another read. A line may fill max_line and its newline one byte more. */
static enum status make_room(struct run *r, struct error *err) {
    size_t most = (size_t)r->options->max_line + 1 + READ_BYTES;
    if (r->cap_line - r->n_line >= READ_BYTES)
        return STATUS_OK;
    size_t cap = r->cap_line ? r->cap_line * 2 : 4 * READ_BYTES;
    char *line = realloc(r->line, cap < most + READ_BYTES ? cap : most + READ_BYTES);
    if (!line)
        return error_set(err, STATUS_NO_MEMORY, "out of memory for line %zu",
                         r->n_lines + 1);
    r->line = line;
    r->cap_line = cap < most + READ_BYTES ? cap : most + READ_BYTES;
    return STATUS_OK;
}

/* The line in r->line is longer than allowed, and may not have ended yet. */
static enum status refuse_line(struct run *r, struct error *err) {
    struct error why;
    error_set(&why, STATUS_LIMIT, "over the limit of %lld bytes (--max-line)",
              (long long)r->options->max_line);
    r->n_lines++;
    if (r->options->is_jsonl)
        return put_error(r, &why, err);
    *err = why;
    return error_prefix(err, "line %zu", r->n_lines);
}

/* Answers the whole lines among r->line[0 .. n_line), of which those before from are known
 * to hold no newline, and keeps the rest. */
static enum status answer_lines(struct run *r, size_t from, struct error *err) {
    const size_t max_line = (size_t)r->options->max_line;
    size_t begin = 0;
    char *end;
    enum status status = STATUS_OK;
    while (status == STATUS_OK &&
           (end = memchr(r->line + from, '\n', r->n_line - from)) != NULL) {
        size_t n = (size_t)(end - r->line) - begin;
        if (r->is_skipping)
            r->is_skipping = false;
        else
            status =
                n > max_line ? refuse_line(r, err) : answer(r, r->line + begin, n, err);
        begin = from = (size_t)(end - r->line) + 1;
    }
    r->n_line -= begin;
    if (begin > 0)
        memmove(r->line, r->line + begin, r->n_line);
    if (status == STATUS_OK && r->n_line > max_line && !r->is_skipping) {
        status = refuse_line(r, err);
        r->is_skipping = true;
    }
    if (r->is_skipping)
        r->n_line = 0;
    return status;
}

static enum status answer_all(struct run *r, struct error *err) {
    for (;;) {
        enum status status = make_room(r, err);
        if (status == STATUS_OK)
            status = flush(r, err);
        if (status != STATUS_OK)
            return status;
        ssize_t n = read(r->in, r->line + r->n_line, READ_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, STATUS_IO, "cannot read %s: %s", r->in_name,
                             strerror(errno));
        if (n == 0)
            break;
        size_t from = r->n_line;
        r->n_line += (size_t)n;
        status = answer_lines(r, from, err);
        if (status != STATUS_OK)
            return status;
    }
    enum status status = STATUS_OK;
    if (r->n_line > 0) /* a last line without its newline */
        status = answer(r, r->line, r->n_line, err);
    return status == STATUS_OK ? flush(r, err) : status;
}

/* ---- program ---- */

static enum status open_run(struct run *r, const char *path, struct error *err) {
    char dir[FILE_PATH_BYTES];
    const char *model = r->options->model;
    r->in_name = "standard input";
    r->out.max_bytes = 4 * FLUSH_BYTES;
    if (path && strcmp(path, "-") != 0) {
        r->in_name = path;
        r->in = open(path, O_RDONLY | O_CLOEXEC);
        if (r->in < 0)
            return error_set(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO,
                             "cannot open %s: %s", path, strerror(errno));
    }
    if (!model) {
        enum status status = paths_default_model(dir, sizeof dir, err);
        if (status != STATUS_OK)
            return status;
        model = dir;
    }
    return tokenizer_open(model, &r->tokenizer, err);
}

static void close_run(struct run *r) {
    if (r->in > 0)
        close(r->in);
    tokenizer_close(r->tokenizer);
    buffer_free(&r->out);
    free(r->line);
    free(r->ids);
    free(r->spans);
}

int main(int argc, char **argv) {
    struct tokenize_options options = {0};
    struct run r = {.options = &options, .in = STDIN_FILENO};
    struct error err;
    int n_arguments, exit_code;
    options_parse(&PROGRAM, argc, argv, &options, &n_arguments, &exit_code);
    if (exit_code >= 0)
        return exit_code;
    if (options.max_tokens == 1) {
        fputs("vigil tokenize: --max-tokens: expected 0, or 2 or more for [CLS] and "
              "[SEP]\n",
              stderr);
        return EXIT_USAGE;
    }
    signal(SIGPIPE, SIG_IGN); /* a reader that has enough is no failure */
    enum status status = open_run(&r, n_arguments > 0 ? argv[1] : NULL, &err);
    if (status == STATUS_OK) {
        status = answer_all(&r, &err);
        /* What was answered before a failure is still worth having. */
        if (status != STATUS_OK && status != STATUS_CANCELLED)
            flush(&r, NULL);
    }
    if (status != STATUS_OK && status != STATUS_CANCELLED)
        fprintf(stderr, "vigil tokenize: %s\n", err.message);
    close_run(&r);
    if (status == STATUS_CANCELLED)
        return EXIT_OK;
    return status == STATUS_OK && !r.has_failed ? EXIT_OK : EXIT_FAILED;
}
