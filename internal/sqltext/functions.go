package sqltext

import (
	"strings"
	"sync"
)

// functionClass says where a function may run and whether its answer lasts.
type functionClass uint8

const (
	// pure depends on its arguments and on settings that a program does not
	// change (time zone, formats, locale): safe on a standby, cacheable.
	pure functionClass = iota
	// unstable reads only and runs anywhere, but answers differently each time,
	// on each node or in each session, or reads tables that the text does not name.
	unstable
	// primary writes, locks, changes the session, fails on a standby, or reads
	// state that only one session has.
	primary
)

type function struct {
	name      string
	class     functionClass
	aggregate bool
	locks     bool
	session   bool
	foreign   bool // not of Postgres
	opaque    bool // may write what the text does not name
	personal  bool // unstable only by who asks
}

// Postgres calls a function stable when its answer can change between
// statements. For these it changes with settings only, or with the arguments'
// types' settings, so caching them is sound. Names are judged by their worst
// overload: age(ts) counts from today, so age is not here.
const settingsOnly = `
anytextcat array_out array_to_json array_to_string concat concat_ws convert convert_from convert_to date date_part
date_trunc enum_first enum_last enum_range extract format format_type generate_series in_range interval_pl_timestamptz
json_agg json_build_array json_build_object json_object_agg json_populate_record json_populate_recordset json_to_record
json_to_recordset json_to_tsvector jsonb_agg jsonb_build_array jsonb_build_object jsonb_path_exists_tz
jsonb_path_match_tz jsonb_path_query_array_tz jsonb_path_query_first_tz jsonb_path_query_tz jsonb_populate_record
jsonb_populate_recordset jsonb_to_record jsonb_to_recordset jsonb_to_tsvector length make_timestamptz money numeric
overlaps pg_typeof phraseto_tsquery plainto_tsquery quote_literal quote_nullable row_to_json textanycat time timestamp
timestamptz timetz timezone to_char to_date to_json to_jsonb to_number to_timestamp to_tsquery to_tsvector ts_headline
websearch_to_tsquery xml xml_is_well_formed`

// syntaxFunctions look like calls and are grammar of Postgres (in some version
// from 14 to 18), so that no function of the user's own can have the name. PostGIS'
// prefix is as good as grammar.
const syntaxFunctions = `
coalesce nullif greatest least trim grouping xmlattributes xmlconcat xmlelement xmlforest xmlnamespaces xmlparse xmlpi xmlroot
xmlserialize xmltable
json_table json_value json_query json_exists json_array json_arrayagg json_objectagg json_scalar json_serialize
merge_action decimal dec integer int bigint smallint real float boolean character char varchar nchar
st_distance st_dwithin st_contains st_within st_intersects st_makepoint st_setsrid st_point st_x st_y
st_asgeojson st_astext st_geomfromtext st_geogfromtext st_area st_length st_buffer st_transform`

// foreignFunctions are built into SQLite or MySQL. In Postgres anybody may have
// defined such a name, so they are known and among UnknownFunctions all the same.
const foreignFunctions = `
ifnull iif if group_concat total printf instr hex unhex quote zeroblob typeof
unicode glob like likely unlikely likelihood json json_array_length json_each json_extract json_group_array
json_group_object json_insert json_patch json_remove json_replace json_set json_tree json_type json_valid json_quote
jsonb date_format str_to_date field find_in_set elt substring_index json_unquote json_contains
json_keys json_length json_overlaps json_search json_merge_patch datediff timestampdiff timestampadd date_add date_sub
adddate subdate addtime subtime ucase lcase year month day hour minute second week quarter weekday dayofweek dayofmonth
dayofyear dayname monthname yearweek last_day makedate maketime sec_to_time time_to_sec to_days from_days mid locate conv
inet_aton inet_ntoa inet6_aton inet6_ntoa insert space strcmp truncate log2 bin oct ord export_set compress uncompress
crc32 sha1 sha2 std isnull any_value double binary match bm25 highlight snippet`

// foreignUnstable are foreignFunctions whose answer is not decided by their
// arguments, or not when they are called without any.
const foreignUnstable = `
strftime julianday unixepoch timediff datetime from_unixtime rand uuid uuid_short curdate curtime sysdate
utc_timestamp utc_date utc_time unix_timestamp database schema connection_id sqlite_version sqlite_source_id randomblob
sleep`

// readAnywhere are volatile, and yet read only: a standby answers them as well as
// the primary. Those of newer versions and of the extensions that come with
// Postgres have names that nobody gives to a function that writes.
const readAnywhere = `
random random_normal clock_timestamp timeofday gen_random_uuid uuidv4 uuidv7 uuid_generate_v1 uuid_generate_v1mc
uuid_generate_v4 gen_random_bytes gen_salt array_sample array_shuffle current_query pg_sleep pg_sleep_for pg_sleep_until
pg_is_in_recovery pg_is_wal_replay_paused pg_get_wal_replay_pause_state pg_last_wal_receive_lsn pg_last_wal_replay_lsn
pg_last_xact_replay_timestamp pg_last_committed_xact pg_blocking_pids pg_safe_snapshot_blocking_pids pg_control_checkpoint
pg_control_init pg_control_recovery pg_control_system pg_database_size pg_indexes_size pg_relation_size pg_table_size
pg_tablespace_size pg_total_relation_size pg_lock_status pg_partition_ancestors pg_partition_tree pg_prepared_xact
pg_sequence_last_value pg_jit_available pg_collation_actual_version pg_database_collation_actual_version
pg_show_all_file_settings pg_show_replication_origin_status pg_stat_get_recovery_prefetch pg_stat_get_xact_blocks_fetched
pg_stat_get_xact_blocks_hit pg_stat_get_xact_function_calls pg_stat_get_xact_function_self_time
pg_stat_get_xact_function_total_time pg_stat_get_xact_numscans pg_stat_get_xact_tuples_deleted
pg_stat_get_xact_tuples_fetched pg_stat_get_xact_tuples_hot_updated pg_stat_get_xact_tuples_inserted
pg_stat_get_xact_tuples_returned pg_stat_get_xact_tuples_updated pg_stat_have_stats pg_xact_commit_timestamp
pg_get_backend_memory_contexts pg_get_shmem_allocations pg_get_wal_resource_managers pg_stat_statements
pgp_sym_encrypt pgp_pub_encrypt`

// primaryOnly are immutable or stable by the catalogue, or unknown to it, and yet
// must not go to a standby: they assign a transaction id, are refused during
// recovery (pg_walfile_name is immutable by pg_proc), lock, run remote or given SQL,
// or read what a session did before.
const primaryOnly = `
txid_current pg_current_xact_id txid_current_if_assigned pg_current_xact_id_if_assigned pg_walfile_name
pg_walfile_name_offset pg_replication_origin_oid pg_listening_channels pg_my_temp_schema pg_prepared_statement pg_cursor
dblink dblink_exec dblink_connect dblink_connect_u dblink_disconnect dblink_open dblink_close dblink_fetch
dblink_send_query dblink_get_result pg_stat_statements_reset
last_insert_rowid changes total_changes last_insert_id row_count found_rows load_extension
get_lock release_lock release_all_locks is_free_lock is_used_lock benchmark`

// anyWrite run SQL or code that the text does not show.
const anyWrite = `dblink dblink_exec dblink_send_query dblink_get_result load_extension`

const sessionFunctions = `set_config setseed dblink_connect dblink_connect_u load_extension`

const aggregateFunctions = `
any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp every group_concat
json_agg json_arrayagg json_group_array json_group_object json_object_agg json_objectagg jsonb_agg jsonb_object_agg max
min mode percentile_cont percentile_disc range_agg range_intersect_agg regr_avgx regr_avgy regr_count regr_intercept
regr_r2 regr_slope regr_sxx regr_sxy regr_syy std stddev stddev_pop stddev_samp string_agg sum total var_pop var_samp
variance xmlagg`

// personalFunctions depend on who asks: on a session's role and settings, and on
// which roles are members of which.
const personalFunctions = `current_setting pg_has_role`

// personal reports whether a word of the grammar means who asks.
func personal(word string) bool {
	for _, w := range [...]string{"CURRENT_USER", "SESSION_USER", "CURRENT_ROLE", "USER"} {
		if isWord(word, w) {
			return true
		}
	}
	return false
}

// functions holds every known function by its folded name. It is built when the
// first call is met.
var functions = sync.OnceValue(func() map[string]*function {
	m := make(map[string]*function, 3200)
	put := func(names string, class functionClass) {
		for name := range strings.FieldsSeq(names) {
			m[name] = &function{name: name, class: class, locks: strings.Contains(name, "advisory") || name == "get_lock"}
		}
	}
	put(foreignFunctions, pure)
	put(foreignUnstable, unstable)
	for _, f := range m {
		f.foreign = true
	}
	put(immutableBuiltins, pure)
	put(stableBuiltins, unstable)
	put(volatileBuiltins, primary)
	put(syntaxFunctions, pure)
	put(settingsOnly, pure)
	put(readAnywhere, unstable)
	put(primaryOnly, primary)
	for name := range strings.FieldsSeq(sessionFunctions) {
		m[name].session = true
	}
	for name := range strings.FieldsSeq(anyWrite) {
		m[name].opaque = true
	}
	for name := range strings.FieldsSeq(personalFunctions) {
		m[name].personal = true
	}
	for name := range strings.FieldsSeq(aggregateFunctions) {
		m[name].aggregate = true
	}
	return m
})

// movingTime reports whether a string literal may be one of the date inputs that
// mean another time at each reading, such as 'now' or 'tomorrow 12:00'. It errs
// towards yes: the word may stand in plain text, and escapes may spell it.
func movingTime(literal string) bool {
	if len(literal) < 5 {
		return false
	}
	if c := literal[0] | 0x20; c == 'e' || c == 'u' {
		if i := strings.IndexByte(literal, '\\'); i >= 0 && strings.IndexByte(`'"\bfnrt`, literal[i+1]) < 0 {
			return len(literal) <= maxMoving // \x6eow
		}
	}
	return MovingTime(literal)
}

// maxMoving is more than Postgres reads of a date, in bytes.
const maxMoving = 128

// MovingTime reports whether a value may be read as a date that is another time at
// each reading, such as 'now' or 'tomorrow 12:00'. It errs towards yes: the word may
// stand in plain text.
func MovingTime(value string) bool {
	if len(value) > maxMoving || len(value) < 3 {
		return false
	}
	for i := 0; i < len(value); {
		if class[value[i]] != cLetter {
			i++
			continue
		}
		start := i
		for i < len(value) && class[value[i]] == cLetter {
			i++
		}
		switch word := value[start:i]; len(word) {
		case 3:
			if isWord(word, "NOW") {
				return true
			}
		case 5:
			if isWord(word, "TODAY") {
				return true
			}
		case 8:
			if isWord(word, "TOMORROW") {
				return true
			}
		case 9:
			if isWord(word, "YESTERDAY") || isWord(word, "LOCALTIME") {
				return true
			}
		}
	}
	return false
}
