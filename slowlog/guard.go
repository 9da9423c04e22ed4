package slowlog

import (
	"slices"
	"strings"

	"github.com/gorminfra/infra/internal/sqltext"
)

// certainRead reports whether the text is one query that can do nothing but read,
// and calls known functions only. READ ONLY alone is no protection: it lets
// pg_notify, advisory locks, set_config, lo_create, CREATE TABLE AS and
// pg_terminate_backend through. The tokenizer's word is checked against a list of
// our own.
func certainRead(text *sqltext.Statement) bool {
	if text.Operation != sqltext.Select || !text.ReadOnly() {
		return false
	}
	return !slices.ContainsFunc(text.Functions, blocked)
}

// blocked reports whether the function, as folded by sqltext, acts beyond its
// transaction, or needs to write.
func blocked(function string) bool {
	name := strings.ToLower(function[strings.LastIndexByte(function, '.')+1:])
	if blockedNames[name] {
		return true
	}
	for _, prefix := range blockedPrefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

var blockedPrefixes = strings.Fields(`
	pg_advisory_ pg_try_advisory_ lo_ dblink pg_cancel_ pg_terminate_ pg_read_ pg_ls_ pg_file_ pg_stat_reset
	pg_wal_replay_ pg_replication_ pg_logical_ pg_create_ pg_drop_ pg_copy_ pg_backup_ pg_start_ pg_stop_ pg_import_
	pg_log_ pg_rotate_ binary_upgrade_ brin_ gin_clean_ ts_rewrite cursor_to_xml query_to_xml`)

var blockedNames = func() map[string]bool {
	m := make(map[string]bool)
	for _, name := range strings.Fields(`
		pg_notify set_config setseed nextval setval lastval currval loread lowrite pg_reload_conf pg_promote pg_switch_wal
		pg_export_snapshot pg_extension_config_dump pg_prewarm pg_stat_file pg_stat_clear_snapshot pg_stat_force_next_flush
		pg_stat_statements_reset txid_current pg_current_xact_id ts_stat pg_nextoid heap_force_kill heap_force_freeze
		get_lock release_lock release_all_locks benchmark sleep load_file load_extension last_insert_id sys_exec sys_eval`) {
		m[name] = true
	}
	return m
}()
