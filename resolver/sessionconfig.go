package resolver

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Session says how a client's own writes, and what it was shown, are carried to
// its next request, which another process may serve: in a signed token, as a
// cookie or a header. Without a Key nothing leaves the process.
//
// What a token shows to who looks into it: a position in the WAL, the system
// identifier, and when a replica started. It gives no right to anything.
type Session struct {
	// Key signs tokens. At least 16 random bytes, the same in all processes that
	// serve one client; 32 are as many as are of use.
	Key []byte
	// OldKeys are accepted besides. To change the key, first add the new one here
	// in every process, then make it Key and keep the old one here, and drop it a
	// TTL later. At most 8.
	OldKeys [][]byte
	// Name is that of the header, or of the cookie that requests set which wrote;
	// that of those which only read has "-read" behind it. Default "infra-token".
	// Two databases need two names.
	Name string
	// TTL is how long a token counts. Default the largest MaxLag (of the Config, its
	// Groups and Priorities) and a minute, at most a day: by then a replica within
	// its bound has what the token stands for.
	TTL time.Duration
	// Header carries the token in a header instead of cookies, for clients that
	// send back what they received last, such as other services. One that has several
	// requests under way at once sends back what all of them answered: the header
	// may stand in a request more than once.
	Header bool
	// WritesOnly sets a token for requests that wrote and for no others. Reads
	// are then monotonic within a request only, and readers get no cookie.
	WritesOnly bool

	// Path and Domain of the cookie. Default "/", and no domain.
	Path, Domain string
	// SameSite of the cookie. Default Lax.
	SameSite http.SameSite
	// Insecure lets the cookie travel without TLS. It is never open to scripts.
	Insecure bool
}

const (
	defaultTokenName = "infra-token"
	maxDefaultTTL    = 24 * time.Hour
	minKey           = 16
	maxOldKeys       = 8
)

func (s Session) withDefaults(maxLag time.Duration) Session {
	s.Key = slices.Clone(s.Key)
	s.OldKeys = slices.Clone(s.OldKeys)
	for i, k := range s.OldKeys {
		s.OldKeys[i] = slices.Clone(k)
	}
	s.Name = cmp.Or(s.Name, defaultTokenName)
	s.TTL = cmp.Or(s.TTL, min(maxLag, maxDefaultTTL-time.Minute)+time.Minute)
	s.Path = cmp.Or(s.Path, "/")
	s.SameSite = cmp.Or(s.SameSite, http.SameSiteLaxMode)
	return s
}

// validate tells bad of each fault. Keys are not repeated.
func (s Session) validate(bad func(field string, value any, rule string)) {
	length := func(k []byte) string { return fmt.Sprintf("%d bytes long", len(k)) }
	if n := len(s.Key); n > 0 && n < minKey {
		bad("Session.Key", length(s.Key), "must be at least 16 bytes")
	}
	if len(s.Key) == 0 && len(s.OldKeys) > 0 {
		bad("Session.Key", "empty", "must be set where OldKeys are")
	}
	if len(s.OldKeys) > maxOldKeys {
		bad("Session.OldKeys", fmt.Sprintf("%d keys", len(s.OldKeys)), "must be at most 8")
	}
	for i, k := range s.OldKeys {
		if len(k) < minKey {
			bad(fmt.Sprintf("Session.OldKeys[%d]", i), length(k), "must be at least 16 bytes")
		}
	}
	if strings.ContainsFunc(s.Name, func(r rune) bool { return !isToken(r) }) || len(s.Name) > 64 {
		bad("Session.Name", fmt.Sprintf("%q", s.Name), "must be at most 64 of the letters, digits and signs that the name of a cookie or header may have")
	}
	if s.TTL != 0 && s.TTL < time.Second {
		bad("Session.TTL", s.TTL, "must be at least 1s; zero is the default of the largest MaxLag and a minute")
	}
	if s.SameSite < 0 || s.SameSite > http.SameSiteNoneMode {
		bad("Session.SameSite", int(s.SameSite), "must be one of http.SameSite's")
	}
	if s.SameSite == http.SameSiteNoneMode && s.Insecure {
		bad("Session.Insecure", true, "must not be set with SameSite None, which browsers refuse")
	}
	// RFC 6265bis, section 4.1.3: browsers drop a cookie whose name promises more.
	if !s.Header && s.Insecure && hasPrefix(s.Name, "__Secure-", "__Host-") {
		bad("Session.Insecure", true, fmt.Sprintf("must not be set with the Name %q, which browsers then refuse", s.Name))
	}
	if !s.Header && hasPrefix(s.Name, "__Host-") && (s.Domain != "" || s.Path != "" && s.Path != "/") {
		bad("Session.Name", fmt.Sprintf("%q", s.Name), "must not begin so with a Domain, or a Path other than /, which browsers refuse")
	}
	if strings.ContainsAny(s.Path, ";\r\n") || s.Path != "" && s.Path[0] != '/' {
		bad("Session.Path", fmt.Sprintf("%q", s.Path), "must begin with / and have no semicolon")
	}
	if strings.ContainsAny(s.Domain, "; \r\n") {
		bad("Session.Domain", fmt.Sprintf("%q", s.Domain), "must be a domain")
	}
}

func hasPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return len(s) >= len(p) && strings.EqualFold(s[:len(p)], p)
	})
}

// isToken reports whether r may stand in a token of RFC 9110, section 5.6.2.
func isToken(r rune) bool {
	return r < 0x7f && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
}
