/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor.c - vigil-doctor: says what is wrong with this installation, a line a finding.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/options.h"
#include "server/doctor.h"

struct doctor_options {
    const char *model, *store, *queue, *root;
    int64_t port, n_threads;
    bool is_json;
};

#define AT(member) offsetof(struct doctor_options, member)
static const struct option TABLE[] = {
    {"model", 'm', OPTION_STRING, AT(model), "DIR", NULL, 0, 0, NULL,
     "model directory; without it the default model, weights/ade", NULL},
    {"store", 's', OPTION_STRING, AT(store), "URL", NULL, 0, 0, NULL,
     "look at this store too: a file of SQLite, or postgres://…", NULL},
    {"queue", 'q', OPTION_STRING, AT(queue), "URL", NULL, 0, 0, NULL,
     "look at this queue too: nats://…", NULL},
    {"port", 'p', OPTION_INTEGER, AT(port), "N", "8080", 1, 65535, NULL,
     "port that the server is to listen on", NULL},
    {"threads", 'j', OPTION_INTEGER, AT(n_threads), "N", "0", 0, 256, NULL,
     "threads that are to compute; 0: as many as there are processors", NULL},
    {"json", 0, OPTION_FLAG, AT(is_json), NULL, NULL, 0, 0, NULL,
     "print one JSON object", NULL},
    {"root", 0, OPTION_STRING, AT(root), "DIR", "", 0, 0, NULL,
     "look for /proc and /sys below DIR: another machine's, or a test's", NULL},
};

static const char *const EXAMPLES[] = {
    "vigil doctor",
    "look at everything",
    "vigil doctor --model DIR --port 80",
    "before serving another model, on another port",
    "vigil doctor --store vigil.db",
    "is the store whole, does work wait, are there dead letters",
    NULL};

static const struct program PROGRAM = {
    .name = "vigil-doctor",
    .summary = "say what is wrong with this installation",
    .usage = "[options]",
    .description =
        "Looks at the processor and its instruction sets, the limits on processors, "
        "memory and open files, the libraries, the GPUs, the port and the model, and "
        "sends a text through every engine: they have to agree. Prints a line for "
        "each: "
        "ok, warn or FAIL, what was found, and what to do. That there is no GPU is no "
        "error.\n\n"
        "Exit status: 0 when nothing failed (warnings are allowed), 1 when something "
        "did, 2 for a wrong command line.",
    .options = TABLE,
    .n_options = sizeof TABLE / sizeof *TABLE,
    .examples = EXAMPLES,
};

struct output {
    json_t *checks; /* NULL: lines */
    int n_warnings, n_failures;
};

static void report(struct doctor *d, enum finding finding, const char *what,
                   const char *detail, const char *advice) {
    static const char *const words[] = {"ok", "warn", "FAIL"};
    static const char *const keys[] = {"ok", "warn", "fail"};
    struct output *out = d->context;
    out->n_warnings += finding == FINDING_WARN;
    out->n_failures += finding == FINDING_FAIL;
    if (!out->checks) {
        printf("%-4s %s: %s%s%s\n", words[finding], what, detail, advice ? " -> " : "",
               advice ? advice : "");
        fflush(stdout);
        return;
    }
    json_t *check = json_object();
    json_object_set_new(check, "level", json_string(keys[finding]));
    json_object_set_new(check, "what", json_string(what));
    json_object_set_new(check, "detail", json_string(detail));
    if (advice)
        json_object_set_new(check, "advice", json_string(advice));
    json_array_append_new(out->checks, check);
}

static void look(struct doctor *d) {
    doctor_check_processor(d);
    doctor_check_threads(d);
    doctor_check_memory(d);
    doctor_check_huge_pages(d);
    doctor_check_frequency(d);
    doctor_check_clock(d);
    doctor_check_files(d);
    doctor_check_libraries(d);
    doctor_check_gpus(d);
    doctor_check_programs(d);
    doctor_check_port(d);
    doctor_check_model(d);
    doctor_check_store(d);
    doctor_check_queue(d);
}

static bool print_json(struct output *out) {
    json_t *root = json_object();
    json_object_set_new(root, "version", json_string(VIGIL_VERSION));
    json_object_set_new(root, "ok", json_boolean(out->n_failures == 0));
    json_object_set_new(root, "warnings", json_integer(out->n_warnings));
    json_object_set_new(root, "failures", json_integer(out->n_failures));
    json_object_set_new(root, "checks", out->checks);
    bool is_written = json_dumpf(root, stdout, JSON_INDENT(2)) == 0;
    json_decref(root);
    putchar('\n');
    return is_written;
}

int main(int argc, char **argv) {
    struct doctor_options o = {0};
    struct output out = {0};
    int n, code;
    options_parse(&PROGRAM, argc, argv, &o, &n, &code);
    if (code >= 0)
        return code;
    if (o.is_json)
        out.checks = json_array();
    struct doctor d = {.root = o.root ? o.root : "",
                       .model = o.model,
                       .store = o.store,
                       .queue = o.queue,
                       .port = o.port,
                       .n_threads = o.n_threads,
                       .report = report,
                       .context = &out};
    look(&d);
    bool is_written = true;
    if (o.is_json)
        is_written = print_json(&out);
    else
        printf("%s; %d warnings, %d failures\n",
               out.n_failures ? "something is wrong" : "all is well", out.n_warnings,
               out.n_failures);
    if (fflush(stdout) != 0 || !is_written) {
        fputs("vigil doctor: cannot write what was found\n", stderr);
        return EXIT_FAILED;
    }
    return out.n_failures ? EXIT_FAILED : EXIT_OK;
}
