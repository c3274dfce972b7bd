/* SPDX-License-Identifier: Apache-2.0
 *
 * test_safetensors.c - bad files by the table, each with the words its message must hold;
 * good ones; shards; what is written is read back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/memory.h"
#include "tests/unit/model_files.h"
#include "weights/safetensors.h"

#define INVALID STATUS_INVALID
/* One tensor "a" of four bytes, fields in pieces. */
#define A(dtype, shape, offsets)                                                       \
    "{\"a\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define GOOD "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}"

struct bad {
    const char *header;
    size_t n_data; /* of zeros behind it */
    enum status status;
    const char *words;
};

static const struct bad BAD[] = {
    /* JSON */
    {"  ", 0, INVALID, "header: JSON ends too early"},
    {"[]", 0, INVALID, "header is not an object"},
    {"null", 0, INVALID, "header is not an object"},
    {"\"x\"", 0, INVALID, "header is not an object"},
    {"{ ", 0, INVALID, "ends too early"},
    {"{\"a\":" GOOD ",}", 4, INVALID, "expected a key"},
    {"\xEF\xBB\xBF{}", 0, INVALID, "at byte 0: expected a value"},
    {"{}x", 0, INVALID, "bytes behind the value"},
    {"{\"\n\":1}", 0, INVALID, "control character"},
    {"{\"\xFF\":1}", 0, INVALID, "not UTF-8"},
    {"{\"\xC0\xAF\":1}", 0, INVALID, "not UTF-8"},
    {"{\"\\ud800\":" GOOD "}", 4, STATUS_UNSUPPORTED, "lone surrogate"},
    {"{\"a\":{\"b\":{\"c\":{\"d\":1}}}}", 0, INVALID, "tensor \"a\" has no dtype"},
    {"{\"a\":{\"b\":{\"c\":{\"d\":[1]}}}}", 0, STATUS_LIMIT, "nested more than 4"},
    {"{\"a\":" GOOD ",\"a\":" GOOD "}", 4, INVALID, "a key twice"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, INVALID, "a key twice"},
    {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, INVALID, "a key twice"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}"
     "}",
     4, INVALID, "a key twice"},
    {"{\"__metadata__\":null}", 0, INVALID, "__metadata__ is not an object"},
    {"{\"__metadata__\":1}", 0, INVALID, "__metadata__ is not an object"},
    {"{\"__metadata__\":{\"k\":1}}", 0, INVALID, "not a string"},
    {"{\"__metadata__\":{\"k\":{\"n\":\"x\"}}}", 0, INVALID, "not a string"},
    {"{\"a\":[\"F32\",[1],[0,4]]}", 4, INVALID, "not an object, expected dtype"},
    {"{\"a\":1}", 0, INVALID, "not an object, expected dtype"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4,
     INVALID, "unknown field"},
    /* fields */
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, INVALID,
     "\"a\" has no dtype"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, INVALID, "no shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, INVALID, "no data_offsets"},
    {A("\"F33\"", "[1]", "[0,4]"), 4, INVALID, "dtype F33, expected F32, F16"},
    {A("\"f32\"", "[1]", "[0,4]"), 4, INVALID, "dtype f32, expected F32"},
    {A("\"F64\"", "[1]", "[0,8]"), 8, INVALID, "dtype F64"},
    {A("\"F32\\u0000\"", "[1]", "[0,4]"), 4, INVALID, "dtype F32"},
    {A("\"\\u0007\"", "[1]", "[0,4]"), 4, INVALID, "strange name"},
    {A("32", "[1]", "[0,4]"), 4, INVALID, "not a string"},
    {A("\"I8\"", "[4]", "[0,4]"), 4, INVALID, "I8 in a model that is not quantised"},
    {A("\"F32\"", "1", "[0,4]"), 4, INVALID, "shape that is not an array"},
    {A("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, INVALID, "shape of 9 dimensions"},
    {A("\"F32\"", "[-1]", "[0,4]"), 4, INVALID, "-1 as dimension 0"},
    {A("\"F32\"", "[1.0]", "[0,4]"), 4, INVALID, "dimension 0 is no integer"},
    {A("\"F32\"", "[1e0]", "[0,4]"), 4, INVALID, "dimension 0 is no integer"},
    {A("\"F32\"", "[\"1\"]", "[0,4]"), 4, INVALID, "dimension 0 is no integer"},
    {A("\"F32\"", "[1,null]", "[0,4]"), 4, INVALID, "dimension 1 is no integer"},
    {A("\"F32\"", "[2147483648]", "[0,4]"), 4, INVALID, "2147483648 as dimension 0"},
    {A("\"F32\"", "[9223372036854775808]", "[0,4]"), 4, INVALID, "out of range"},
    {A("\"F32\"", "[18446744073709551616]", "[0,4]"), 4, INVALID, "out of range"},
    {A("\"F32\"", "[2147483647,2147483647,2147483647]", "[0,4]"), 4, INVALID,
     "too many elements"},
    {A("\"F32\"", "[2147483647,2147483647,2]", "[0,4]"), 4, INVALID, "too many bytes"},
    {A("\"F32\"", "[0,2147483647]", "[0,0]"), 0, INVALID, "0 as dimension 0"},
    {A("\"F32\"", "[2147483647,0]", "[0,0]"), 0, INVALID, "0 as dimension 1"},
    {A("\"F32\"", "[4194305,4194305,211106198978564]", "[0,16]"), 16, INVALID,
     "211106198978564 as dimension 2"},
    {A("\"F32\"", "[1]", "[]"), 4, INVALID, "not two numbers"},
    {A("\"F32\"", "[1]", "[0]"), 4, INVALID, "not two numbers"},
    {A("\"F32\"", "[1]", "[0,4,8]"), 4, INVALID, "not two numbers"},
    {A("\"F32\"", "[1]", "{}"), 4, INVALID, "not two numbers"},
    {A("\"F32\"", "[1]", "[4,0]"), 4, INVALID, "[4, 0], expected 0 <= begin <= end"},
    {A("\"F32\"", "[1]", "[-0,4]"), 4, INVALID, "a number with a minus"},
    {A("\"F32\"", "[1]", "[-4,4]"), 4, INVALID, "expected 0 <= begin"},
    {A("\"F32\"", "[1]", "[0,4.0]"), 4, INVALID, "not integers"},
    {A("\"F32\"", "[1]", "[0,\"4\"]"), 4, INVALID, "not integers"},
    {A("\"F32\"", "[1]", "[0,8]"), 4, INVALID, "an end within the 4 bytes"},
    {A("\"F32\"", "[1]", "[4,8]"), 4, INVALID, "an end within the 4 bytes"},
    {A("\"F32\"", "[1]", "[9223372036854775803,9223372036854775807]"), 4, INVALID,
     "an end within the 4 bytes"},
    {A("\"F32\"", "[1]", "[18446744073709551611,18446744073709551615]"), 4, INVALID,
     "out of range"},
    {A("\"F32\"", "[1]", "[0,3]"), 4, INVALID,
     "3 bytes of data, expected 4 for F32 of [1]"},
    {A("\"F32\"", "[1]", "[0,5]"), 5, INVALID, "5 bytes of data, expected 4"},
    {A("\"F32\"", "[2,3]", "[0,20]"), 20, INVALID, "expected 24 for F32 of [2, 3]"},
    {A("\"F32\"", "[]", "[0,8]"), 8, INVALID, "expected 4 for F32 of []"},
    {A("\"I64\"", "[1]", "[0,4]"), 4, INVALID, "expected 8 for I64"},
    /* the whole */
    {A("\"F32\"", "[1]", "[4,8]"), 8, INVALID,
     "a hole in the data before tensor \"a\""},
    {A("\"F32\"", "[1]", "[0,4]"), 8, INVALID, "4 bytes behind the last tensor"},
    {A("\"F32\"", "[1]", "[0,4]"), 5, INVALID, "1 bytes behind the last tensor"},
    {A("\"F32\"", "[1]", "[0,4]"), 3, INVALID, "an end within the 3 bytes"},
    {"{}", 1, INVALID, "1 bytes behind the last tensor"},
    {"{\"a\":" GOOD ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
     12, INVALID, "a hole in the data before tensor \"b\""},
    {"{\"a\":" GOOD ",\"b\":" GOOD "}", 4, INVALID, "overlaps another"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
     8, INVALID, "tensor \"b\" overlaps another"},
    {"{\"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
     6, INVALID, "\"b\" has its data at offset 2, expected a multiple of 4"},
    {"{\"a\":" GOOD ",\"z\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,4]}}",
     4, INVALID, "tensor \"z\" has 0 as dimension 0"},
    /* names */
    {"{\"\":" GOOD "}", 4, INVALID, "tensor 0 has a name of 0 bytes"},
    {"{\"a\\u0000b\":" GOOD "}", 4, INVALID, "NUL in a key"},
    {"{\"\\u00e9\":" GOOD "}", 4, INVALID, "printable ASCII"},
    {"{\"a\\tb\":" GOOD "}", 4, INVALID, "printable ASCII"},
};

static void expect_bad(const void *image, size_t n_bytes, enum status status,
                       const char *words, const char *what) {
    struct safetensors st;
    struct error err = {0};
    enum status found = safetensors_parse(image, n_bytes, "bad.st", false, &st, &err);
    if (found != status || !strstr(err.message, words) ||
        !strstr(err.message, "bad.st"))
        fail_msg("%s: %s \"%s\", expected \"%s\"", what, status_name(found),
                 err.message, words);
}

static void refuses_headers(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        size_t n;
        char *image =
            image_make(BAD[i].header, strlen(BAD[i].header), NULL, BAD[i].n_data, &n);
        char *exact = malloc(n); /* so that a read past the end is seen */
        memcpy(exact, image, n);
        expect_bad(exact, n, BAD[i].status, BAD[i].words, BAD[i].header);
        free(exact);
        free(image);
    }
    print_message("  %zu headers refused\n", sizeof BAD / sizeof *BAD);
}

static void refuses_lengths(void **state) {
    (void)state;
    static const uint64_t lengths[] = {0,
                                       1,
                                       (1u << 20) + 1,
                                       100000000,
                                       100000001,
                                       UINT64_C(1) << 31,
                                       (UINT64_C(1) << 32) - 8,
                                       UINT64_C(1) << 63,
                                       UINT64_MAX,
                                       UINT64_MAX - 7};
    char image[64] = {0};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (size_t k = 0; k < 8; k++)
            image[k] = (char)(lengths[i] >> 8 * k & 0xFF);
        expect_bad(image, sizeof image, INVALID, "says its header has", "length");
    }
    memset(image, 0, 8);
    image[0] = 64 - 8 + 1;
    expect_bad(image, sizeof image, INVALID, "too few for its header of 57",
               "one more");
    for (size_t n = 0; n < 10; n++)
        expect_bad(image, n, INVALID, "too few for a safetensors file", "short");
}

/* Large ones, made by repetition. */
static void refuses_large(void **state) {
    (void)state;
    static const struct {
        const char *head, *unit, *tail;
        size_t n_units;
        enum status status;
        const char *words;
    } rows[] = {
        {"", "[", "", 200, STATUS_LIMIT, "nested more than 4"},
        {"", "[", "", 1000000, STATUS_LIMIT, "nested more than 4"},
        {"{\"", "x", "\":" GOOD "}", 257, STATUS_LIMIT, "key of more than 256"},
        {"{\"", "x", "\":" GOOD "}", 1000000, STATUS_LIMIT, "key of more than 256"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1", ",1", "],\"data_offsets\":[0,4]}}",
         60000, INVALID, "a shape of 60001 dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1", ",1", "],\"data_offsets\":[0,4]}}",
         400000, STATUS_LIMIT, "more than 65536 values"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1", "0", "],\"data_offsets\":[0,4]}}",
         1000000, INVALID, "out of range"},
        {"{\"a\":{\"dtype\":\"", "F", "\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         1000000, INVALID, "strange name"},
        {"{\"__metadata__\":{\"k\":\"", "v", "\"}}", 70000, STATUS_LIMIT,
         "__metadata__ has"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buffer b = {.max_bytes = 1 << 21};
        size_t n;
        buffer_append(&b, rows[i].head, strlen(rows[i].head), NULL);
        for (size_t k = 0; k < rows[i].n_units; k++)
            buffer_append(&b, rows[i].unit, strlen(rows[i].unit), NULL);
        buffer_append(&b, rows[i].tail, strlen(rows[i].tail), NULL);
        char *image = image_make(b.data, b.n_bytes, NULL, 4, &n);
        expect_bad(image, n, rows[i].status, rows[i].words, rows[i].head);
        free(image);
        buffer_free(&b);
    }
    /* 4,097 tensors, and 10,000 keys that are no tensors. */
    struct buffer b = {.max_bytes = 1 << 20};
    size_t n;
    buffer_append(&b, "{", 1, NULL);
    for (int i = 0; i < 10000; i++)
        buffer_printf(&b, NULL, "%s\"t%d\":1", i ? "," : "", i);
    buffer_append(&b, "}", 1, NULL);
    char *image = image_make(b.data, b.n_bytes, NULL, 0, &n);
    expect_bad(image, n, STATUS_LIMIT, "10000 tensors, the limit is 4096", "keys");
    free(image);
    buffer_free(&b);
}

static void refuses_values(void **state) {
    (void)state;
    static const struct {
        const char *dtype;
        uint32_t bits;
        size_t n_element, at;
        bool is_good;
    } rows[] = {
        {"F32", 0x7FC00000, 4, 0, false}, {"F32", 0x7F800000, 4, 2, false},
        {"F32", 0xFF800000, 4, 1, false}, {"F32", 0x7F7FFFFF, 4, 2, true},
        {"F32", 0x00000001, 4, 0, true}, /* denormal */
        {"F16", 0x7C00, 2, 6, false},     {"F16", 0xFE01, 2, 5, false},
        {"F16", 0x7BFF, 2, 6, true},      {"BF16", 0x7F80, 2, 3, false},
        {"BF16", 0xFFC0, 2, 6, false},    {"BF16", 0xFF7F, 2, 0, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char header[128], words[64];
        uint8_t data[28] = {0};
        size_t n_all = rows[i].n_element == 4 ? 3 : 7, n;
        memcpy(data + rows[i].at * rows[i].n_element, &rows[i].bits, rows[i].n_element);
        snprintf(header, sizeof header,
                 "{\"a\":{\"dtype\":\"%s\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}",
                 rows[i].dtype, n_all, n_all * rows[i].n_element);
        char *image =
            image_make(header, strlen(header), data, n_all * rows[i].n_element, &n);
        snprintf(words, sizeof words, "NaN or infinity as element %zu of %zu",
                 rows[i].at, n_all);
        if (rows[i].is_good) {
            struct safetensors st;
            assert_int_equal(safetensors_parse(image, n, "good", false, &st, NULL),
                             STATUS_OK);
            safetensors_close(&st);
        } else {
            expect_bad(image, n, INVALID, words, header);
        }
        free(image);
    }
}

static void accepts(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t n_data, n_tensors;
    } good[] = {
        {"{}", 0, 0},
        {" {\"a\":" GOOD "}  \n", 4, 1},
        {"{\"a\":" GOOD ",\"__metadata__\":{\"format\":\"pt\",\"x-y\":\"-1\"}}", 4, 1},
        {A("\"F32\"", "[]", "[0,4]"), 4, 1},
        {A("\"I64\"", "[1,3]", "[0,24]"), 24, 1},
        {"{\"b\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[4,8]},\"a\":" GOOD
         "}",
         8, 2},
        {"{\"~ !\\\"-/..\":" GOOD "}", 4, 1},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct safetensors st;
        struct error err = {0};
        size_t n;
        char *image = image_make(good[i].header, strlen(good[i].header), NULL,
                                 good[i].n_data, &n);
        if (safetensors_parse(image, n, "good", false, &st, &err) != STATUS_OK)
            fail_msg("%s: %s", good[i].header, err.message);
        assert_int_equal(st.n_tensors, good[i].n_tensors);
        if (st.n_tensors) {
            const struct safetensors_tensor *t =
                safetensors_find(&st, st.tensors[0].name);
            assert_ptr_equal(t, &st.tensors[0]);
            assert_null(safetensors_find(&st, "nothing"));
        }
        safetensors_close(&st);
        free(image);
    }
}

static void expect_open(const char *dir, enum status status, const char *words) {
    struct safetensors st;
    struct error err = {0};
    enum status found = safetensors_open(dir, false, &st, &err);
    if (found == STATUS_OK) {
        found = safetensors_read(&st, &err);
        safetensors_close(&st);
    }
    if (found != status || !strstr(err.message, words))
        fail_msg("%s \"%s\", expected %s \"%s\"", status_name(found), err.message,
                 status_name(status), words);
}

/* What is under the name is no file, or not one that can be read. */
static void refuses_files(void **state) {
    (void)state;
    char *dir = scratch_make();
    const char *path = scratch_path(dir, "model.safetensors");
    expect_open(dir, STATUS_NOT_FOUND, "No such file");
    expect_open("/nonexistent", STATUS_NOT_FOUND, "No such file");
    mkdir(path, 0700);
    expect_open(dir, INVALID, "is a directory");
    rmdir(path);
    mkfifo(path, 0600);
    expect_open(dir, INVALID, "is a FIFO");
    unlink(path);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    expect_open(dir, INVALID, "is a socket");
    close(fd);
    unlink(path);
    assert_int_equal(symlink("/dev/zero", path), 0);
    expect_open(dir, INVALID, "is a device");
    unlink(path);
    assert_int_equal(symlink("model.safetensors", path), 0);
    expect_open(dir, STATUS_IO, "Too many levels");
    unlink(path);
    if (geteuid() != 0) {
        scratch_write(path, "x", 1);
        chmod(path, 0);
        expect_open(dir, STATUS_IO, "Permission denied");
        unlink(path);
    }
    scratch_write(path, "", 0);
    expect_open(dir, INVALID, "has 0 bytes");
    assert_int_equal(truncate(path, (off_t)1 << 40), 0); /* sparse */
    expect_open(dir, STATUS_LIMIT, "the limit is");
    scratch_remove(dir);
}

/* Cut at every byte, and one byte changed at a time: never a crash, never the same hash. */
static void refuses_damage(void **state) {
    (void)state;
    static const char header[] =
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]}}";
    uint8_t data[32];
    size_t n, n_refused = 0;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7 % 61);
    char *image = image_make(header, sizeof header - 1, data, sizeof data, &n);
    struct safetensors st;
    for (size_t cut = 0; cut < n; cut++)
        assert_int_not_equal(safetensors_parse(image, cut, "cut", false, &st, NULL),
                             STATUS_OK);
    for (size_t at = 0; at < n; at++)
        for (int bit = 0; bit < 8; bit++) {
            image[at] = (char)(image[at] ^ 1 << bit);
            if (safetensors_parse(image, n, "flip", false, &st, NULL) == STATUS_OK)
                safetensors_close(&st);
            else
                n_refused++;
            image[at] = (char)(image[at] ^ 1 << bit);
        }
    print_message("  %zu of %zu flipped bits refused by structure\n", n_refused, 8 * n);
    assert_true(n_refused > 8 * (n - sizeof data) / 2);
    free(image);
}

#define INDEX(map) "{\"metadata\":{\"total_size\":8},\"weight_map\":" map "}"
static void reads_shards(void **state) {
    (void)state;
    static const struct {
        const char *index;
        const char *words;
    } rows[] = {
        {"[]", "no weight_map"},
        {"{}", "no weight_map"},
        {INDEX("[]"), "no weight_map"},
        {INDEX("{}"), "no weight_map"},
        {INDEX("{\"a\":1}"), "entry 0 is not a file name"},
        {INDEX("{\"a\":\"../x.safetensors\"}"), "is not a file name"},
        {INDEX("{\"a\":\"/etc/x.safetensors\"}"), "is not a file name"},
        {INDEX("{\"a\":\"d/x.safetensors\"}"), "is not a file name"},
        {INDEX("{\"a\":\"..safetensors\"}"), "is not a file name"},
        {INDEX("{\"a\":\"x.bin\"}"), "is not a file name"},
        {INDEX("{\"a\":\"x\\u0000.safetensors\"}"), "is not a file name"},
        {INDEX("{\"a\":\"\"}"), "is not a file name"},
        {INDEX("{\"a\":\"none.safetensors\"}"), "No such file"},
        {INDEX("{\"a\":\"1.safetensors\"}"), NULL},
        {INDEX("{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}"), NULL},
        {INDEX("{\"b\":\"1.safetensors\"}"),
         "lacks tensor \"a\", found in 1.safetensors"},
        {INDEX("{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\"}"), "found in"},
        {INDEX("{\"a\":\"1.safetensors\",\"c\":\"1.safetensors\"}"),
         "not there: \"c\""},
        {INDEX("{\"a\":\"1.safetensors\",\"b\":\"3.safetensors\"}"), "expected once"},
    };
    char *dir = scratch_make();
    size_t n;
    char *image =
        image_make("{\"a\":" GOOD "}", strlen("{\"a\":" GOOD "}"), NULL, 4, &n);
    scratch_write(scratch_path(dir, "1.safetensors"), image, n);
    scratch_write(scratch_path(dir, "3.safetensors"), image, n);
    memcpy(strstr(image + 8, "\"a\""), "\"b\"", 3);
    scratch_write(scratch_path(dir, "2.safetensors"), image, n);
    free(image);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        scratch_write(scratch_path(dir, SAFETENSORS_INDEX_FILE), rows[i].index,
                      strlen(rows[i].index));
        if (rows[i].words) {
            struct error err = {0};
            struct safetensors st;
            enum status status = safetensors_open(dir, false, &st, &err);
            if (status == STATUS_OK || !strstr(err.message, rows[i].words))
                fail_msg("%s: \"%s\", expected \"%s\"", rows[i].index, err.message,
                         rows[i].words);
        } else {
            expect_open(dir, STATUS_OK, "");
        }
    }
    scratch_remove(dir);
}

static void writes(void **state) {
    (void)state;
    static const float floats[] = {1.5f, -2.0f, 3.25f};
    static const uint16_t halves[] = {0x3C00, 0x0001};
    static const int8_t bytes[] = {-127, 0, 5, 127, 9};
    static const char *const metadata[] = {"format", "pt", "quote", "\"", NULL};
    const struct safetensors_tensor tensors[] = {
        {.name = "z", .data = bytes, .dtype = SAFETENSORS_I8, .n_dims = 1, .dims = {5}},
        {.name = "h",
         .data = halves,
         .dtype = SAFETENSORS_F16,
         .n_dims = 2,
         .dims = {1, 2}},
        {.name = "f",
         .data = floats,
         .dtype = SAFETENSORS_F32,
         .n_dims = 1,
         .dims = {3}},
    };
    char *dir = scratch_make();
    char sha256[2][SHA256_HEX_BYTES];
    for (int i = 0; i < 2; i++) {
        struct file_writer w;
        assert_int_equal(file_create(scratch_path(dir, "model.safetensors"), &w, NULL),
                         STATUS_OK);
        assert_int_equal(safetensors_write(&w, tensors, 3, metadata, sha256[i], NULL),
                         STATUS_OK);
        assert_int_equal(file_commit(&w, NULL), STATUS_OK);
    }
    assert_string_equal(sha256[0], sha256[1]);
    struct safetensors st;
    struct error err;
    assert_int_equal(safetensors_open(dir, false, &st, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "I8 in a model that is not quantised"));
    assert_int_equal(safetensors_open(dir, true, &st, &err), STATUS_OK);
    assert_int_equal(st.n_tensors, 3);
    assert_null(st.tensors[0].data);
    assert_int_equal(safetensors_read(&st, &err), STATUS_OK);
    assert_string_equal(st.sha256, sha256[0]);
    assert_memory_equal(safetensors_find(&st, "f")->data, floats, sizeof floats);
    assert_memory_equal(safetensors_find(&st, "h")->data, halves, sizeof halves);
    assert_memory_equal(safetensors_find(&st, "z")->data, bytes, sizeof bytes);
    assert_int_equal((uintptr_t)safetensors_find(&st, "f")->data % 64, 0);
    safetensors_close(&st);

    /* A file that grows between open and read. */
    assert_int_equal(safetensors_open(dir, true, &st, &err), STATUS_OK);
    FILE *f = fopen(scratch_path(dir, "model.safetensors"), "ab");
    fputc(0, f);
    fclose(f);
    assert_int_equal(safetensors_read(&st, &err), STATUS_IO);
    assert_non_null(strstr(err.message, "changed while it was read"));
    safetensors_close(&st);
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_headers), cmocka_unit_test(refuses_lengths),
        cmocka_unit_test(refuses_large),   cmocka_unit_test(refuses_values),
        cmocka_unit_test(accepts),         cmocka_unit_test(refuses_files),
        cmocka_unit_test(refuses_damage),  cmocka_unit_test(reads_shards),
        cmocka_unit_test(writes),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
