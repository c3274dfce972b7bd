-- SPDX-License-Identifier: Apache-2.0
--
-- 001.sql - the store's first schema, in words that SQLite and PostgreSQL both understand.
--
-- Between @ signs stand the words that differ (database.h): @INTEGER@ 64 bits, @TEXT@ ordered
-- by bytes in both, @BYTES@, @REAL@ 64 bits, @ID@ a key that numbers itself and never gives a
-- number twice, @STRICT@ and @KEYED@ (the row lies in its primary key) close a table.
--
-- All moments are ns since 1970 (…_ns), but for those of the queue, which are of @NOW@'s clock.
-- What is unknown is '' or 0, not NULL. key_hash: the first 16 bytes of the SHA-256 of a
-- post's key ("source:native id"), where only sameness counts.
--
-- Few indexes: posts come in at more than 50,000 a second. What is seldom asked (erasing all
-- of an author) reads the table from end to end.

-- Raw lines as the sources sent them, from when they are durable until they are read.
CREATE TABLE raw (
  id          @ID@,
  source      @TEXT@ NOT NULL,
  received_ns @INTEGER@ NOT NULL,
  line        @BYTES@ NOT NULL,
  tries       @INTEGER@ NOT NULL DEFAULT 0  -- readings that did not come to an end
) @STRICT@;

-- Posts, each once, in its newest version. One of aggregate mode is here until its result is.
CREATE TABLE posts (
  id           @ID@,                         -- rises as posts come in; never the same again
  key          @TEXT@ NOT NULL UNIQUE,       -- "source:native id", or "source:~HASH"
  version      @INTEGER@ NOT NULL,           -- the larger wins
  source       @TEXT@ NOT NULL,
  mode         @INTEGER@ NOT NULL,           -- 0 pseudonymous, 1 full, 2 aggregate
  author       @TEXT@ NOT NULL DEFAULT '',   -- a keyed hash, or plain in full mode
  text         @TEXT@ NOT NULL,
  lang         @TEXT@ NOT NULL DEFAULT '',
  place        @TEXT@ NOT NULL DEFAULT '',   -- what the author says of where he is
  city         @TEXT@ NOT NULL DEFAULT '',   -- what the gazetteer makes of it
  state        @TEXT@ NOT NULL DEFAULT '',   -- "US-CA"
  country      @TEXT@ NOT NULL DEFAULT '',   -- "US"
  drugs        @TEXT@ NOT NULL DEFAULT '[]', -- JSON: [{"drug","name","begin","end"}]
  url          @TEXT@ NOT NULL DEFAULT '',
  posted_ns    @INTEGER@ NOT NULL DEFAULT 0, -- by the source's word
  received_ns  @INTEGER@ NOT NULL,           -- by our clock, of this version
  fingerprint  @INTEGER@ NOT NULL DEFAULT 0, -- of the words, 64 bits; 0: none
  n_reposts    @INTEGER@ NOT NULL DEFAULT 0, -- rows of folds, by kind
  n_quotes     @INTEGER@ NOT NULL DEFAULT 0,
  n_duplicates @INTEGER@ NOT NULL DEFAULT 0
) @STRICT@;

-- Posts that wait for a result. No foreign key: deleting a post would read the whole queue.
-- The unique index is also the order of work: of one model, the oldest post first.
CREATE TABLE queue (
  id             @ID@,
  post_id        @INTEGER@ NOT NULL,
  version        @INTEGER@ NOT NULL,            -- of the post that is to be classified
  model          @TEXT@ NOT NULL DEFAULT '',    -- '': whatever serves; a rerun: the SHA-256
  worker         @TEXT@ NOT NULL DEFAULT '',    -- who has it, "host:pid"; '': nobody
  lease_until_ns @INTEGER@ NOT NULL DEFAULT 0,  -- by @NOW@: until then it is the worker's
  not_before_ns  @INTEGER@ NOT NULL DEFAULT 0,  -- by @NOW@: a retry waits so long
  claims         @INTEGER@ NOT NULL DEFAULT 0,  -- so far; its number proves that one holds
  tries          @INTEGER@ NOT NULL DEFAULT 0,  -- claims that ended with a failure
  lapses         @INTEGER@ NOT NULL DEFAULT 0,  -- claims that ended without a word
  UNIQUE (model, post_id)
) @STRICT@;

-- What a model said of a version of a post. Those of other models and versions stay beside it.
CREATE TABLE results (
  post_id      @INTEGER@ NOT NULL REFERENCES posts (id) ON DELETE CASCADE,
  version      @INTEGER@ NOT NULL,
  model_sha256 @TEXT@ NOT NULL,
  model_name   @TEXT@ NOT NULL,
  dtype        @TEXT@ NOT NULL,
  label        @TEXT@ NOT NULL,
  score        @REAL@ NOT NULL,    -- of the label
  probability  @REAL@ NOT NULL,    -- of Adverse_Event
  threshold    @REAL@ NOT NULL,    -- at and above which it was one
  band         @TEXT@ NOT NULL,    -- "positive", "review", "negative"
  n_tokens     @INTEGER@ NOT NULL,
  n_windows    @INTEGER@ NOT NULL,
  is_truncated @INTEGER@ NOT NULL, -- 0, 1
  created_ns   @INTEGER@ NOT NULL,
  PRIMARY KEY (post_id, version, model_sha256)
) @KEYED@;

-- Places in a post's text, of a result: what the model found, and what the watch list did.
CREATE TABLE mentions (
  post_id      @INTEGER@ NOT NULL,
  version      @INTEGER@ NOT NULL,
  model_sha256 @TEXT@ NOT NULL,
  n            @INTEGER@ NOT NULL,            -- from 0
  type         @TEXT@ NOT NULL,               -- "DRUG", "ADE": the model's; "WATCH": the list's
  text         @TEXT@ NOT NULL,
  drug         @TEXT@ NOT NULL DEFAULT '',    -- by its name in the watch list
  begin_cp     @INTEGER@ NOT NULL,            -- code points, the end exclusive
  end_cp       @INTEGER@ NOT NULL,
  score        @REAL@ NOT NULL,
  PRIMARY KEY (post_id, version, model_sha256, n),
  FOREIGN KEY (post_id, version, model_sha256)
    REFERENCES results (post_id, version, model_sha256) ON DELETE CASCADE
) @KEYED@;

-- What people decided about a result. None is changed; the newest holds.
CREATE TABLE reviews (
  post_id      @INTEGER@ NOT NULL,
  version      @INTEGER@ NOT NULL,
  model_sha256 @TEXT@ NOT NULL,
  created_ns   @INTEGER@ NOT NULL,
  reviewer     @TEXT@ NOT NULL,
  decision     @TEXT@ NOT NULL,               -- "confirmed", "rejected", "unsure"
  label        @TEXT@ NOT NULL DEFAULT '',    -- what it should have been
  reason       @TEXT@ NOT NULL DEFAULT '',
  PRIMARY KEY (post_id, version, model_sha256, created_ns, reviewer),
  FOREIGN KEY (post_id, version, model_sha256)
    REFERENCES results (post_id, version, model_sha256) ON DELETE CASCADE
) @KEYED@;

-- Reposts, quotes and near-duplicates that were counted on a post, so that each counts once.
CREATE TABLE folds (
  key_hash   @BYTES@ NOT NULL PRIMARY KEY, -- of the repost
  into_hash  @BYTES@ NOT NULL,             -- of the post that it was counted on
  post_id    @INTEGER@ NOT NULL DEFAULT 0, -- its id, when it was there; for taking it back
  kind       @INTEGER@ NOT NULL,           -- 1 repost, 2 quote, 3 duplicate
  source     @TEXT@ NOT NULL,
  created_ns @INTEGER@ NOT NULL
) @KEYED@;
CREATE INDEX folds_by_into ON folds (into_hash);

-- What was erased or withdrawn, so that it does not come back.
CREATE TABLE tombstones (
  key_hash   @BYTES@ NOT NULL PRIMARY KEY,
  created_ns @INTEGER@ NOT NULL,
  is_kept    @INTEGER@ NOT NULL -- 1: for ever; 0: nothing of it has been here yet
) @KEYED@;

-- Posts of aggregate mode that are counted and gone, so that none counts twice.
CREATE TABLE seen (
  key_hash   @BYTES@ NOT NULL PRIMARY KEY,
  version    @INTEGER@ NOT NULL,
  created_ns @INTEGER@ NOT NULL
) @KEYED@;

-- Counts of posts of aggregate mode. A post with two drugs counts under each.
CREATE TABLE aggregates (
  day          @TEXT@ NOT NULL, -- "2026-11-26", UTC, when it was posted
  source       @TEXT@ NOT NULL,
  drug         @TEXT@ NOT NULL, -- '': none
  label        @TEXT@ NOT NULL,
  lang         @TEXT@ NOT NULL,
  country      @TEXT@ NOT NULL,
  state        @TEXT@ NOT NULL,
  n_posts      @INTEGER@ NOT NULL DEFAULT 0,
  n_reposts    @INTEGER@ NOT NULL DEFAULT 0,
  n_quotes     @INTEGER@ NOT NULL DEFAULT 0,
  n_duplicates @INTEGER@ NOT NULL DEFAULT 0,
  PRIMARY KEY (day, source, drug, label, lang, country, state)
) @KEYED@;

-- Where each source goes on after a restart.
CREATE TABLE cursors (
  source     @TEXT@ NOT NULL PRIMARY KEY,
  cursor     @TEXT@ NOT NULL,
  updated_ns @INTEGER@ NOT NULL
) @KEYED@;

-- What could not be used, with the reason (without the post's text), for `vigil dlq`.
CREATE TABLE dead_letters (
  id          @ID@,
  created_ns  @INTEGER@ NOT NULL,
  stage       @TEXT@ NOT NULL,               -- "parse", "classify"
  source      @TEXT@ NOT NULL,
  key         @TEXT@ NOT NULL DEFAULT '',
  post_id     @INTEGER@ NOT NULL DEFAULT 0,  -- of stage "classify"; no foreign key
  version     @INTEGER@ NOT NULL DEFAULT 0,
  model       @TEXT@ NOT NULL DEFAULT '',    -- as in queue
  tries       @INTEGER@ NOT NULL DEFAULT 0,
  received_ns @INTEGER@ NOT NULL DEFAULT 0,
  reason      @TEXT@ NOT NULL,
  body        @BYTES@ NOT NULL,              -- the raw line of stage "parse"
  body_hash   @BYTES@ NOT NULL               -- of source and body: a line lies here once
) @STRICT@;
CREATE INDEX dead_letters_by_key ON dead_letters (key) WHERE key <> '';
CREATE INDEX dead_letters_by_body ON dead_letters (body_hash) WHERE stage = 'parse';

-- Who did what: each row's hash covers its fields and the hash before it.
CREATE TABLE audit (
  seq      @INTEGER@ NOT NULL PRIMARY KEY,   -- 1, 2, 3, … without a gap
  at_ns    @INTEGER@ NOT NULL,
  actor    @TEXT@ NOT NULL,
  action   @TEXT@ NOT NULL,
  subject  @TEXT@ NOT NULL,                  -- a key or a hash
  details  @TEXT@ NOT NULL,                  -- a JSON object
  previous @TEXT@ NOT NULL,                  -- hash of seq - 1; '' of the first
  hash     @TEXT@ NOT NULL                   -- SHA-256 in hex
) @STRICT@;

-- Files that `vigil export` writes, and which results belong into each (lake.h). No foreign
-- key: a row here whose result is gone says that its file has to be written anew.
CREATE TABLE lake_files (
  id         @ID@,
  folder     @TEXT@ NOT NULL,                -- absolute; dt=…/source=… are below it
  source     @TEXT@ NOT NULL,
  day        @INTEGER@ NOT NULL,             -- of the partition, since 1970
  name       @TEXT@ NOT NULL DEFAULT '',     -- of the file, from its first rows
  is_done    @INTEGER@ NOT NULL DEFAULT 0,   -- it lies there, with these:
  n_rows     @INTEGER@ NOT NULL DEFAULT 0,
  n_bytes    @INTEGER@ NOT NULL DEFAULT 0,
  sha256     @TEXT@ NOT NULL DEFAULT '',
  created_ns @INTEGER@ NOT NULL
) @STRICT@;
CREATE TABLE lake_rows (
  post_id      @INTEGER@ NOT NULL,
  version      @INTEGER@ NOT NULL,
  model_sha256 @TEXT@ NOT NULL,
  file_id      @INTEGER@ NOT NULL,
  PRIMARY KEY (post_id, version, model_sha256)
) @KEYED@;
CREATE INDEX lake_rows_by_file ON lake_rows (file_id);

-- ---- For analysts ----

-- Of each post the newest result of its present version.
CREATE VIEW results_latest AS
SELECT r.post_id, r.version, r.model_sha256, r.model_name, r.dtype, r.label, r.score,
       r.probability, r.threshold, r.band, r.n_tokens, r.n_windows, r.is_truncated,
       r.created_ns
FROM posts p
JOIN results r ON r.post_id = p.id AND r.version = p.version
WHERE NOT EXISTS (
  SELECT 1 FROM results o
  WHERE o.post_id = r.post_id AND o.version = r.version
    AND (o.created_ns, o.model_sha256) > (r.created_ns, r.model_sha256));

-- Posts with what is known of them: one row a post that has a result.
CREATE VIEW classified AS
SELECT p.id, p.key, p.version, p.source, p.author, p.text, p.lang, p.place, p.city, p.state,
       p.country, p.drugs, p.url, p.posted_ns, p.received_ns, p.n_reposts, p.n_quotes,
       p.n_duplicates, r.label, r.score, r.probability, r.threshold, r.band, r.n_tokens,
       r.n_windows, r.is_truncated, r.model_name, r.model_sha256, r.dtype, r.created_ns
FROM posts p
JOIN results_latest r ON r.post_id = p.id;

-- Those that report an adverse event, for a person to look at.
CREATE VIEW cases AS
SELECT * FROM classified WHERE band <> 'negative';

-- Drug × label: how many posts (each counts once for a drug, however often it names it), and
-- how many reposts, quotes and duplicates of them were folded; with the posts that are
-- counted alone.
CREATE VIEW drug_labels AS
SELECT drug, label, sum(n_posts) AS n, sum(n_folded) AS n_folded
FROM (
  SELECT m.drug, r.label, 1 AS n_posts,
         p.n_reposts + p.n_quotes + p.n_duplicates AS n_folded
  FROM results_latest r
  JOIN posts p ON p.id = r.post_id
  JOIN (SELECT DISTINCT post_id, version, model_sha256, drug
        FROM mentions WHERE type = 'WATCH') m
    ON m.post_id = r.post_id AND m.version = r.version
   AND m.model_sha256 = r.model_sha256
  UNION ALL
  SELECT drug, label, n_posts, n_reposts + n_quotes + n_duplicates
  FROM aggregates WHERE drug <> '') AS each_post
GROUP BY drug, label;
