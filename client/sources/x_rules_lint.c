/* SPDX-License-Identifier: Apache-2.0
 *
 * x_rules_lint.c - what can be wrong with a rule's text, found in one pass over it.
 */
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "client/sources/x_rules.h"

#define MAX_DEPTH 32

/* Operators that may stand alone, and those that need one of them (or a word) beside. */
static const char *const alone[] = {"from",
                                    "to",
                                    "url",
                                    "retweets_of",
                                    "context",
                                    "entity",
                                    "conversation_id",
                                    "list",
                                    "place",
                                    "place_country",
                                    "point_radius",
                                    "bounding_box",
                                    "bio",
                                    "user_bio",
                                    "bio_name",
                                    "bio_location",
                                    "user_bio_location",
                                    "url_title",
                                    "url_description",
                                    "url_contains",
                                    "source",
                                    "in_reply_to_tweet_id",
                                    "retweets_of_tweet_id",
                                    "quotes_of_tweet_id",
                                    "followers_count",
                                    "tweets_count",
                                    "following_count",
                                    "listed_count",
                                    "embedding",
                                    NULL};
static const char *const beside[] = {
    "is", "has", "lang", "sample", "embedding_threshold", NULL};
static const char *const is_values[] = {"retweet",  "reply",    "quote",
                                        "verified", "nullcast", NULL};
static const char *const has_values[] = {"hashtags", "cashtags", "links",  "mentions",
                                         "media",    "images",   "videos", "video_link",
                                         "geo",      NULL};

static const char *const not_operators[] = {"or", "and", NULL};

static bool is_among(struct view word, const char *const *names) {
    for (; *names; names++)
        if (strlen(*names) == word.n_bytes &&
            strncasecmp(*names, word.data, word.n_bytes) == 0)
            return true;
    return false;
}

struct lint {
    struct view rule;
    size_t at;
    size_t depth;
    struct {
        bool has_or, has_and, has_term, is_behind_or;
    } levels[MAX_DEPTH + 1];
    bool has_positive; /* something to look for */
    bool is_negated;   /* '-' was read */
    bool last_was_negated;
    struct error *err;
};

static enum status bad(const struct lint *l, const char *what) {
    return error_set(l->err, STATUS_INVALID, "rule, byte %zu: %s", l->at, what);
}

/* A term or a group begins. */
static enum status begin_term(struct lint *l) {
    if (l->levels[l->depth].has_term && !l->levels[l->depth].is_behind_or)
        l->levels[l->depth].has_and = true;
    l->levels[l->depth].has_term = true;
    if (l->levels[l->depth].has_and && l->levels[l->depth].has_or)
        return bad(l, "OR beside AND without parentheses: AND binds first");
    if (l->is_negated && (l->levels[l->depth].is_behind_or))
        return bad(l, "a negated term cannot be an alternative of OR");
    l->levels[l->depth].is_behind_or = false;
    l->last_was_negated = l->is_negated;
    return STATUS_OK;
}

static enum status take_or(struct lint *l) {
    if (l->is_negated)
        return bad(l, "OR cannot be negated");
    if (!l->levels[l->depth].has_term || l->levels[l->depth].is_behind_or)
        return bad(l, "OR without a term before it");
    if (l->levels[l->depth].has_and)
        return bad(l, "OR beside AND without parentheses: AND binds first");
    if (l->last_was_negated)
        return bad(l, "a negated term cannot be an alternative of OR");
    l->levels[l->depth].has_or = l->levels[l->depth].is_behind_or = true;
    return STATUS_OK;
}

static enum status open_group(struct lint *l) {
    if (l->is_negated)
        return bad(l, "a group cannot be negated: negate each term");
    enum status status = begin_term(l);
    if (status != STATUS_OK)
        return status;
    if (l->depth == MAX_DEPTH)
        return bad(l, "parentheses too deep");
    l->depth++;
    memset(&l->levels[l->depth], 0, sizeof(l->levels[l->depth]));
    return STATUS_OK;
}

static enum status close_group(struct lint *l) {
    if (l->is_negated)
        return bad(l, "'-' without a term");
    if (l->depth == 0)
        return bad(l, "')' without '('");
    if (!l->levels[l->depth].has_term)
        return bad(l, "empty parentheses");
    if (l->levels[l->depth].is_behind_or)
        return bad(l, "OR without a term behind it");
    l->depth--;
    l->last_was_negated = false;
    return STATUS_OK;
}

/* A quoted string ends at the next quote; \" is one inside. */
static enum status skip_quoted(struct lint *l) {
    size_t begin = ++l->at;
    while (l->at < l->rule.n_bytes && l->rule.data[l->at] != '"')
        l->at += l->rule.data[l->at] == '\\' ? 2 : 1;
    if (l->at >= l->rule.n_bytes)
        return bad(l, "a quote is not closed");
    if (l->at == begin)
        return bad(l, "nothing between quotes");
    l->at++;
    return STATUS_OK;
}

/* "lang:en", "from:somebody": is there such an operator, and does it stand alone? */
static enum status check_operator(struct lint *l, struct view name, struct view value) {
    if (is_among(name, alone)) {
        l->has_positive |= !l->is_negated;
    } else if (!is_among(name, beside)) {
        return bad(l, "an operator that X does not have (quote it if it is text)");
    } else if (strncasecmp(name.data, "is", name.n_bytes) == 0) {
        if (!is_among(value, is_values))
            return bad(l, "is: with something that X does not know");
        if (!l->is_negated && strncasecmp(value.data, "nullcast", value.n_bytes) == 0)
            return bad(l, "is:nullcast must be negated");
    } else if (strncasecmp(name.data, "has", name.n_bytes) == 0 &&
               !is_among(value, has_values)) {
        return bad(l, "has: with something that X does not know");
    }
    return STATUS_OK;
}

static enum status take_word(struct lint *l) {
    size_t begin = l->at, colon = 0;
    bool has_colon = false;
    while (l->at < l->rule.n_bytes && !strchr(" \t()", l->rule.data[l->at])) {
        char c = l->rule.data[l->at];
        if (c == '"') {
            if (!has_colon || l->at != colon + 1)
                return bad(l, "a quote inside a word");
            enum status status = skip_quoted(l);
            if (status != STATUS_OK)
                return status;
            continue;
        }
        if (c == '[' && has_colon && l->at == colon + 1) { /* point_radius:[1 2 3km] */
            const char *end =
                memchr(l->rule.data + l->at, ']', l->rule.n_bytes - l->at);
            if (!end)
                return bad(l, "'[' is not closed");
            l->at = (size_t)(end + 1 - l->rule.data);
            continue;
        }
        if (c == ':' && !has_colon) {
            has_colon = true;
            colon = l->at;
        }
        l->at++;
    }
    struct view word = view_of(l->rule.data + begin, l->at - begin);
    if (view_equal(word, VIEW("OR")))
        return take_or(l);
    if (is_among(word, not_operators))
        return bad(l,
                   "AND is a space, OR has capital letters (quote it if it is text)");
    enum status status = begin_term(l);
    if (status != STATUS_OK)
        return status;
    if (has_colon && colon + 1 == l->at)
        return bad(l, "an operator without a value");
    if (has_colon)
        return check_operator(l, view_of(word.data, colon - begin),
                              view_of(l->rule.data + colon + 1, l->at - colon - 1));
    l->has_positive |= !l->is_negated;
    return STATUS_OK;
}

static enum status take(struct lint *l) {
    char c = l->rule.data[l->at];
    enum status status = STATUS_OK;
    if (c == ' ' || c == '\t') {
        l->at++;
        return l->is_negated ? bad(l, "'-' without a term") : STATUS_OK;
    }
    if (c == '-' && !l->is_negated) {
        l->is_negated = true;
        l->at++;
        return STATUS_OK;
    }
    if (c == '(')
        status = open_group(l);
    else if (c == ')')
        status = close_group(l);
    if (c == '(' || c == ')') {
        l->at++;
        return status;
    }
    if (c == '"') {
        status = begin_term(l);
        if (status == STATUS_OK)
            status = skip_quoted(l);
        l->has_positive |= !l->is_negated;
    } else {
        status = take_word(l);
    }
    l->is_negated = false;
    return status;
}

enum status x_rule_lint(struct view value, size_t max_bytes, struct error *err) {
    struct lint l = {.rule = value, .err = err};
    enum status status = STATUS_OK;
    if (value.n_bytes > max_bytes)
        return error_set(err, STATUS_INVALID, "a rule of %zu bytes, at most %zu",
                         value.n_bytes, max_bytes);
    for (; l.at < value.n_bytes; l.at++)
        if ((unsigned char)value.data[l.at] < ' ' && value.data[l.at] != '\t')
            return bad(&l, "a control character");
    l.at = 0;
    while (status == STATUS_OK && l.at < value.n_bytes)
        status = take(&l);
    if (status != STATUS_OK)
        return status;
    if (l.is_negated)
        return bad(&l, "'-' without a term");
    if (l.depth > 0)
        return bad(&l, "'(' is not closed");
    if (l.levels[0].is_behind_or)
        return bad(&l, "OR without a term behind it");
    if (!l.has_positive)
        return bad(&l, "nothing to look for: a word or phrase that is not negated");
    return STATUS_OK;
}
