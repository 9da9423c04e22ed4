package limithook

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// ByHeader is a [Config.Identity] that takes the identity from a header field,
// such as an API key's. Whoever can set the field chooses who is charged: let it
// be one that a gateway sets, or check it first.
func ByHeader(name string) func(*http.Request) string {
	return func(r *http.Request) string { return strings.TrimSpace(r.Header.Get(name)) }
}

// ByContext is a [Config.Identity] that takes the identity from the value of a
// key in the request's context, where authentication outside of the middleware
// has put it: a string, a [fmt.Stringer], or an integer.
func ByContext(key any) func(*http.Request) string {
	return func(r *http.Request) string {
		switch v := r.Context().Value(key).(type) {
		case string:
			return v
		case fmt.Stringer:
			return v.String()
		case int, int32, int64, uint, uint32, uint64:
			return fmt.Sprint(v)
		}
		return ""
	}
}

// ByClient is a [Config.Identity] that takes the client's address: that of the
// connection or, where that is one of the trusted proxies, the last one in
// X-Forwarded-For that is not, read from the right. What is left of it may have
// been invented by the client and is not looked at. An entry that is no address
// was not written by a proxy: then the address of the one who passed it on counts.
//
// Clients with IPv6 have a whole network each, so of their addresses the first 64
// bits count. A connection without an address, such as a unix socket's, counts as
// a trusted one; if nothing else is known the identity is empty.
func ByClient(trusted ...netip.Prefix) func(*http.Request) string {
	trusted = append([]netip.Prefix(nil), trusted...)
	trusts := func(a netip.Addr) bool {
		for _, p := range trusted {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	return func(r *http.Request) string {
		client, ok := address(r.RemoteAddr)
		if ok && !trusts(client) {
			return clientID(client)
		}
		fields := r.Header.Values("X-Forwarded-For")
		for i := len(fields) - 1; i >= 0; i-- {
			for rest, more := fields[i], true; more; {
				entry := rest
				if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
					rest, entry = rest[:comma], rest[comma+1:]
				} else {
					more = false
				}
				hop, valid := address(strings.TrimSpace(entry))
				if !valid {
					return clientID(client)
				}
				if client = hop; !trusts(hop) {
					return clientID(client)
				}
			}
		}
		return clientID(client)
	}
}

// address reads an address with or without a port. One of IPv4 within IPv6 is
// that of IPv4.
func address(s string) (netip.Addr, bool) {
	if len(s) > 64 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		p, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		a = p.Addr()
	}
	return a.Unmap().WithZone(""), true
}

func clientID(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return ""
	case a.Is6():
		p, err := a.Prefix(64)
		if err != nil {
			return "" // 64 bits are always there
		}
		return p.String()
	}
	return a.String()
}

// FirstOf is a [Config.Identity] that asks each in turn until one knows who it
// is: an API key, or else the client's address.
func FirstOf(identities ...func(*http.Request) string) func(*http.Request) string {
	return func(r *http.Request) string {
		for _, identity := range identities {
			if id := identity(r); id != "" {
				return id
			}
		}
		return ""
	}
}
