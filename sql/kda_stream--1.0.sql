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

-- Relations are stored as regclass: they follow renames, and a dump holds their names.  No foreign keys: pg_restore
-- fills these tables in parallel.
CREATE TABLE kda_storage.stream (
	stream_id	int PRIMARY KEY,
	rel			regclass NOT NULL UNIQUE,
	inbox		regclass,				-- rows of a database stream, or what the slots of a source stream hand to slot 0: the segment that is written now
	inbox2		regclass,				-- the other segment
	ring		regclass,				-- raw records of a source stream, UNLOGGED: the segment that is written now
	ring2		regclass,				-- the other segment
	segment_since timestamptz NOT NULL DEFAULT clock_timestamp(),	-- when they last changed places
	origin		text NOT NULL,			-- system identifier/database OID: tells a restored or copied row from an original
	paused		boolean NOT NULL DEFAULT false,
	failure		text,					-- why the worker stopped it; NULL: it runs
	resets_wanted bigint NOT NULL DEFAULT 0,	-- how often ALTER STREAM ... RESET was said; stream_progress.resets_done says how many are done
	reset_behind boolean NOT NULL DEFAULT false,	-- the next is behind what its inbox holds, or where that has a row that says so
	start_again	boolean NOT NULL DEFAULT false,		-- RESUME after a failure: begin at option start
	part_of		int						-- made for a part of that query, or to hand its rows on; NULL: a user's stream
);
COMMENT ON TABLE kda_storage.stream IS 'one row a stream';

CREATE TABLE kda_storage.stream_progress (
	stream_id	int PRIMARY KEY,
	watermark	timestamptz,
	advanced	timestamptz,			-- the greatest kda.advance
	derived_sent timestamptz,			-- the greatest watermark that its pumps have put into its inbox
	derived		timestamptz,			-- the greatest of these that has been read from it
	start		text,					-- where reading began or will begin; NULL: no query yet
	start_set	timestamptz,			-- when that was said
	-- position of a database stream: rows in progress in snapshot 1, or below snapshot 2's xmax and visible to it;
	-- within the commit being read, after (last_xid, last_seq)
	snapshot1	text,
	snapshot2	text,
	last_xid	xid8,
	last_seq	bigint,
	has_read	boolean NOT NULL DEFAULT false,	-- a record has been committed since start
	declared	bigint NOT NULL DEFAULT 0,	-- counts its queries: a worker that does not know the last one does not commit
	begun		bigint NOT NULL DEFAULT 0,	-- declared, when reading began anew with a first query
	slotted		boolean NOT NULL DEFAULT false,	-- several slots have read it: states of its queries may be in parts
	coming		timestamptz,			-- several slots: the watermark that they have still to accept before windows close
	records_in	bigint NOT NULL DEFAULT 0,
	bytes_in	bigint NOT NULL DEFAULT 0,
	records_late bigint NOT NULL DEFAULT 0,
	records_failed bigint NOT NULL DEFAULT 0,
	records_skipped bigint NOT NULL DEFAULT 0,
	backpressured_ms bigint NOT NULL DEFAULT 0,
	last_commit	timestamptz,
	last_error	text,
	stats_reset	timestamptz,
	resets_done	bigint NOT NULL DEFAULT 0,
	relayed		boolean NOT NULL DEFAULT false	-- source streams: queries that one slot has to run read what the slots hand on; how far is
											-- said by snapshot1 ... and derived
) WITH (fillfactor = 50);
COMMENT ON TABLE kda_storage.stream_progress IS 'what each commit of a worker leaves behind of a stream';

CREATE TABLE kda_storage.shard (
	stream_id	int NOT NULL,
	shard		text NOT NULL,
	slot		int NOT NULL DEFAULT 0,	-- of its worker: that process alone reads it and writes this row
	position	bigint,					-- next offset to read; NULL: nothing read yet
	from_first	boolean NOT NULL DEFAULT false,	-- appeared while the stream was read: begins with its first record
	last_position bigint,				-- of the last applied record
	last_arrival timestamptz,
	last_crc	bigint,
	-- of sources whose places have names of their own; position then counts records
	mark		text,					-- of the last applied record, or where reading began
	complete_to	timestamptz,			-- what had arrived by then has been read
	identity	text,					-- of what was read: another one of the same name has another
	parent1		text,					-- shards whose records come first
	parent2		text,
	millis_behind bigint,				-- as last heard of
	max_arrival	timestamptz,
	watermark	timestamptz,
	closed		boolean NOT NULL DEFAULT false,
	end_position bigint,				-- the end at the broker as last heard of
	idle		boolean NOT NULL DEFAULT false,
	PRIMARY KEY (stream_id, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE kda_storage.shard IS 'one row a shard of a source stream: position and watermark';

-- Rows only of streams that several processes read.  Each slot updates its own row in every commit; whoever changes
-- generation takes the shards and states away from the process that runs as that slot.
CREATE TABLE kda_storage.slot (
	stream_id	int NOT NULL,
	slot		int NOT NULL,
	generation	bigint NOT NULL,
	accepted	timestamptz,			-- this and all later batches of the slot count no record as in time that is late for this watermark
	PRIMARY KEY (stream_id, slot)
) WITH (fillfactor = 50);
COMMENT ON TABLE kda_storage.slot IS 'one row a process that reads a share of a stream''s shards';

CREATE TABLE kda_storage.query (
	query_id	int PRIMARY KEY,
	rel			regclass NOT NULL UNIQUE,	-- the view that users read
	kind		text NOT NULL CHECK (kind IN ('view', 'pump')),
	definition	text NOT NULL,
	stream		regclass NOT NULL,
	shape		text NOT NULL CHECK (shape IN ('rows', 'groups', 'windows', 'join', 'over')),
	state		text CHECK (state IN ('groups', 'rows')),	-- what is kept: partial aggregates, or the records' columns
	window_spec	text,					-- description of the windows: src/stream/window.h
	per_window	boolean NOT NULL DEFAULT false,	-- the final part is more than groups: it runs for each window as a whole
	emit		text NOT NULL CHECK (emit IN ('changes', 'close', 'every')),
	start		text NOT NULL,
	start_snapshot text,				-- database streams: transactions that had committed before CREATE are not counted
	stopped		boolean NOT NULL DEFAULT false,
	retention	interval,
	nkeys		int NOT NULL DEFAULT 0,
	batch		regclass NOT NULL,		-- view: the per-batch part
	final		regclass,				-- view over open: the final part
	open		regclass,				-- what is kept
	closed		regclass,				-- final rows (views only)
	target		regclass,				-- pumps: stream or table, the INSERT is a rule of rel; views: the stream that hands their rows on to other queries
	shown		regclass,				-- rows as they were emitted last, of windows that may still be emitted again; NULL: each window is emitted once
	search_path	text NOT NULL,			-- that it was declared under: functions of users see it
	part_of		int,					-- the query that this is a part of, NULL: it is one of its own
	-- joins of streams: the right side; rows match when right time - left time is within [low, high]
	stream2		regclass,
	batch2		regclass,
	open2		regclass,
	start_snapshot2 text,
	join_low_us	bigint,
	join_high_us bigint,
	-- row-sliding queries (OVER) and sorts
	delay_us	bigint,					-- rows leave this long after their time
	sort_strict	boolean NOT NULL DEFAULT false,	-- ... and those of one time together: they are sorted by more than it
	retimed		boolean NOT NULL DEFAULT false,	-- its rows leave with another time than the record's: what they are sorted by
	prune_text	text,					-- DELETE of what no row to come can see; $1: rows up to there have left
	join_outer	int,					-- 1: unmatched rows of the left side leave, 2: of the right one, 3: of both
	-- emission, see src/query/shown.h
	every_us	bigint,					-- EMIT EVERY
	shown_keys	text,					-- numbers of the columns that tell a window's rows apart; NULL: only all of them do
	revision_columns text,				-- numbers of the columns that are window_revision
	one_slot	text					-- why one process has to see all records of its stream (src/runtime/relay.c); NULL: they may be divided
);
COMMENT ON TABLE kda_storage.query IS 'one row a continuous view or pump';

CREATE TABLE kda_storage.query_progress (
	query_id	int PRIMARY KEY,
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
	stats_reset	timestamptz,
	forgotten	timestamptz,			-- windows that end at or before this are not corrected any more; NULL: as frontier
	emitted_at	timestamptz,			-- EMIT EVERY: when changes were emitted last
	reset_sides	int NOT NULL DEFAULT 0	-- joins: sides (1, 2) that have been reset, while their rows wait for the other side
) WITH (fillfactor = 50);
COMMENT ON TABLE kda_storage.query_progress IS 'what each commit of a worker leaves behind of a query';

-- Rows only of queries whose state is in parts.
CREATE TABLE kda_storage.query_share (
	query_id	int NOT NULL,
	slot		int NOT NULL,
	open_windows bigint NOT NULL,
	groups		bigint NOT NULL,
	state_bytes	bigint NOT NULL,
	PRIMARY KEY (query_id, slot)
) WITH (fillfactor = 50);
COMMENT ON TABLE kda_storage.query_share IS 'what slots other than 0 keep of a query';

CREATE TABLE kda_storage.sort_mark (
	query_id	int NOT NULL,
	shard		text NOT NULL,
	greatest	timestamptz NOT NULL,
	PRIMARY KEY (query_id, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE kda_storage.sort_mark IS 'of a query that gives its rows another time: the greatest one seen in each shard';

CREATE TABLE kda_storage.output (
	output_id	int PRIMARY KEY,
	rel			regclass NOT NULL UNIQUE,	-- the stream that is written, or the foreign table of CREATE OUTPUT
	source		regclass,				-- CREATE OUTPUT ... FROM: that stream; NULL: it is written by INSERT and pumps
	pump		regclass,				-- ... and the pump that takes its rows to the outbox
	box			regclass NOT NULL,		-- the outbox: the segment that is written now
	box2		regclass NOT NULL,		-- the other segment
	segment_since timestamptz NOT NULL DEFAULT clock_timestamp(),	-- when they last changed places
	origin		text NOT NULL,			-- as of kda_storage.stream
	paused		boolean NOT NULL DEFAULT false,	-- ALTER OUTPUT ... PAUSE; of a stream that is written kda_storage.stream says it
	failure		text,					-- why it is not delivered any more; NULL: it is
	identity	text NOT NULL DEFAULT gen_random_uuid()::text	-- part of the name of its mark at the other side: no other output ever has it
);
COMMENT ON TABLE kda_storage.output IS 'one row an output, made with its first row';

CREATE TABLE kda_storage.output_progress (
	output_id	int PRIMARY KEY,
	-- how far the outbox has been sealed, as stream_progress says it of an inbox
	snapshot1	text,
	snapshot2	text,
	last_xid	xid8,
	last_seq	bigint,
	sealed		bigint NOT NULL DEFAULT 0,	-- number of the last record that has one
	delivered	bigint NOT NULL DEFAULT 0,	-- ... up to which all have been delivered or refused
	records_out	bigint NOT NULL DEFAULT 0,
	records_failed bigint NOT NULL DEFAULT 0,
	records_again bigint NOT NULL DEFAULT 0,	-- had been delivered by a server that this one has taken over from, and were sent again
	retries		bigint NOT NULL DEFAULT 0,
	last_delivery timestamptz,
	last_error	text,
	stats_reset	timestamptz,
	passed_mark	text					-- the last mark behind this server's history whose records are in records_again
) WITH (fillfactor = 50);
COMMENT ON TABLE kda_storage.output_progress IS 'what each commit of the deliver worker leaves behind of an output';

CREATE TABLE kda_storage.seal (
	output_id	int NOT NULL,
	first		bigint NOT NULL,
	last		bigint NOT NULL,
	timeline	int NOT NULL,			-- of the server that has made it
	-- its rows are those that snapshot 2 sees and snapshot 1 does not, after (from_xid, from_seq) if that is given, up to (to_xid, to_seq)
	snapshot1	text,
	snapshot2	text NOT NULL,
	from_xid	xid8,
	from_seq	bigint,
	to_xid		xid8 NOT NULL,
	to_seq		bigint NOT NULL,
	PRIMARY KEY (output_id, first)
);
COMMENT ON TABLE kda_storage.seal IS 'one row a batch of records that has got its numbers and is not yet known to be delivered';

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
	query		regclass,
	bytes		int NOT NULL			-- as it counts for kda_stream.error_stream_size
);
COMMENT ON TABLE kda_storage.error IS 'records that were refused; users read kda.error_stream';

CREATE TABLE kda_storage.refused (
	error_id	bigint PRIMARY KEY,
	output_id	int NOT NULL,
	time		timestamptz NOT NULL,
	key			bytea,
	value		bytea,
	headers		text,
	hash_key	text
);
COMMENT ON TABLE kda_storage.refused IS 'the whole of each record that a sink has refused, for kda.redrive; rows go with those of kda_storage.error';

CREATE TABLE kda_storage.advance (
	stream_id	int NOT NULL,
	watermark	timestamptz NOT NULL
);
COMMENT ON TABLE kda_storage.advance IS 'kda.advance of source streams that a worker has still to apply';

CREATE TABLE kda_storage.forgotten (
	errors	bigint NOT NULL DEFAULT 0,	-- rows that have left by age or size
	bytes	bigint NOT NULL DEFAULT 0	-- of the rows that are there
) WITH (fillfactor = 50);
INSERT INTO kda_storage.forgotten DEFAULT VALUES;
COMMENT ON TABLE kda_storage.forgotten IS 'one row: how many rows have left kda.error_stream by age or size, and the size of those that are there';
COMMENT ON SEQUENCE kda_storage.error_id_seq IS 'numbers of refused records';
COMMENT ON TABLE kda_storage.advance IS 'calls of kda.advance on source streams, until the worker has applied them';

SELECT pg_catalog.pg_extension_config_dump('kda_storage.id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.error_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.stream', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.stream_progress', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.shard', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.slot', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.query', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.query_progress', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.query_share', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.sort_mark', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.output', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.output_progress', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.seal', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.refused', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.error', '');
SELECT pg_catalog.pg_extension_config_dump('kda_storage.advance', '');

/* ----------------------------------------------------------------- stream */

CREATE FUNCTION kda_storage.fdw_handler() RETURNS fdw_handler
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'kda_fdw_handler';
COMMENT ON FUNCTION kda_storage.fdw_handler() IS 'handler of foreign data wrapper kda_stream';

CREATE FUNCTION kda_storage.fdw_validator(text[], oid) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'kda_fdw_validator';
COMMENT ON FUNCTION kda_storage.fdw_validator(text[], oid) IS 'checks the options of streams, columns, servers and user mappings';

CREATE FOREIGN DATA WRAPPER kda_stream HANDLER kda_storage.fdw_handler VALIDATOR kda_storage.fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER kda_stream IS 'streams: CREATE SERVER ... TYPE ''kafka'' FOREIGN DATA WRAPPER kda_stream OPTIONS (...)';
GRANT USAGE ON FOREIGN DATA WRAPPER kda_stream TO PUBLIC;

CREATE SERVER kda FOREIGN DATA WRAPPER kda_stream;
COMMENT ON SERVER kda IS 'streams in this database';
GRANT USAGE ON FOREIGN SERVER kda TO PUBLIC;

CREATE FUNCTION kda.rowtime(tid) RETURNS timestamptz
LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'kda_rowtime';
COMMENT ON FUNCTION kda.rowtime(tid) IS 'time of a record by its ctid in the running scan of its stream; ROWTIME of streams that declare none is written so';

CREATE FUNCTION kda.tumble_start(ts timestamptz, size interval, "offset" interval DEFAULT '0') RETURNS timestamptz
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_tumble_start_sql';
COMMENT ON FUNCTION kda.tumble_start(timestamptz, interval, interval) IS 'start of the tumbling window that a time falls into; windows begin at the epoch (UTC) plus the offset';

CREATE FUNCTION kda.tumble_start(ts timestamptz, size interval, "offset" interval, time_zone text) RETURNS timestamptz
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_tumble_start_sql';
COMMENT ON FUNCTION kda.tumble_start(timestamptz, interval, interval, text) IS 'the same with days and months of a time zone';

CREATE FUNCTION kda.hop_windows(ts timestamptz, size interval, slide interval, "offset" interval DEFAULT '0', time_zone text DEFAULT 'UTC',
	OUT window_start timestamptz, OUT window_end timestamptz) RETURNS SETOF record
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'kda_hop_windows';
COMMENT ON FUNCTION kda.hop_windows(timestamptz, interval, interval, interval, text) IS 'the sliding windows that a time falls into';

CREATE FUNCTION kda.cumulate_windows(ts timestamptz, size interval, step interval, "offset" interval DEFAULT '0', time_zone text DEFAULT 'UTC',
	OUT window_start timestamptz, OUT window_end timestamptz) RETURNS SETOF record
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'kda_cumulate_windows';
COMMENT ON FUNCTION kda.cumulate_windows(timestamptz, interval, interval, interval, text) IS 'the cumulating windows that a time falls into';

CREATE FUNCTION kda.windows(ts timestamptz, description text, OUT window_start timestamptz, OUT window_end timestamptz) RETURNS SETOF record
LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 5 AS 'MODULE_PATHNAME', 'kda_windows';
COMMENT ON FUNCTION kda.windows(timestamptz, text) IS 'the windows that a time falls into; continuous queries use it';

CREATE FUNCTION kda.windows(ts timestamptz, description text, after timestamptz, OUT window_start timestamptz, OUT window_end timestamptz) RETURNS SETOF record
LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 5 AS 'MODULE_PATHNAME', 'kda_windows';
COMMENT ON FUNCTION kda.windows(timestamptz, text, timestamptz) IS 'those of them that end later than a time';

CREATE FUNCTION kda.keyed_windows(ts timestamptz, description text, VARIADIC keys "any", OUT window_start timestamptz, OUT window_end timestamptz) RETURNS SETOF record
LANGUAGE C IMMUTABLE PARALLEL SAFE ROWS 5 AS 'MODULE_PATHNAME', 'kda_keyed_windows';
COMMENT ON FUNCTION kda.keyed_windows(timestamptz, text, "any") IS 'the same of one that is made for each key; continuous queries use it';

CREATE FUNCTION kda.window_start(ts timestamptz, description text) RETURNS timestamptz
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_window_start_of';
COMMENT ON FUNCTION kda.window_start(timestamptz, text) IS 'start of the pane that a time falls into; continuous queries use it';

CREATE FUNCTION kda.window_end(ts timestamptz, description text) RETURNS timestamptz
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_window_end_of';
COMMENT ON FUNCTION kda.window_end(timestamptz, text) IS 'end of the last window that a time falls into; continuous queries use it';

CREATE FUNCTION kda.tumble_end(window_start timestamptz, size interval) RETURNS timestamptz
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_tumble_end_sql';
COMMENT ON FUNCTION kda.tumble_end(timestamptz, interval) IS 'end of the tumbling window that begins at a time';

CREATE FUNCTION kda.step(ts timestamptz, "by" interval) RETURNS timestamptz
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_tumble_start_sql';
COMMENT ON FUNCTION kda.step(timestamptz, interval) IS 'the time, rounded down to a multiple of the interval since the epoch (UTC): KDA''s STEP';

CREATE FUNCTION kda.step(ts timestamp, "by" interval) RETURNS timestamp
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_tumble_start_sql';
COMMENT ON FUNCTION kda.step(timestamp, interval) IS 'the same of a time without zone';

CREATE FUNCTION kda.floor(ts timestamptz, unit text) RETURNS timestamptz
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_floor_time';
COMMENT ON FUNCTION kda.floor(timestamptz, text) IS 'the time, rounded down to a unit (UTC): KDA''s FLOOR (... TO ...)';

CREATE FUNCTION kda.floor(ts timestamp, unit text) RETURNS timestamp
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_floor_time';
COMMENT ON FUNCTION kda.floor(timestamp, text) IS 'the same of a time without zone';

CREATE FUNCTION kda.floor(day date, unit text) RETURNS date
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_floor_date';
COMMENT ON FUNCTION kda.floor(date, text) IS 'the same of a date';

CREATE FUNCTION kda.ceil(ts timestamptz, unit text) RETURNS timestamptz
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_ceil_time';
COMMENT ON FUNCTION kda.ceil(timestamptz, text) IS 'the time, rounded up to a unit (UTC): KDA''s CEIL (... TO ...)';

CREATE FUNCTION kda.ceil(ts timestamp, unit text) RETURNS timestamp
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_ceil_time';
COMMENT ON FUNCTION kda.ceil(timestamp, text) IS 'the same of a time without zone';

CREATE FUNCTION kda.ceil(day date, unit text) RETURNS date
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_ceil_date';
COMMENT ON FUNCTION kda.ceil(date, text) IS 'the same of a date';

CREATE FUNCTION kda.window_description(kind text, size interval, slide interval DEFAULT NULL, "offset" interval DEFAULT NULL) RETURNS text
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_window_description_of';
COMMENT ON FUNCTION kda.window_description(text, interval, interval, interval) IS 'windows as kda.windows takes them; ad hoc queries whose sizes are no literals use it';

CREATE FUNCTION kda.stagger_start(ts timestamptz, length interval) RETURNS timestamptz
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE WINDOW AS 'MODULE_PATHNAME', 'kda_stagger_start';
COMMENT ON FUNCTION kda.stagger_start(timestamptz, interval) IS 'start of the stagger window that the row is in; OVER (PARTITION BY key ORDER BY arrival); ad hoc queries use it';

CREATE FUNCTION kda.advance(stream regclass, watermark timestamptz) RETURNS void
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'kda_advance';
COMMENT ON FUNCTION kda.advance(regclass, timestamptz) IS 'declares that nothing earlier will come: the watermark of the stream becomes at least this; needs INSERT right';

/* -------------------------------------------------------------- connector */

-- A cache: what is not here is asked for again, so it is not dumped.
CREATE TABLE kda_storage.registered_schema (
	registry	oid,					-- the server
	id			bytea,					-- as records name it
	schema		bytea NOT NULL,			-- its text, UTF-8
	PRIMARY KEY (registry, id)
);
COMMENT ON TABLE kda_storage.registered_schema IS 'schemas that registries have told';

CREATE FUNCTION kda.sample(stream regclass, n int DEFAULT 10, timeout interval DEFAULT '10 s')
RETURNS TABLE (shard text, "position" text, arrival timestamptz, data bytea, row_json json, error text)
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'kda_sample';
COMMENT ON FUNCTION kda.sample(regclass, int, interval) IS 'the last n records of a source stream, read directly from its server; moves no position';

CREATE FUNCTION kda_storage.encode(stream regclass, r record) RETURNS bytea
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'kda_trial_encode';
COMMENT ON FUNCTION kda_storage.encode(regclass, record) IS 'what would be sent for a row of the stream''s type, in the stream''s format; for tests';

CREATE FUNCTION kda_storage.schema(stream regclass) RETURNS text
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'kda_trial_schema';
COMMENT ON FUNCTION kda_storage.schema(regclass) IS 'the Avro schema of what the stream writes, NULL with other formats; for tests';

CREATE FUNCTION kda_storage.decode(stream regclass, data bytea, OUT r json, OUT error_name text, OUT message text) RETURNS SETOF record
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'kda_trial_decode';
COMMENT ON FUNCTION kda_storage.decode(regclass, bytea) IS 'the rows that a record of these bytes would give, or why it would be refused; for tests';

/* ------------------------------------------------------------------ query */

CREATE TYPE kda.state;
CREATE FUNCTION kda_storage.state_in(cstring) RETURNS kda.state
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_state_in';
CREATE FUNCTION kda_storage.state_out(kda.state) RETURNS cstring
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_state_out';
CREATE FUNCTION kda_storage.state_recv(internal) RETURNS kda.state
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_state_recv';
CREATE FUNCTION kda_storage.state_send(kda.state) RETURNS bytea
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_state_send';
CREATE TYPE kda.state (
	INPUT = kda_storage.state_in, OUTPUT = kda_storage.state_out,
	RECEIVE = kda_storage.state_recv, SEND = kda_storage.state_send,
	STORAGE = extended
);
COMMENT ON TYPE kda.state IS 'partial aggregate of an open group, where its own type cannot be stored';
COMMENT ON FUNCTION kda_storage.state_in(cstring) IS 'of type kda.state';
COMMENT ON FUNCTION kda_storage.state_out(kda.state) IS 'of type kda.state';
COMMENT ON FUNCTION kda_storage.state_recv(internal) IS 'of type kda.state';
COMMENT ON FUNCTION kda_storage.state_send(kda.state) IS 'of type kda.state';

CREATE FUNCTION kda.final(aggregate text, state "any", result_type anyelement) RETURNS anyelement
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_final';
COMMENT ON FUNCTION kda.final(text, "any", anyelement) IS 'result of an aggregate from its partial state; continuous views use it';

CREATE TYPE kda.place;
CREATE FUNCTION kda_storage.place_in(cstring) RETURNS kda.place
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_place_in';
CREATE FUNCTION kda_storage.place_out(kda.place) RETURNS cstring
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_place_out';
CREATE TYPE kda.place (INPUT = kda_storage.place_in, OUTPUT = kda_storage.place_out, INTERNALLENGTH = 16, ALIGNMENT = double);
COMMENT ON TYPE kda.place IS 'place of a record in its stream: its time, then the order of arrival; windows of OVER are ordered by it';
COMMENT ON FUNCTION kda_storage.place_in(cstring) IS 'of type kda.place';
COMMENT ON FUNCTION kda_storage.place_out(kda.place) IS 'of type kda.place';
CREATE FUNCTION kda.place(ts timestamptz, arrived bigint) RETURNS kda.place
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_place_make';
COMMENT ON FUNCTION kda.place(timestamptz, bigint) IS 'place of a record by its time and order of arrival';
CREATE FUNCTION kda_storage.place_lt(kda.place, kda.place) RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_place_lt';
COMMENT ON FUNCTION kda_storage.place_lt(kda.place, kda.place) IS 'of type kda.place';
CREATE FUNCTION kda_storage.place_le(kda.place, kda.place) RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_place_le';
COMMENT ON FUNCTION kda_storage.place_le(kda.place, kda.place) IS 'of type kda.place';
CREATE FUNCTION kda_storage.place_eq(kda.place, kda.place) RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_place_eq';
COMMENT ON FUNCTION kda_storage.place_eq(kda.place, kda.place) IS 'of type kda.place';
CREATE FUNCTION kda_storage.place_ge(kda.place, kda.place) RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_place_ge';
COMMENT ON FUNCTION kda_storage.place_ge(kda.place, kda.place) IS 'of type kda.place';
CREATE FUNCTION kda_storage.place_gt(kda.place, kda.place) RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_place_gt';
COMMENT ON FUNCTION kda_storage.place_gt(kda.place, kda.place) IS 'of type kda.place';
CREATE FUNCTION kda_storage.place_ne(kda.place, kda.place) RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_place_ne';
COMMENT ON FUNCTION kda_storage.place_ne(kda.place, kda.place) IS 'of type kda.place';
CREATE FUNCTION kda_storage.place_cmp(kda.place, kda.place) RETURNS int
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_place_cmp';
COMMENT ON FUNCTION kda_storage.place_cmp(kda.place, kda.place) IS 'of type kda.place';
CREATE FUNCTION kda_storage.place_in_range(kda.place, kda.place, interval, boolean, boolean) RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_place_in_range';
COMMENT ON FUNCTION kda_storage.place_in_range(kda.place, kda.place, interval, boolean, boolean) IS 'of type kda.place: RANGE interval PRECEDING includes all records of its first instant';
CREATE OPERATOR kda.< (
	LEFTARG = kda.place, RIGHTARG = kda.place, FUNCTION = kda_storage.place_lt, COMMUTATOR = OPERATOR(kda.>), NEGATOR = OPERATOR(kda.>=), RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
COMMENT ON OPERATOR kda.< (kda.place, kda.place) IS 'earlier';
CREATE OPERATOR kda.<= (
	LEFTARG = kda.place, RIGHTARG = kda.place, FUNCTION = kda_storage.place_le, COMMUTATOR = OPERATOR(kda.>=), NEGATOR = OPERATOR(kda.>), RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
COMMENT ON OPERATOR kda.<= (kda.place, kda.place) IS 'not later';
CREATE OPERATOR kda.= (
	LEFTARG = kda.place, RIGHTARG = kda.place, FUNCTION = kda_storage.place_eq, COMMUTATOR = OPERATOR(kda.=), NEGATOR = OPERATOR(kda.<>), RESTRICT = eqsel, JOIN = eqjoinsel, MERGES
);
COMMENT ON OPERATOR kda.= (kda.place, kda.place) IS 'the same';
CREATE OPERATOR kda.>= (
	LEFTARG = kda.place, RIGHTARG = kda.place, FUNCTION = kda_storage.place_ge, COMMUTATOR = OPERATOR(kda.<=), NEGATOR = OPERATOR(kda.<), RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
COMMENT ON OPERATOR kda.>= (kda.place, kda.place) IS 'not earlier';
CREATE OPERATOR kda.> (
	LEFTARG = kda.place, RIGHTARG = kda.place, FUNCTION = kda_storage.place_gt, COMMUTATOR = OPERATOR(kda.<), NEGATOR = OPERATOR(kda.<=), RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
COMMENT ON OPERATOR kda.> (kda.place, kda.place) IS 'later';
CREATE OPERATOR kda.<> (
	LEFTARG = kda.place, RIGHTARG = kda.place, FUNCTION = kda_storage.place_ne, COMMUTATOR = OPERATOR(kda.<>), NEGATOR = OPERATOR(kda.=), RESTRICT = neqsel, JOIN = neqjoinsel
);
COMMENT ON OPERATOR kda.<> (kda.place, kda.place) IS 'another';
CREATE OPERATOR CLASS kda.place_ops DEFAULT FOR TYPE kda.place USING btree AS
	OPERATOR 1 kda.<, OPERATOR 2 kda.<=, OPERATOR 3 kda.=, OPERATOR 4 kda.>=, OPERATOR 5 kda.>,
	FUNCTION 1 kda_storage.place_cmp(kda.place, kda.place),
	FUNCTION 3 (kda.place, interval) kda_storage.place_in_range(kda.place, kda.place, interval, boolean, boolean);
COMMENT ON OPERATOR CLASS kda.place_ops USING btree IS 'order of records in their stream';
COMMENT ON OPERATOR FAMILY kda.place_ops USING btree IS 'order of records in their stream';

CREATE FUNCTION kda.emitted() RETURNS SETOF record
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'kda_emitted';
COMMENT ON FUNCTION kda.emitted() IS 'the rows that a pump is about to insert; only inside its worker';

CREATE FUNCTION kda_storage.merge_step(internal, text, "any", anyelement) RETURNS internal
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_merge_step';
COMMENT ON FUNCTION kda_storage.merge_step(internal, text, "any", anyelement) IS 'of aggregate kda.merge';
CREATE FUNCTION kda_storage.merge_final(internal, text, "any", anyelement) RETURNS anyelement
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'kda_merge_final';
COMMENT ON FUNCTION kda_storage.merge_final(internal, text, "any", anyelement) IS 'of aggregate kda.merge';
CREATE AGGREGATE kda.merge(aggregate text, state "any", result_type anyelement) (
	SFUNC = kda_storage.merge_step, STYPE = internal, FINALFUNC = kda_storage.merge_final, FINALFUNC_EXTRA
);
COMMENT ON AGGREGATE kda.merge(text, "any", anyelement) IS 'result of an aggregate from several partial states; continuous views use it';

CREATE FUNCTION kda.frontier(query_id int) RETURNS timestamptz
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'kda_frontier';
COMMENT ON FUNCTION kda.frontier(int) IS 'windows of a continuous query that end at or before this are closed; continuous views use it';

CREATE FUNCTION kda.slotted(stream_id int) RETURNS boolean
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'kda_slotted';
COMMENT ON FUNCTION kda.slotted(int) IS 'true if states of the stream''s queries may be in parts, one for each process that reads it; continuous views use it';

CREATE FUNCTION kda.pane_after(tid) RETURNS timestamptz
LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'kda_pane_after';
COMMENT ON FUNCTION kda.pane_after(tid) IS 'the record counts in windows that end later than this; only inside a worker';

CREATE FUNCTION kda.batch_row(tid) RETURNS bigint
LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'kda_batch_row';
COMMENT ON FUNCTION kda.batch_row(tid) IS 'place of a record in the batch, in order of arrival; only inside a worker';

CREATE FUNCTION kda.closing(query_id int) RETURNS boolean
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'kda_closing';
COMMENT ON FUNCTION kda.closing(int) IS 'true inside a worker while it computes rows of a continuous query that leave';

CREATE FUNCTION kda.closing_sessions(query_id int, OUT window_start timestamptz, OUT window_end timestamptz, OUT kda_key bigint) RETURNS SETOF record
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'kda_closing_sessions';
COMMENT ON FUNCTION kda.closing_sessions(int) IS 'sessions of a continuous query whose rows are wanted, while kda.closing() is true; continuous queries use it';

CREATE FUNCTION kda.window_closed() RETURNS boolean
LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'kda_window_closed';
COMMENT ON FUNCTION kda.window_closed() IS 'what window_closed is in a continuous query: true for rows of windows that have closed';

CREATE FUNCTION kda.window_revision() RETURNS int
LANGUAGE C STABLE AS 'MODULE_PATHNAME', 'kda_window_revision';
COMMENT ON FUNCTION kda.window_revision() IS 'what window_revision is in a continuous query: how often the row was corrected after its window had closed';

/* ---------------------------------------------------------------- dialect */

CREATE FUNCTION kda.execute(statements text) RETURNS void
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'kda_execute';
COMMENT ON FUNCTION kda.execute(text) IS 'runs one or many statements, KDA''s and ordinary ones';

CREATE FUNCTION kda.query(query text) RETURNS SETOF record
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'kda_query';
COMMENT ON FUNCTION kda.query(text) IS 'rows of one SELECT, which may have a window clause; for tools that parse SQL themselves';

/* ---------------------------------------------------------------- runtime */

CREATE FUNCTION kda.wait(stream regclass, timeout interval DEFAULT '30 s') RETURNS boolean
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'kda_wait';
COMMENT ON FUNCTION kda.wait(regclass, interval) IS 'true when everything that was readable at the call has been processed and committed by every query that depends on it; false at the timeout';

CREATE FUNCTION kda.resume_all() RETURNS bigint
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'kda_resume_all';
COMMENT ON FUNCTION kda.resume_all() IS 'resumes the caller''s paused streams, as after a restore; returns how many';

CREATE FUNCTION kda.watermark(object regclass) RETURNS timestamptz
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'kda_watermark';
COMMENT ON FUNCTION kda.watermark(regclass) IS 'watermark of a stream, or of what a view or pump reads; needs SELECT right';

CREATE FUNCTION kda.definition(object regclass) RETURNS text
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'kda_definition';
COMMENT ON FUNCTION kda.definition(regclass) IS 'CREATE statement of a stream, continuous view or pump; for its owner';

CREATE FUNCTION kda.explain(object regclass) RETURNS SETOF text
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'kda_explain';
COMMENT ON FUNCTION kda.explain(regclass) IS 'plans of the two parts of a continuous view or pump; for its owner';

CREATE FUNCTION kda.reset_statistics(object regclass DEFAULT NULL) RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'kda_reset_statistics';
COMMENT ON FUNCTION kda.reset_statistics(regclass) IS 'sets counters of a stream or query, or of all that the caller owns, to zero';

CREATE FUNCTION kda_storage.workers(
	OUT pid int, OUT kind text, OUT slot int, OUT database text, OUT state text, OUT restarts bigint,
	OUT last_error text, OUT commits bigint, OUT commit_ms double precision, OUT busy_ms double precision,
	OUT backpressured_ms double precision, OUT idle_ms double precision, OUT last_commit timestamptz,
	OUT commit_interval_ms int, OUT waiting_for text, OUT held_back_by text, OUT worker text)
RETURNS SETOF record LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'kda_workers';
COMMENT ON FUNCTION kda_storage.workers() IS 'rows of kda.workers';

CREATE VIEW kda.streams AS
SELECT c.oid::regclass AS stream,
	f.srvname AS server,
	coalesce(f.srvtype, 'database') AS connector,
	CASE WHEN s.failure IS NOT NULL THEN 'failed' WHEN s.paused THEN 'paused'
		WHEN EXISTS (SELECT FROM kda_storage.query q WHERE c.oid IN (q.stream, q.stream2)) THEN 'running'
		ELSE 'waiting' END AS state,
	p.watermark,
	coalesce(p.records_in, 0) AS records_in,
	coalesce(p.bytes_in, 0) AS bytes_in,
	coalesce(p.records_late, 0) AS records_late,
	coalesce(p.records_failed, 0) AS records_failed,
	coalesce(p.records_skipped, 0) AS records_skipped,
	(SELECT max(CASE WHEN h.closed THEN 0 WHEN h.millis_behind IS NOT NULL THEN h.millis_behind WHEN h.end_position > h.position
			THEN greatest(0, extract(epoch FROM clock_timestamp() - h.last_arrival) * 1000)::bigint ELSE 0 END)
		FROM kda_storage.shard h WHERE h.stream_id = s.stream_id AND (h.end_position IS NOT NULL OR h.millis_behind IS NOT NULL)) AS millis_behind_latest,
	coalesce(p.backpressured_ms, 0) AS backpressured_ms,
	p.last_commit,
	coalesce(s.failure, p.last_error) AS last_error,
	p.stats_reset
FROM pg_foreign_table t
JOIN pg_foreign_server f ON f.oid = t.ftserver
JOIN pg_foreign_data_wrapper w ON w.oid = f.srvfdw AND w.fdwname = 'kda_stream'
JOIN pg_class c ON c.oid = t.ftrelid
LEFT JOIN kda_storage.stream s ON s.rel = c.oid
LEFT JOIN kda_storage.stream_progress p USING (stream_id)
WHERE s.part_of IS NULL AND NOT EXISTS (SELECT FROM kda_storage.output o WHERE o.rel = c.oid AND o.source IS NOT NULL)
	AND (pg_has_role(c.relowner, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE'));
COMMENT ON VIEW kda.streams IS 'a row per stream: state (running, paused, waiting for a query, failed), watermark and counters';

CREATE VIEW kda.shards AS
SELECT s.rel AS stream,
	h.shard,
	h.slot,
	coalesce(h.mark, h.position::text, CASE WHEN f.srvtype IS NULL THEN coalesce(p.snapshot2, p.snapshot1) END) AS position,
	h.watermark,
	greatest(h.end_position - h.position, 0) AS lag_records,
	CASE WHEN h.closed THEN 'closed' WHEN h.idle THEN 'idle' ELSE 'open' END AS state,
	CASE WHEN h.closed THEN 0 WHEN h.millis_behind IS NOT NULL THEN h.millis_behind WHEN h.end_position > h.position
		THEN greatest(0, extract(epoch FROM clock_timestamp() - h.last_arrival) * 1000)::bigint
		WHEN h.end_position IS NOT NULL THEN 0 END AS millis_behind_latest
FROM kda_storage.shard h
JOIN kda_storage.stream s USING (stream_id)
JOIN kda_storage.stream_progress p USING (stream_id)
JOIN pg_class c ON c.oid = s.rel
JOIN pg_foreign_table t ON t.ftrelid = c.oid
JOIN pg_foreign_server f ON f.oid = t.ftserver
WHERE s.part_of IS NULL AND (pg_has_role(c.relowner, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE'))
	AND (h.position IS NOT NULL OR f.srvtype IS NULL);	-- where it begins is still to be found
COMMENT ON VIEW kda.shards IS 'a row per shard of a stream: position (the next offset; Kinesis: the last record; of a database stream, a snapshot), watermark, lag';

CREATE VIEW kda.queries AS
SELECT q.rel::text AS name,
	q.kind,
	CASE WHEN coalesce(p.failure, f.failure) IS NOT NULL THEN 'failed' WHEN q.stopped THEN 'stopped' ELSE 'running' END AS state,
	CASE WHEN pg_has_role(c.relowner, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE') THEN q.definition END AS definition,
	c.relowner::regrole AS owner,
	CASE WHEN NOT p.joined THEN NULL WHEN sp.relayed AND q.one_slot IS NOT NULL THEN sp.derived ELSE sp.watermark END AS watermark,
	p.complete_from,
	p.records_in,
	p.records_late + coalesce((SELECT sum(pp.records_late) FROM kda_storage.query part JOIN kda_storage.query_progress pp USING (query_id)
		WHERE part.part_of = q.query_id), 0)::bigint AS records_late,
	p.records_out,
	greatest(p.open_windows, o.open_windows) AS open_windows,
	(p.groups + coalesce(o.groups, 0))::bigint AS groups,
	(p.state_bytes + coalesce(o.state_bytes, 0))::bigint AS state_bytes,
	p.busy_ms,
	p.last_commit,
	coalesce(p.failure, f.failure, p.last_error) AS last_error,
	p.stats_reset
FROM kda_storage.query q
JOIN kda_storage.query_progress p USING (query_id)
JOIN pg_class c ON c.oid = q.rel
LEFT JOIN kda_storage.stream s ON s.rel = q.stream
LEFT JOIN kda_storage.stream_progress sp USING (stream_id)
LEFT JOIN LATERAL (SELECT max(h.open_windows) AS open_windows, sum(h.groups) AS groups, sum(h.state_bytes) AS state_bytes
	FROM kda_storage.query_share h JOIN kda_storage.slot l ON l.stream_id = s.stream_id AND l.slot = h.slot WHERE h.query_id = q.query_id) o ON true
LEFT JOIN LATERAL (SELECT pp.failure FROM kda_storage.query part JOIN kda_storage.query_progress pp USING (query_id)	-- it is as good as its parts
	WHERE part.part_of = q.query_id AND pp.failure IS NOT NULL ORDER BY part.query_id LIMIT 1) f ON true
WHERE q.part_of IS NULL AND NOT EXISTS (SELECT FROM kda_storage.output u WHERE u.pump = q.rel)
	AND (pg_has_role(c.relowner, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE') OR has_table_privilege(c.oid, 'SELECT'));
COMMENT ON VIEW kda.queries IS 'a row per continuous view and pump: state (running, stopped, failed), progress and counters';

CREATE FUNCTION kda_storage.outbox_pending(output_id int, OUT pending bigint, OUT oldest timestamptz)
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'kda_outbox_pending';
COMMENT ON FUNCTION kda_storage.outbox_pending(int) IS 'how many rows of an output have still to be delivered, and when the oldest was inserted; kda.outputs uses it';

CREATE VIEW kda.outputs AS
SELECT o.rel AS output,
	coalesce(o.source, o.rel) AS stream,
	f.srvname AS server,
	CASE WHEN o.failure IS NOT NULL THEN 'failed' WHEN o.paused OR coalesce(s.paused, false) THEN 'paused' ELSE 'running' END AS state,
	b.pending,
	p.records_out AS delivered,
	p.records_failed AS failed,
	p.retries,
	b.oldest AS oldest_pending,
	coalesce(o.failure, p.last_error) AS last_error,
	p.stats_reset,
	p.records_again AS delivered_again,		-- after a failover: sent again, although the former server had delivered them
	p.delivered AS last_number,				-- of the records that have been delivered or refused
	p.last_delivery
FROM kda_storage.output o
JOIN kda_storage.output_progress p USING (output_id)
JOIN pg_class c ON c.oid = o.rel
JOIN pg_foreign_table t ON t.ftrelid = c.oid
JOIN pg_foreign_server f ON f.oid = t.ftserver
LEFT JOIN kda_storage.stream s ON s.rel = o.rel
CROSS JOIN LATERAL kda_storage.outbox_pending(o.output_id) b
WHERE pg_has_role(c.relowner, 'USAGE') OR pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW kda.outputs IS 'a row per output, and per stream of an outside server that has been written: state (running, paused, failed), what is pending, and counters';

CREATE FUNCTION kda.redrive(stream regclass, error_name text DEFAULT NULL, since timestamptz DEFAULT '-infinity') RETURNS bigint
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'kda_redrive';
COMMENT ON FUNCTION kda.redrive(regclass, text, timestamptz) IS 'sends deliveries that were refused again and takes them out of kda.error_stream; returns how many';

CREATE VIEW kda.workers AS
SELECT w.pid, w.kind, w.slot, w.database, w.state, w.restarts, w.last_error, w.commits, w.commit_ms, w.busy_ms,
	w.backpressured_ms, w.idle_ms, w.last_commit,
	w.commit_interval_ms,		-- as stretched now
	w.waiting_for,				-- what holds the worker up: a lock
	CASE WHEN w.waiting_for IS NOT NULL THEN pg_blocking_pids(w.pid) END AS blocked_by,
	w.held_back_by,				-- whose old snapshot makes its tables grow
	w.worker					-- option worker of its streams; slot counts its processes from 0
FROM kda_storage.workers() w
WHERE pg_has_role('pg_monitor', 'USAGE')
	OR (SELECT pg_has_role(d.datdba, 'USAGE') FROM pg_database d WHERE d.datname = current_database());
COMMENT ON VIEW kda.workers IS 'a row per process of kda_stream: launcher, pipeline workers and deliver workers';

CREATE VIEW kda.error_stream AS
SELECT e.error_id, e.error_time, e.error_level, e.error_name, e.message, e.stream, e.shard, e.position,
	e.data_rowtime, e.data_row, e.data_text,
	coalesce((SELECT w.rel FROM kda_storage.query p JOIN kda_storage.query w ON w.query_id = p.part_of	-- a part is no name to users
		WHERE p.rel = e.query),
		(SELECT o.rel FROM kda_storage.output o WHERE o.pump = e.query), e.query) AS query
FROM kda_storage.error e
JOIN pg_class c ON c.oid = e.stream
WHERE pg_has_role(c.relowner, 'USAGE');
COMMENT ON VIEW kda.error_stream IS 'a row per refused record: malformed, conversion, too_large, late, ahead, expression, rejected, delivery; for the stream''s owner';

GRANT SELECT ON kda.streams, kda.shards, kda.queries, kda.outputs, kda.workers, kda.error_stream TO PUBLIC;
