package resolver

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestFaultOfAConnectionStringIsToldWithoutItsText(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]string{
		"postgres://u:topsecret@h:port/x":                              " (invalid port)",
		"postgres://u:top%zzsecret@h/x":                                " (failed to parse as URL: invalid percent-encoded token)",
		"postgres://u:to/p?topsecret@h/x":                              ` (failed to parse as URL: missing key/value separator "=")`,
		"postgres://u:top/secret?sslmode=topsecret@h":                  " (invalid port)",
		"postgres://u:p@h/x?connect_timeout=topsecret":                 " (invalid connect_timeout)",
		"postgres://u:p@h/x?target_session_attrs=topsecret":            " (unknown target_session_attrs value)",
		"postgres://u:p@h/x?statement_cache_capacity=topsecret":        " (cannot parse statement_cache_capacity)",
		"postgres://u:p@h/x?default_query_exec_mode=topsecret":         " (invalid default_query_exec_mode)",
		"postgres://u:p@h/x?sslmode=verify-full&sslrootcert=topsecret": " (failed to configure TLS: unable to read CA file)",
		"host=h sslmode=topsecret":                                     " (failed to configure TLS: sslmode is invalid)",
		"host=h password=my topsecret":                                 " (failed to parse as keyword/value: invalid keyword/value)",
		"host=h password=my topsecret user=u":                          ` (failed to parse as keyword/value: missing "=")`,
		"host=h password='topsecret":                                   " (failed to parse as keyword/value: unterminated quoted string)",
		"host=h port=1,2":                                              " (could not match port numbers to hosts)",
	} {
		_, err := pgx.ParseConfig(dsn)
		if err == nil {
			t.Errorf("%s is readable", dsn)
			continue
		}
		if got := dsnFault(err); got != want {
			t.Errorf("%s: %q, want %q", dsn, got, want)
		}
		if text := textOf(fmt.Errorf("resolver: open: %w", err)); text != "the connection string is not readable"+want || strings.Contains(text, "topsecret") {
			t.Errorf("%s: %s", dsn, text)
		}
	}
	if got := dsnFault(errors.New("something else")); got != "" {
		t.Errorf("%q", got)
	}
}
