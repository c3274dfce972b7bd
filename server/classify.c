/* SPDX-License-Identifier: Apache-2.0
 *
 * classify.c - vigil-classify: a file or standard input through the model, one JSON object a
 * record, in the order of the input.
 *
 * Ctrl-C ends the reading: what was read is answered and counted; a second one ends the
 * program at once. When nobody reads the answers any more (`vigil classify FILE | head`) it
 * ends quietly.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/format.h"
#include "base/options.h"
#include "base/paths.h"
#include "base/progress.h"
#include "server/bulk.h"
#include "server/bundle.h"
#include "server/records.h"

/* A JSON line holds its text escaped, six bytes for one at worst, and other fields. */
#define ESCAPED_BYTES 6
#define OTHER_FIELD_BYTES (4u << 20)

struct classify_options {
    const char *model, *format, *text_field, *id_field, *output;
    int64_t max_text_bytes;
    bool wants_entities, truncate, is_quiet;
    double threshold;
    const char *device, *isa, *dtype;
    int64_t n_threads, batch_tokens;
};

#define AT(member) offsetof(struct classify_options, member)
static const struct option TABLE[] = {
    {"model", 'm', OPTION_STRING, AT(model), "DIR", NULL, 0, 0, NULL,
     "model directory; without it the default model, weights/ade", NULL},
    {"output", 'o', OPTION_STRING, AT(output), "FILE", NULL, 0, 0, NULL,
     "write the answers there instead of standard output", NULL},
    {"quiet", 'q', OPTION_FLAG, AT(is_quiet), NULL, NULL, 0, 0, NULL,
     "neither a progress bar nor a summary", NULL},
    {"format", 'f', OPTION_CHOICE, AT(format), "NAME", "auto", 0, 0, FORMAT_CHOICES,
     "of the input; auto goes by its name and first bytes", "Input"},
    {"text-field", 0, OPTION_STRING, AT(text_field), "NAME", "text", 0, 0, NULL,
     "JSON field or CSV column that holds the text", "Input"},
    {"id-field", 0, OPTION_STRING, AT(id_field), "NAME", "id", 0, 0, NULL,
     "the one that holds the id; a record without it has its line's number", "Input"},
    {"max-text", 0, OPTION_BYTES, AT(max_text_bytes), "BYTES", "1M", 1,
     INT64_C(64) << 20, NULL, "a longer text is an error of its record", "Input"},
    {"entities", 'e', OPTION_FLAG, AT(wants_entities), NULL, NULL, 0, 0, NULL,
     "name the drugs and events in the text, with their code points", "Answers"},
    {"threshold", 't', OPTION_NUMBER, AT(threshold), "P", NULL, 0, 0, NULL,
     "positive from this probability on; without it the most probable label wins",
     "Answers"},
    {"truncate", 0, OPTION_FLAG, AT(truncate), NULL, NULL, 0, 0, NULL,
     "cut a long text to the model's length instead of reading all of it", "Answers"},
    {"device", 0, OPTION_STRING, AT(device), "NAME", "auto", 0, 0, NULL,
     "what computes: cpu, cuda, cuda:N, reference; auto: the first GPU if it can, else "
     "the CPU",
     "Engine"},
    {"threads", 'j', OPTION_INTEGER, AT(n_threads), "N", "0", 0, 256, NULL,
     "threads of the CPU engine; 0: as many as there are processors", "Engine"},
    {"isa", 0, OPTION_STRING, AT(isa), "NAME", "auto", 0, 0, NULL,
     "instruction set: auto, avx512, avx2 or portable; of a GPU: mma or wmma",
     "Engine"},
    {"dtype", 0, OPTION_CHOICE, AT(dtype), "TYPE", "auto", 0, 0, ENGINES_DTYPE_CHOICES,
     "arithmetic; auto: fp16 on a GPU, else int8 for a quantised model, else fp32",
     "Engine"},
    {"batch-tokens", 0, OPTION_INTEGER, AT(batch_tokens), "N", "0", 0, 1 << 20, NULL,
     "tokens that the engine computes at once; 0: 1024, or 16384 on a GPU", "Engine"},
};

static const char *const EXAMPLES[] = {
    "echo 'this drug gave me a rash' | vigil classify --entities",
    "one line, and the words that say so",
    "vigil classify posts.jsonl > answers.jsonl",
    "{\"id\":…,\"text\":…} a line in, {\"id\":…,\"label\":…} a line out",
    "vigil classify --text-field body --threshold 0.8 posts.csv",
    "a column of a table; fewer false alarms",
    "zcat posts.jsonl.gz | vigil classify --format jsonl -o answers.jsonl",
    "from a pipe to a file",
    NULL};

static const struct program PROGRAM = {
    .name = "vigil-classify",
    .summary = "classify a file or stdin: JSONL, CSV or plain lines",
    .usage = "[options] [FILE]",
    .description =
        "Reads records from FILE, or from standard input, and writes one JSON object "
        "for "
        "each in the same order: {\"id\",\"label\",\"score\",\"probs\"}, \"entities\" "
        "on "
        "request, \"windows\" where a text was longer than the model, \"truncated\" "
        "where it was cut. A record that cannot be classified gives {\"id\",\"line\" "
        "or "
        "\"row\",\"error\",\"error_type\"} and the others go on. Memory does not grow "
        "with the input.\n\n"
        "Exit status: 0 when every record was classified, 1 when one was not or the "
        "work was interrupted, 2 for a wrong command line.",
    .options = TABLE,
    .n_options = sizeof TABLE / sizeof *TABLE,
    .examples = EXAMPLES,
    .max_arguments = 1,
    .argument_kind = "file",
};

static int failed(const char *what) {
    fprintf(stderr, "vigil classify: %s\n", what);
    return EXIT_FAILED;
}

/* Written to by the signal handler, read by the records. */
static volatile sig_atomic_t wake_fd = -1;

static void on_signal(int number) {
    int kept = errno;
    (void)number;
    if (eventfd_write((int)wake_fd, 1) != 0) {
        /* It is full: somebody was here before. */
    }
    errno = kept;
}

/* The first signal wakes the reader, the second has its usual effect. */
static enum status catch_signals(struct error *err) {
    struct sigaction stop = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd < 0 || sigaction(SIGINT, &stop, NULL) != 0 ||
        sigaction(SIGTERM, &stop, NULL) != 0 || sigaction(SIGPIPE, &ignore, NULL) != 0)
        return error_set(err, STATUS_IO, "cannot prepare for signals: %s",
                         strerror(errno));
    return STATUS_OK;
}

/* Opens --output, unless that is the input: opening it would empty it. */
static enum status open_output(const char *path, const char *input, int *fd,
                               struct error *err) {
    struct stat in, out;
    *fd = STDOUT_FILENO;
    if (!path || strcmp(path, "-") == 0)
        return STATUS_OK;
    bool is_stdin = !input || strcmp(input, "-") == 0;
    if (stat(path, &out) == 0 && S_ISREG(out.st_mode) &&
        (is_stdin ? fstat(STDIN_FILENO, &in) : stat(input, &in)) == 0 &&
        in.st_dev == out.st_dev && in.st_ino == out.st_ino)
        return error_set(err, STATUS_INVALID, "%s is the input as well as the output",
                         path);
    *fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (*fd < 0)
        return error_set(err, STATUS_IO, "cannot write %s: %s", path, strerror(errno));
    return STATUS_OK;
}

struct display {
    struct progress progress;
    uint64_t size; /* of the input; 0: not known */
};

/* How many records there will be is told from the share of the bytes that is done. */
static void show_progress(void *context, const struct bulk_summary *so_far) {
    struct display *d = context;
    double total = 0;
    if (d->size && so_far->input_bytes)
        total =
            (double)so_far->n_records * (double)d->size / (double)so_far->input_bytes;
    progress_update(&d->progress, (int64_t)so_far->n_records, (int64_t)total);
}

static void print_summary(const struct bundle *bundle, const struct bulk_summary *s,
                          double seconds) {
    fprintf(stderr,
            "%" PRIu64 " records, %" PRIu64 " errors, %" PRIu64
            " %s, %.1f s, %.0f texts/s, %.0f tokens/s",
            s->n_records, s->n_errors, s->n_positive,
            bundle->config.n_labels > 1 ? bundle->config.labels[bundle->positive_label]
                                        : "scored",
            seconds, (double)(s->n_records - s->n_errors) / seconds,
            (double)s->n_tokens / seconds);
    if (s->n_truncated)
        fprintf(stderr, ", %" PRIu64 " truncated", s->n_truncated);
    fputc('\n', stderr);
}

/* What went wrong, for people; the exit code. */
static int conclude(enum status status, const struct error *err,
                    const struct bulk_summary *s, enum format format) {
    if (status == STATUS_CANCELLED)
        return s->n_errors ? EXIT_FAILED : EXIT_OK;
    if (status != STATUS_OK)
        return failed(err->message);
    if (s->n_errors)
        fprintf(stderr,
                "vigil classify: %" PRIu64 " of %" PRIu64
                " records failed, the first: %s %" PRIu64 ": %s\n",
                s->n_errors, s->n_records, format == FORMAT_CSV ? "row" : "line",
                s->first_error_number, s->first_error.message);
    if (s->is_interrupted)
        return failed("interrupted; what was read before is answered");
    return s->n_errors ? EXIT_FAILED : EXIT_OK;
}

static int run(const struct classify_options *o, struct bundle *bundle,
               struct records *records, int out_fd) {
    struct bulk_summary summary;
    struct error err = {0};
    struct display display = {.size = records_size(records)};
    /* A bar would be drawn over answers that come to the same terminal. */
    bool has_bar = !o->is_quiet && !isatty(out_fd);
    struct bulk_options bulk = {.records = records,
                                .bundle = bundle,
                                .out_fd = out_fd,
                                .stop_fd = (int)wake_fd,
                                .batch_tokens = (int32_t)o->batch_tokens,
                                .threshold = o->threshold,
                                .wants_entities = o->wants_entities,
                                .truncate = o->truncate,
                                .on_progress = has_bar ? show_progress : NULL,
                                .context = &display};
    int64_t start = clock_now_ns();
    if (has_bar)
        progress_begin(&display.progress, "classify", "records", 0);
    enum status status = bulk_run(&bulk, &summary, &err);
    if (has_bar)
        progress_end(&display.progress);
    double seconds = (double)(clock_now_ns() - start + 1) / 1e9;
    if (!o->is_quiet && (status == STATUS_OK || status == STATUS_CANCELLED))
        print_summary(bundle, &summary, seconds);
    int code = conclude(status, &err, &summary, records_format(records));
    if (status == STATUS_DEVICE)
        _exit(code); /* all is written; closing a dead device may never end */
    return code;
}

static enum status check_device(const struct engine_options *engine,
                                struct error *err) {
    struct engines_plan plan;
    enum status status = engines_plan(engine, &plan, err);
    if (status == STATUS_OK && plan.n > 1)
        return error_set(err, STATUS_UNSUPPORTED,
                         "--device %.60s is %d devices, classify computes on one",
                         engine->device, plan.n);
    return status;
}

static int classify(struct classify_options *o, const char *path, struct error *err) {
    char default_model[FILE_PATH_BYTES];
    struct bundle *bundle = NULL;
    struct records *records = NULL;
    int out_fd = STDOUT_FILENO;
    struct engine_options engine = {.device = o->device,
                                    .isa = o->isa,
                                    .dtype = o->dtype,
                                    .n_threads = (int32_t)o->n_threads,
                                    .max_tokens = (int32_t)o->batch_tokens};
    if (!o->model &&
        paths_default_model(default_model, sizeof default_model, err) != STATUS_OK)
        return failed(err->message);
    if (check_device(&engine, err) != STATUS_OK ||
        bundle_open(o->model ? o->model : default_model, &engine, &bundle, err) !=
            STATUS_OK ||
        catch_signals(err) != STATUS_OK) {
        bundle_close(bundle);
        return failed(err->message);
    }
    if (bundle->note[0] && !o->is_quiet)
        fprintf(stderr,
                "vigil classify: the CPU computes, since no GPU could be used: %s\n",
                bundle->note);
    size_t max_text = (size_t)o->max_text_bytes;
    struct records_options input = {.path = path,
                                    .format = format_of(o->format),
                                    .text_field = o->text_field,
                                    .id_field = o->id_field,
                                    .max_record_bytes =
                                        max_text * ESCAPED_BYTES + OTHER_FIELD_BYTES,
                                    .max_text_bytes = max_text,
                                    .wake_fd = (int)wake_fd};
    int code = EXIT_FAILED;
    enum status status = records_open(&input, &records, err);
    if (status == STATUS_OK)
        status = open_output(o->output, path, &out_fd, err);
    if (status == STATUS_OK)
        code = run(o, bundle, records, out_fd);
    else
        failed(err->message);
    if (out_fd > STDOUT_FILENO && close(out_fd) != 0)
        code = failed("cannot write the answers: the file could not be closed");
    records_close(records);
    bundle_close(bundle);
    return code;
}

int main(int argc, char **argv) {
    struct classify_options o = {.threshold = NAN};
    struct error err = {0};
    int n, code;
    options_parse(&PROGRAM, argc, argv, &o, &n, &code);
    if (code >= 0)
        return code;
    if (o.threshold < 0 || o.threshold > 1) {
        fputs("vigil classify: --threshold is a probability: expected a number from 0 "
              "to 1\n",
              stderr);
        return EXIT_USAGE;
    }
    return classify(&o, n ? argv[1] : NULL, &err);
}
