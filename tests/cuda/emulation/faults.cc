/* SPDX-License-Identifier: Apache-2.0
 *
 * faults.cc - faults on order: the N-th call fails, the device dies, hangs, or computes
 * something wrong. README.md has the syntax.
 *
 * Armed by VIGIL_EMULATION_FAULT at the first call, by emulation_fault at any time, and by
 * the file that VIGIL_EMULATION_FAULT_FILE names, once it exists: so a test breaks a server
 * that has come up healthy. Each fault counts its own calls from when it was armed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/cuda/emulation/internal.h"

static const char *const call_names[N_FAULT_CALLS] = {
    "launch", "malloc", "hostalloc", "memcpy", "sync", "matmul",
    "event",  "hang",   "nan",       "flip",   "call", "blas",
};

struct fault {
    enum fault_call call;
    int device; /* -1: any */
    uint64_t n, n_counted;
    int code;
    bool is_sticky;
};

enum { POLL_NS = 10 * 1000 * 1000 };

static std::vector<struct fault> faults;
static bool has_begun;
static const char *fault_file; /* NULL: none, or read already */

static bool is_lasting(enum fault_call call) {
    return call == FAULT_HANG || call == FAULT_NAN || call == FAULT_FLIP;
}

static std::vector<std::string> split(const std::string &text, const char *marks) {
    std::vector<std::string> parts;
    size_t begin = 0, end;
    while ((end = text.find_first_of(marks, begin)) != std::string::npos) {
        parts.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    parts.push_back(text.substr(begin));
    return parts;
}

/* A whole number, and nothing behind it. */
static bool to_number(const std::string &text, long long *out) {
    char *end = nullptr;
    *out = strtoll(text.c_str(), &end, 10);
    return !text.empty() && *end == '\0';
}

/* CALL[@DEVICE]:N[:CODE[:sticky]] */
static bool parse(const std::string &spec, struct fault *out) {
    std::vector<std::string> fields = split(spec, ":"), name = split(fields[0], "@");
    long long device = -1, n = 0, code = 0;
    int call = 0;
    while (call < N_FAULT_CALLS && name[0] != call_names[call])
        call++;
    if (call == N_FAULT_CALLS || name.size() > 2 || fields.size() < 2 ||
        (name.size() == 2 && !to_number(name[1], &device)) ||
        !to_number(fields[1], &n) || n < 1)
        return false;
    bool is_sticky = fields.size() == 4 && fields[3] == "sticky";
    *out = {(enum fault_call)call, (int)device, (uint64_t)n, 0, 0, is_sticky};
    if (is_lasting(out->call))
        return fields.size() == 2;
    if (fields.size() < 3 || !to_number(fields[2], &code) || code < 1)
        return false;
    out->code = (int)code;
    return fields.size() == 3 || is_sticky;
}

/* All of a list with commas, or nothing. */
static bool arm(const char *specs) {
    std::vector<struct fault> parsed;
    for (const std::string &spec : split(specs, ",\n")) {
        struct fault fault;
        if (spec.empty())
            continue;
        if (!parse(spec, &fault))
            return false;
        parsed.push_back(fault);
    }
    faults.insert(faults.end(), parsed.begin(), parsed.end());
    return true;
}

/* The file may be there before its text is: then the next look reads it. */
static void poll_file() {
    static int64_t next_ns;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    int64_t now_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    if (now_ns < next_ns)
        return;
    next_ns = now_ns + POLL_NS;
    FILE *file = fopen(fault_file, "re");
    if (!file)
        return;
    char text[512] = "";
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    if (n == 0)
        return;
    if (!arm(text))
        emulation_fail("%s: \"%s\" is no fault", fault_file, text);
    fault_file = nullptr;
}

static void begin() {
    has_begun = true;
    const char *specs = getenv("VIGIL_EMULATION_FAULT");
    if (specs && !arm(specs))
        emulation_fail("VIGIL_EMULATION_FAULT: \"%s\" is no fault", specs);
    fault_file = getenv("VIGIL_EMULATION_FAULT_FILE");
    if (fault_file && !*fault_file)
        fault_file = nullptr;
}

int fault_count(enum fault_call call, int device, bool *is_sticky) {
    if (!has_begun)
        begin();
    if (fault_file)
        poll_file();
    int code = 0;
    for (struct fault &f : faults) {
        if (f.call != call || (f.device >= 0 && f.device != device))
            continue;
        f.n_counted++;
        if (is_lasting(call) && f.n_counted >= f.n)
            code = 1;
        if (!is_lasting(call) && f.n_counted == f.n) {
            code = f.code;
            if (is_sticky)
                *is_sticky = f.is_sticky;
        }
    }
    return code;
}

int emulation_fault(const char *spec) {
    std::lock_guard<std::mutex> guard(emulation_mutex);
    if (!has_begun)
        begin();
    if (spec)
        return arm(spec) ? 0 : -1;
    faults.clear();
    fault_file = nullptr;
    return 0;
}
