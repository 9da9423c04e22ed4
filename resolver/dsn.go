package resolver

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// portsUnmatched is followed by "3 port numbers to 2 hosts".
const portsUnmatched = "could not match"

// dsnFaults are words of pgx on connection strings that it does not accept, what
// stands first in its text first.
var dsnFaults = []string{
	"failed to parse as URL", "failed to parse as keyword/value", "failed to read service", "failed to configure TLS",
	"invalid port", portsUnmatched, "invalid sslcertmode", "invalid connect_timeout", "invalid require_auth",
	"unknown target_session_attrs value", "unknown channel_binding value",
	"invalid min_protocol_version", "invalid max_protocol_version", "min_protocol_version cannot be greater than max_protocol_version",
	"cannot parse statement_cache_capacity", "cannot parse description_cache_capacity", "invalid default_query_exec_mode",

	"forbidden NUL byte", "forbidden value %00", "invalid percent-encoded token", "unexpected spaces found",
	"end of string reached when looking for matching \"]\"", "IPv6 host address may not be empty", "unexpected character",
	"missing key/value separator \"=\"", "extra key/value separator \"=\"",
	"missing \"=\"", "unterminated quoted string", "invalid keyword/value",
	"sslmode is invalid", "both \"sslcert\" and \"sslkey\" are required",
	"unable to read CA file", "unable to add CA to cert pool", "unable to read cert", "unable to load cert", "unable to read sslkey",
	"failed to decode sslkey", "unable to find sslpassword", "unable to decrypt key",
	"failed to read service file", "unable to find service",
}

// dsnFault says what pgx finds wrong with a connection string: " (invalid port)".
// Its own text repeats parts of the string, and what is malformed may be a piece
// of the password anywhere: only words from our list are told, behind a blank. It
// is empty when there are none.
func dsnFault(err error) string {
	var parse *pgconn.ParseConfigError
	if !errors.As(err, &parse) {
		return ""
	}
	blank := *parse
	blank.ConnString = ""
	text := blank.Error()
	var found []string
	for _, words := range dsnFaults {
		if i := strings.Index(text, words); i >= 0 {
			found = append(found, words)
			text = text[i+len(words):]
			if words == portsUnmatched {
				found[len(found)-1] += " port numbers to hosts"
			}
		}
	}
	if len(found) == 0 {
		return ""
	}
	return " (" + strings.Join(found, ": ") + ")"
}

// textOf is an error for the log and for NodeStatus. What pgx says of a failed
// connection names user, database, host and what the server answered, but no
// password; what it says of a malformed connection string may hold one.
func textOf(err error) string {
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		return "the connection string is not readable" + dsnFault(err)
	}
	return err.Error()
}
