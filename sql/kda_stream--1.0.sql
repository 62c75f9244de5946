/* kda_stream 1.0.  One section a room; see src/ for what each does. */
\echo Use "CREATE EXTENSION kda_stream" to load this file. \quit

CREATE SCHEMA kda;
COMMENT ON SCHEMA kda IS 'kda_stream: functions and views for users of continuous queries';
GRANT USAGE ON SCHEMA kda TO PUBLIC;

CREATE SCHEMA kda_storage;
COMMENT ON SCHEMA kda_storage IS 'kda_stream: storage of streams and continuous queries; not for users';

/* ---------------------------------------------------------------- catalog */

CREATE SEQUENCE kda_storage.id_seq AS int;
COMMENT ON SEQUENCE kda_storage.id_seq IS 'numbers of streams and queries; storage tables are named after them';

-- Relations are stored as regclass: they follow renames, and a dump holds their names.
CREATE TABLE kda_storage.stream (
	stream_id	int PRIMARY KEY,
	rel			regclass NOT NULL UNIQUE,
	inbox		regclass,				-- rows of a database stream: the segment that is written now
	inbox2		regclass,				-- the other segment
	ring		regclass,				-- raw records of a source stream, UNLOGGED: the segment that is written now
	ring2		regclass,				-- the other segment
	segment_since timestamptz NOT NULL DEFAULT clock_timestamp(),	-- when they last changed places
	paused		boolean NOT NULL DEFAULT false,
	failure		text,					-- why the worker stopped it; NULL: it runs
	reset_wanted boolean NOT NULL DEFAULT false,	-- ALTER STREAM … RESET, until the worker did it
	start_again	boolean NOT NULL DEFAULT false		-- RESUME after a failure: begin at option start
);
COMMENT ON TABLE kda_storage.stream IS 'one row a stream';

CREATE TABLE kda_storage.stream_progress (
	stream_id	int PRIMARY KEY REFERENCES kda_storage.stream ON DELETE CASCADE,
	watermark	timestamptz,
	advanced	timestamptz,			-- the greatest kda.advance
	derived_sent timestamptz,			-- the greatest watermark that its pumps have put into its inbox
	derived		timestamptz,			-- the greatest of these that has been read from it
	start		text,					-- where reading began or will begin; NULL: no query yet
	-- position of a database stream: rows in progress in snapshot 1, or below snapshot 2's xmax and visible to it;
	-- within the commit being read, after (last_xid, last_seq)
	snapshot1	text,
	snapshot2	text,
	last_xid	xid8,
	last_seq	bigint,
	records_in	bigint NOT NULL DEFAULT 0,
	bytes_in	bigint NOT NULL DEFAULT 0,
	records_late bigint NOT NULL DEFAULT 0,
	records_failed bigint NOT NULL DEFAULT 0,
	records_skipped bigint NOT NULL DEFAULT 0,
	backpressured_ms bigint NOT NULL DEFAULT 0,
	last_commit	timestamptz,
	last_error	text,
	stats_reset	timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE kda_storage.stream_progress IS 'what each commit of a worker leaves behind of a stream';

CREATE TABLE kda_storage.shard (
	stream_id	int NOT NULL REFERENCES kda_storage.stream ON DELETE CASCADE,
	shard		text NOT NULL,
	slot		int NOT NULL DEFAULT 0,
	generation	bigint NOT NULL DEFAULT 0,
	position	bigint,					-- next offset to read; NULL: nothing read yet
	last_position bigint,				-- of the last applied record
	last_arrival timestamptz,
	last_crc	bigint,
	max_arrival	timestamptz,
	watermark	timestamptz,
	closed		boolean NOT NULL DEFAULT false,
	end_position bigint,				-- the end at the broker as last heard of
	idle		boolean NOT NULL DEFAULT false,
	PRIMARY KEY (stream_id, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE kda_storage.shard IS 'one row a shard of a source stream: position and watermark';

CREATE TABLE kda_storage.query (
	query_id	int PRIMARY KEY,
	rel			regclass NOT NULL UNIQUE,	-- the view that users read
	kind		text NOT NULL CHECK (kind IN ('view', 'pump')),
	definition	text NOT NULL,
	stream		regclass NOT NULL,
	shape		text NOT NULL CHECK (shape IN ('rows', 'groups', 'windows')),
	window_size	interval,
	window_offset interval,
	time_zone	text,
	emit		text NOT NULL CHECK (emit IN ('changes', 'close')),
	start		text NOT NULL,
	start_snapshot text,				-- database streams: transactions that had committed before CREATE are not counted
	stopped		boolean NOT NULL DEFAULT false,
	retention	interval,
	nkeys		int NOT NULL DEFAULT 0,
	batch		regclass NOT NULL,		-- view: the per-batch part
	final		regclass,				-- view over open: the final part
	open		regclass,				-- partial states
	closed		regclass,				-- final rows (views only)
	target		regclass,				-- pumps: stream or table
	insert_text	text,					-- pumps into tables: the INSERT over kda.emitted()
	target_columns text[]				-- pumps: INSERT INTO target (…); NULL: in the order of the target
);
COMMENT ON TABLE kda_storage.query IS 'one row a continuous view or pump';

CREATE TABLE kda_storage.query_progress (
	query_id	int PRIMARY KEY REFERENCES kda_storage.query ON DELETE CASCADE,
	joined		boolean NOT NULL DEFAULT false,	-- false: the worker has not taken it up yet
	frontier	timestamptz,			-- windows that end at or before this are closed
	complete_from timestamptz,
	failure		text,
	records_in	bigint NOT NULL DEFAULT 0,
	records_late bigint NOT NULL DEFAULT 0,
	records_out	bigint NOT NULL DEFAULT 0,
	open_windows bigint NOT NULL DEFAULT 0,
	groups		bigint NOT NULL DEFAULT 0,
	state_bytes	bigint NOT NULL DEFAULT 0,
	busy_ms		double precision NOT NULL DEFAULT 0,
	last_commit	timestamptz,
	last_error	text,
	stats_reset	timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE kda_storage.query_progress IS 'what each commit of a worker leaves behind of a query';

CREATE SEQUENCE kda_storage.error_id_seq;
CREATE TABLE kda_storage.error (
	error_id	bigint PRIMARY KEY DEFAULT nextval('kda_storage.error_id_seq'),
	error_time	timestamptz NOT NULL DEFAULT clock_timestamp(),
	error_level	text NOT NULL DEFAULT 'ERROR',
	error_name	text NOT NULL,
	message		text NOT NULL,
	stream		regclass,
	shard		text,
	position	text,
	data_rowtime timestamptz,
	data_row	bytea,
	data_text	text,
	query		regclass
);
COMMENT ON TABLE kda_storage.error IS 'records that were refused; users read kda.error_stream';

CREATE TABLE kda_storage.advance (
	stream_id	int NOT NULL,
	watermark	timestamptz NOT NULL
);
COMMENT ON TABLE kda_storage.advance IS 'kda.advance of source streams that a worker has still to apply';

CREATE TABLE kda_storage.origin (
	system_identifier	text NOT NULL,
	database_oid		oid NOT NULL,
	errors_forgotten	bigint NOT NULL DEFAULT 0	-- rows that have left kda.error_stream
);
COMMENT ON TABLE kda_storage.origin IS 'where these rows were written: tells a restored or copied database from the original';

SELECT pg_catalog.pg_extension_config_dump('kda_storage.id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.error_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.stream', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.stream_progress', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.shard', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.query', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.query_progress', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.error', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.origin', '');

/* -------------------------------------------------------------- connector */

/* ----------------------------------------------------------------- stream */

/* ------------------------------------------------------------------ query */

/* ---------------------------------------------------------------- runtime */

/* ---------------------------------------------------------------- dialect */

